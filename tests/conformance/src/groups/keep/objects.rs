//! Durable objects that are not there, or are damaged.

use super::{MANIFEST, same_manifest, with_work};
use crate::bench::Bench;
use crate::called::{Checking, broken, said, same, skip};
use alpine_provider_api::*;
use std::path::{Path, PathBuf};

pub(super) async fn object_missing(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    sandbox.stop(1000).await?.ok("stop ends every process")?;
    let request = sandbox.persist_request(1, None);
    let told = sandbox.persist_as(request).await?;
    let there = told.ok("persist takes a payload alone")?.durable_object_id;
    // An id of the right shape that nothing bears.
    let last = if there.ends_with('0') { '1' } else { '0' };
    let kept = there.char_indices().last().map_or(0, |(at, _)| at);
    let object = format!("{}{last}", &there[..kept]);
    let told = sandbox.read(&object).await?;
    told.refused(&[ErrorKind::NotFound], "read_object of none")?;
    if bench.shared.describe.has(Method::Restore) {
        let sandbox = bench.sandbox()?.made().await?;
        for object in [&object, &there] {
            let told = sandbox.restore(object).await?;
            told.refused(&[ErrorKind::NotFound], "restore of no workspace")?;
        }
    }
    Ok(())
}

pub(super) async fn corrupt(bench: &Bench<'_>) -> Checking {
    let Some(objects) = bench.shared.subject.objects() else {
        return skip("the store can't be reached, so nothing in it can be damaged");
    };
    let (sandbox, manifest) = with_work(bench).await?;
    let (object, _) = sandbox.kept(1).await?;
    let files = files_of(&objects, &object);
    if files.is_empty() {
        let place = objects.display();
        return skip(format!("no file of object `{object}` is in {place}"));
    }
    // It is in every memory now.
    let whole = sandbox.read(&object).await?;
    let whole = whole.ok("the whole object is read")?;
    let (mut unread, mut unrestored) = (0, 0);
    for file in files {
        let what = format!("a bit of `{}` has changed", name_of(&file));
        let flip =
            || flip(&file).or_else(|error| broken("the store can be changed", error.to_string()));
        flip()?;
        let read = sandbox.read(&object).await;
        let back = restored(bench, &object).await;
        flip()?;
        match read?.reply {
            Ok(reply) => same(&what, &whole, &reply)?,
            Err(error) if error.kind == ErrorKind::Corrupt => unread += 1,
            Err(error) => return broken(format!("{what}: `corrupt`"), said(&error)),
        }
        match back? {
            Some(Ok(back)) => same_manifest(&what, &manifest, &back)?,
            Some(Err(error)) if error.kind == ErrorKind::Corrupt => unrestored += 1,
            Some(Err(error)) => return broken(format!("{what}: `corrupt`"), said(&error)),
            None => unrestored += 1,
        }
    }
    if unread == 0 || unrestored == 0 {
        return broken("`corrupt` for a reader and for who restores", "neither");
    }
    let mended = sandbox.read(&object).await?;
    same("the mended object", &whole, &mended.ok("it is read")?)
}

/// The workspace that comes back, or why none does; none where none can.
async fn restored(
    bench: &Bench<'_>,
    object: &str,
) -> Checking<Option<Result<String, ProviderError>>> {
    if !bench.shared.describe.has(Method::Restore) {
        return Ok(None);
    }
    let sandbox = bench.sandbox()?.made().await?;
    Ok(Some(match sandbox.restore(object).await?.reply {
        Ok(_) => Ok(sandbox.sh(MANIFEST).await?),
        Err(error) => Err(error),
    }))
}

fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The files in the store whose path names the object.
fn files_of(objects: &Path, object: &str) -> Vec<PathBuf> {
    let key = object.rsplit('_').next().unwrap_or(object);
    let (mut found, mut unseen) = (Vec::new(), vec![objects.to_owned()]);
    while let Some(directory) = unseen.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                unseen.push(path);
            } else if path.to_string_lossy().contains(key) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Changes one bit in the middle of a file, and nothing else of it.
fn flip(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut bytes = std::fs::read(file)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    let before = std::fs::metadata(file)?.permissions();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))?;
    std::fs::write(file, bytes)?;
    std::fs::set_permissions(file, before)
}
