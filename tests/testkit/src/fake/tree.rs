//! A workspace as a map of files, and that map as bytes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

pub(super) type Tree = BTreeMap<String, Vec<u8>>;

/// Every regular file below `root`, by its path; with `whole`, everything else too, and every mode.
pub(super) fn read(root: &Path, whole: bool) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let path = entry.path();
            let name = name_of(path.strip_prefix(root).expect("a path below its root"));
            let kind = entry.file_type()?;
            let mode = entry.metadata()?.permissions().mode() & 0o7777;
            if kind.is_dir() {
                open.push(path);
                if whole {
                    tree.insert(format!("{name}\0d{mode:o}"), Vec::new());
                }
            } else if whole && kind.is_symlink() {
                let target = fs::read_link(&path)?;
                tree.insert(format!("{name}\0l"), target.into_os_string().into_vec());
            } else if whole {
                tree.insert(format!("{name}\0f{mode:o}"), fs::read(&path)?);
            } else {
                tree.insert(name, fs::read(&path)?);
            }
        }
    }
    Ok(tree)
}

/// Writes every file below `root`.
pub(super) fn write<'a>(
    root: &Path,
    files: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>,
) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let mut modes = Vec::new();
    for (key, bytes) in files {
        let (name, kind) = key.split_once('\0').unwrap_or((key, ""));
        let path = root.join(path_of(name));
        fs::create_dir_all(path.parent().expect("a file's directory"))?;
        match kind.split_at_checked(1) {
            Some(("l", _)) => symlink(OsStr::from_bytes(bytes), &path)?,
            Some(("d", mode)) => {
                fs::create_dir_all(&path)?;
                modes.push((path, mode));
            }
            Some((_, mode)) => {
                fs::write(&path, bytes)?;
                modes.push((path, mode));
            }
            None => fs::write(path, bytes)?,
        }
    }
    // What is inside comes first: a directory may be closed afterwards.
    for (path, mode) in modes.into_iter().rev() {
        let mode = u32::from_str_radix(mode, 8).map_err(io::Error::other)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The first of 256 characters of private use that stand for bytes that are no text.
const NO_TEXT: u32 = 0xf700;

fn name_of(path: &Path) -> String {
    let mut name = String::new();
    for part in path.as_os_str().as_bytes().utf8_chunks() {
        name.push_str(part.valid());
        let odd = part.invalid().iter();
        name.extend(odd.filter_map(|&byte| char::from_u32(NO_TEXT + u32::from(byte))));
    }
    name
}

fn path_of(name: &str) -> PathBuf {
    let mut bytes = Vec::new();
    for c in name.chars() {
        match u8::try_from(u32::from(c).wrapping_sub(NO_TEXT)) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The tree as bytes: the same tree gives the same bytes.
pub(super) fn encode(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in tree {
        out.extend_from_slice(format!("{} {} ", name.len(), bytes.len()).as_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(bytes);
    }
    out
}

/// The tree that these bytes stand for.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Tree> {
    let mut tree = Tree::new();
    while !bytes.is_empty() {
        let name_length = number(&mut bytes)?;
        let length = number(&mut bytes)?;
        let name = bytes.split_off(..name_length)?;
        let content = bytes.split_off(..length)?;
        tree.insert(String::from_utf8(name.to_vec()).ok()?, content.to_vec());
    }
    Some(tree)
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|&byte| byte == b' ')?;
    let digits = bytes.split_off(..end)?;
    let _space = bytes.split_off(..1)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub(super) fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::{Tree, decode, encode, read, write};
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_whole_tree_comes_back_with_modes_links_and_odd_names() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        fs::create_dir_all(one.join("empty/deep")).unwrap();
        fs::write(one.join(OsStr::from_bytes(b"odd\xff\n")), b"x").unwrap();
        fs::write(one.join("run"), b"#!").unwrap();
        fs::set_permissions(one.join("run"), fs::Permissions::from_mode(0o751)).unwrap();
        symlink("/nowhere", one.join("link")).unwrap();
        let tree = read(&one, true).unwrap();
        assert_eq!(tree.len(), 5);
        write(&other, &tree).unwrap();
        assert_eq!(read(&other, true).unwrap(), tree);
        assert!(other.join(OsStr::from_bytes(b"odd\xff\n")).exists());
    }

    #[test]
    fn a_tree_comes_back_from_its_bytes() {
        let tree = Tree::from([
            ("HEAD".to_owned(), b"1 2 3".to_vec()),
            ("src/é".to_owned(), Vec::new()),
        ]);
        assert_eq!(decode(&encode(&tree)), Some(tree.clone()));
        let mut torn = encode(&tree);
        torn.pop();
        torn.truncate(12);
        assert_eq!(decode(&torn), None);
        assert_eq!(decode(b""), Some(Tree::new()));
    }
}
