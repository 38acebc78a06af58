//! A workspace is captured, persisted, read back and restored.

use crate::bench::Bench;
use crate::called::{Checking, broken, said, same, skip};
use crate::catalogue::{Check, check};
use crate::sandbox::Sandbox;
use alpine_provider_api::*;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) const CHECKS: &[Check] = &[
    check!(
        Keep,
        "capture.twice",
        "the same generation gives the snapshot that was staged",
        capture_twice,
        SyncRepo | Capture
    ),
    check!(
        Keep,
        "persist.twice",
        "the same request gives the same durable object, and another payload another",
        persist_twice,
        SyncRepo | Capture | Persist | ReadObject
    ),
    check!(
        Keep,
        "persist.given_up",
        "a persist that was given up is finished by a repeat, and no half of it is ever seen",
        persist_given_up,
        SyncRepo | Capture | Persist | ReadObject
    ),
    check!(
        Keep,
        "persist.reads_back",
        "read_object gives the payload byte for byte, and the digest and size of the snapshot that was staged",
        reads_back,
        SyncRepo | Capture | Persist | ReadObject
    ),
    check!(
        Keep,
        "persist.without_workspace",
        "a payload is persisted without a snapshot where the workspace is given up",
        without_workspace,
        Persist | ReadObject
    ),
    check!(
        Keep,
        "persist.destroyed",
        "a payload is persisted without a snapshot where the sandbox was destroyed: all that a ledger from a backup can do",
        destroyed,
        Persist | ReadObject
    ),
    check!(
        Keep,
        "object.missing",
        "an object that is not there is `not_found`",
        object_missing,
        Persist | ReadObject
    ),
    check!(
        Keep,
        "object.corrupt",
        "an object of which one bit has changed is `corrupt`, for who reads it and for who restores it; never is anything else given for it",
        corrupt,
        SyncRepo | Capture | Persist | ReadObject
    ),
    check!(
        Keep,
        "restore.whole",
        "the whole workspace comes back: files that git ignores, empty directories, modes, links and odd names included, and nothing else",
        restore_whole,
        SyncRepo | Capture | Persist | Restore
    ),
    check!(
        Keep,
        "restore.twice",
        "restore again leaves the workspace as it is",
        restore_twice,
        SyncRepo | Capture | Persist | Restore
    ),
    check!(
        Keep,
        "restore.given_up",
        "a partial workspace is made anew by a repeat",
        restore_given_up,
        SyncRepo | Capture | Persist | Restore
    ),
];

/// Work of every kind that an agent could leave.
const WORK: &str = r#"
mkdir -p ignored empty/deep closed
echo i > ignored/file; echo l > x.log; echo c > closed/in
ln -s ../README.md empty/link; ln -s /nowhere absolute
printf '\000\377\r\n' > bin/bytes; head -c 300000 /dev/zero > bin/zeros
printf x > "$(printf 'new\nline')"; printf x > "$(printf 'not-utf8-\377')"
echo changed >> version; rm src/empty; ln version hard
chmod 600 README.md; chmod 555 bin/run; chmod 700 empty; chmod 500 closed
"#;

/// Every file with its kind, mode and content.
const MANIFEST: &str = r#"
find . -mindepth 1 | LC_ALL=C sort | while IFS= read -r f; do
  if [ -L "$f" ]; then echo "link $f to $(readlink "$f")"
  elif [ -d "$f" ]; then echo "directory $f $(stat -c %a "$f")"
  elif [ -e "$f" ]; then echo "file $f $(stat -c %a "$f") $(cksum < "$f")"
  else echo "part $f"; fi
done
"#;

async fn with_work<'a>(bench: &'a Bench<'_>) -> Checking<(Sandbox<'a>, String)> {
    let sandbox = bench.sandbox()?.filled(&bench.repository().pinned).await?;
    sandbox.sh(WORK).await?;
    let manifest = sandbox.sh(MANIFEST).await?;
    Ok((sandbox, manifest))
}

/// The first line in which two manifests differ.
fn same_manifest(what: &str, expected: &str, found: &str) -> Checking {
    let all = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (expected, found) = (all(expected), all(found));
    let lost = expected.iter().find(|line| !found.contains(line));
    let more = found.iter().find(|line| !expected.contains(line));
    match (lost, more) {
        (None, None) => Ok(()),
        (lost, more) => broken(
            format!("{what}: {}", lost.map_or("nothing more", String::as_str)),
            more.map_or("it is not there", String::as_str),
        ),
    }
}

async fn capture_twice(bench: &Bench<'_>) -> Checking {
    let (sandbox, _) = with_work(bench).await?;
    sandbox.stop(1000).await?.ok("stop ends every process")?;
    let first = sandbox.capture(1).await?.ok("capture stages it")?;
    for _ in 0..2 {
        bench.reopen().await;
        let again = sandbox.capture(1).await?.ok("capture again answers")?;
        same("the snapshot that was staged", &first, &again)?;
    }
    match (first.size, first.entries) {
        (1.., 1..) => Ok(()),
        (size, entries) => broken(
            "a size and entries",
            format!("{size} bytes, {entries} entries"),
        ),
    }
}

async fn persist_twice(bench: &Bench<'_>) -> Checking {
    let (sandbox, _) = with_work(bench).await?;
    let (object, staged) = sandbox.kept(1).await?;
    let request = sandbox.persist_request(1, Some(staged.clone()));
    for _ in 0..2 {
        bench.reopen().await;
        let told = sandbox.persist_as(request.clone()).await?;
        let again = told.ok("persist again answers")?.durable_object_id;
        same("the object", &object, &again)?;
    }
    let staged = sandbox
        .capture(2)
        .await?
        .ok("another generation is staged")?;
    let mut request = sandbox.persist_request(2, Some(staged));
    request.payload = request.payload.replace("note", "other");
    let told = sandbox.persist_as(request.clone()).await?;
    let other = told.ok("another payload is persisted")?.durable_object_id;
    if other == object {
        return broken("another object for another payload", "the same");
    }
    let told = sandbox.read(&other).await?;
    let read = told.ok("it is read")?;
    same("the other payload", &request.payload, &read.payload)
}

async fn persist_given_up(bench: &Bench<'_>) -> Checking {
    for generation in 1..=4 {
        let (sandbox, _) = with_work(bench).await?;
        sandbox.stop(1000).await?.ok("stop ends every process")?;
        let staged = sandbox.capture(generation).await?.ok("capture stages it")?;
        let request = sandbox.persist_request(generation, Some(staged.clone()));
        let after = Duration::from_micros(bench.random(10_000));
        let at = sandbox.begin(Method::Persist, &request).await?;
        let call = at.provider.persist(&at.call, request.clone());
        drop(at.end_dropped(call, tokio::time::sleep(after)).await);
        drop(at);
        let told = sandbox.persist_as(request.clone()).await?;
        let object = told.ok("the repeat persists it")?.durable_object_id;
        is_kept(&sandbox, &object, &request).await?;
    }
    Ok(())
}

async fn is_kept(sandbox: &Sandbox<'_>, object: &str, request: &PersistRequest) -> Checking {
    let told = sandbox.read(object).await?;
    let read = told.ok("read_object reads the object")?;
    same("the payload", &request.payload, &read.payload)?;
    let expected = request.snapshot.as_ref().map(|staged| ReadSnapshot {
        digest: staged.digest.clone(),
        size: staged.size,
    });
    same("the snapshot", &expected, &read.snapshot)
}

async fn reads_back(bench: &Bench<'_>) -> Checking {
    let (sandbox, _) = with_work(bench).await?;
    let (object, staged) = sandbox.kept(1).await?;
    let request = sandbox.persist_request(1, Some(staged));
    for _ in 0..2 {
        is_kept(&sandbox, &object, &request).await?;
        bench.reopen().await;
    }
    Ok(())
}

async fn without_workspace(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    sandbox.stop(1000).await?.ok("stop ends every process")?;
    let request = sandbox.persist_request(1, None);
    let told = sandbox.persist_as(request.clone()).await?;
    let object = told.ok("persist takes a payload alone")?.durable_object_id;
    is_kept(&sandbox, &object, &request).await
}

async fn destroyed(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    sandbox.stop(1000).await?.ok("stop ends every process")?;
    sandbox
        .destroy()
        .await?
        .ok("destroy of a stopped sandbox")?;
    let request = sandbox.persist_request(1, None);
    let told = sandbox.persist_as(request.clone()).await?;
    let object = told.ok("persist takes a payload alone")?.durable_object_id;
    is_kept(&sandbox, &object, &request).await
}

async fn object_missing(bench: &Bench<'_>) -> Checking {
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

async fn corrupt(bench: &Bench<'_>) -> Checking {
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

async fn restore_whole(bench: &Bench<'_>) -> Checking {
    let (sandbox, before) = with_work(bench).await?;
    let (object, staged) = sandbox.kept(1).await?;
    if let Some(left) = staged.left_out.first() {
        return broken("nothing of it is left out", format!("{left:?}"));
    }
    let other = bench.sandbox()?.made().await?;
    bench.reopen().await;
    other.restore(&object).await?.ok("restore brings it back")?;
    let after = other.sh(MANIFEST).await?;
    same_manifest("the workspace", &before, &after)?;
    other.is(SandboxState::Running, "after restore").await
}

async fn restore_twice(bench: &Bench<'_>) -> Checking {
    let (sandbox, before) = with_work(bench).await?;
    let (object, _) = sandbox.kept(1).await?;
    let other = bench.sandbox()?.made().await?;
    let first = other.restore(&object).await?.ok("restore brings it back")?;
    for _ in 0..2 {
        bench.reopen().await;
        let again = other.restore(&object).await?.ok("restore again answers")?;
        same("how much there is", &first, &again)?;
        same_manifest("the workspace", &before, &other.sh(MANIFEST).await?)?;
    }
    Ok(())
}

async fn restore_given_up(bench: &Bench<'_>) -> Checking {
    let (sandbox, before) = with_work(bench).await?;
    let (object, _) = sandbox.kept(1).await?;
    for _ in 0..4 {
        let other = bench.sandbox()?.made().await?;
        let request = RestoreRequest {
            sandbox_id: other.id.clone(),
            durable_object_id: object.clone(),
        };
        let after = Duration::from_micros(bench.random(8000));
        let at = other.begin(Method::Restore, &request).await?;
        let call = at.provider.restore(&at.call, request);
        if let Some(Err(error)) = at.end_dropped(call, tokio::time::sleep(after)).await {
            return broken("restore brings it back", said(&error));
        }
        drop(at);
        other
            .restore(&object)
            .await?
            .ok("the repeat brings it back")?;
        same_manifest("the workspace", &before, &other.sh(MANIFEST).await?)?;
    }
    Ok(())
}
