//! A workspace as a map of files, and that map as bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

pub(super) type Tree = BTreeMap<String, Vec<u8>>;

/// Every regular file below `root`, by its path.
pub(super) fn read(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).expect("a path below its root");
                tree.insert(name.to_string_lossy().into_owned(), fs::read(&path)?);
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
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a file's directory"))?;
        fs::write(path, bytes)?;
    }
    Ok(())
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
    use super::{Tree, decode, encode};

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
