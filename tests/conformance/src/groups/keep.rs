//! A workspace is captured, persisted, read back and restored.

mod objects;
mod restore;

use crate::bench::Bench;
use crate::called::{Checking, broken, same};
use crate::catalogue::{Check, check};
use crate::sandbox::Sandbox;
use alpine_provider_api::*;
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
        objects::object_missing,
        Persist | ReadObject
    ),
    check!(
        Keep,
        "object.corrupt",
        "an object of which one bit has changed is `corrupt`, for who reads it and for who restores it; never is anything else given for it",
        objects::corrupt,
        SyncRepo | Capture | Persist | ReadObject
    ),
    check!(
        Keep,
        "restore.whole",
        "the whole workspace comes back: files that git ignores, empty directories, modes, links and odd names included, and nothing else",
        restore::restore_whole,
        SyncRepo | Capture | Persist | Restore
    ),
    check!(
        Keep,
        "restore.twice",
        "restore again leaves the workspace as it is",
        restore::restore_twice,
        SyncRepo | Capture | Persist | Restore
    ),
    check!(
        Keep,
        "restore.given_up",
        "a partial workspace is made anew by a repeat",
        restore::restore_given_up,
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
