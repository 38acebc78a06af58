//! Objects in a real directory: whole, repeated, interrupted, damaged, refused.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use alpine_objects::Store;
use alpine_provider_api::{ErrorKind, ProviderError};
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::task::Poll;

const SESSION: &str = "ses_0123456789abcdef0123456789abcdef";
const PAYLOAD: &str = r#"{"schema_version":"v1"}"#;

struct Place {
    root: tempfile::TempDir,
    digest: String,
}

impl Place {
    /// With a staged file of several parts.
    fn new() -> Self {
        let mut place = Self {
            root: tempfile::tempdir().unwrap(),
            digest: String::new(),
        };
        let bytes: Vec<u8> = (0..9_000_001u32).map(|at| (at % 251) as u8).collect();
        fs::write(place.staged(), &bytes).unwrap();
        place.digest = blake3::hash(&bytes).to_hex().to_string();
        place
    }

    fn staged(&self) -> PathBuf {
        self.root.path().join("staged")
    }

    fn objects(&self) -> PathBuf {
        self.root.path().join("objects")
    }

    fn store(&self) -> Store {
        Store::file(&self.objects()).unwrap()
    }

    async fn put(&self) -> Result<String, ProviderError> {
        let staged = self.staged();
        let snapshot = Some((staged.as_path(), self.digest.as_str()));
        self.store()
            .put(SESSION, 1, PAYLOAD, snapshot, &|_, _| {})
            .await
    }

    async fn read(&self, id: &str) -> Result<alpine_provider_api::ReadObjectReply, ProviderError> {
        self.store().read(id, &|_, _| {}).await
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.objects().join(id)
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_put_is_read_and_is_put_once() {
    let place = Place::new();
    let told = Mutex::new(Vec::new());
    let tell = |done, total| told.lock().unwrap().push((done, total));
    let staged = place.staged();
    let snapshot = Some((staged.as_path(), place.digest.as_str()));
    let id = place
        .store()
        .put(SESSION, 1, PAYLOAD, snapshot, &tell)
        .await
        .unwrap();
    assert_eq!(
        told.lock().unwrap().last(),
        Some(&(9_000_001, Some(9_000_001)))
    );
    let files = ["manifest.json", "payload.json", "workspace.tar.zst"];
    assert_eq!(names(&place.folder(&id)), files);
    let mode = fs::metadata(place.objects()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let found = place.read(&id).await.unwrap();
    assert_eq!(found.payload, PAYLOAD);
    let snapshot = found.snapshot.unwrap();
    assert_eq!(
        (snapshot.digest, snapshot.size),
        (place.digest.clone(), 9_000_001)
    );
    let file = place.store().snapshot_file(&id).await.unwrap();
    assert_eq!(fs::read(file).unwrap(), fs::read(place.staged()).unwrap());

    let inodes = || {
        files.map(|file| {
            std::os::unix::fs::MetadataExt::ino(
                &fs::metadata(place.folder(&id).join(file)).unwrap(),
            )
        })
    };
    let before = inodes();
    assert_eq!(place.put().await.unwrap(), id);
    assert_eq!(inodes(), before, "nothing is written again");
    fs::remove_file(place.staged()).unwrap();
    assert_eq!(
        place.put().await.unwrap(),
        id,
        "a whole object needs no staged file"
    );
}

#[tokio::test]
async fn other_contents_are_other_objects() {
    let place = Place::new();
    let store = place.store();
    let staged = place.staged();
    let snapshot = Some((staged.as_path(), place.digest.as_str()));
    let mut ids = Vec::new();
    for (session, generation, payload, snapshot) in [
        (SESSION, 1, PAYLOAD, snapshot),
        (SESSION, 2, PAYLOAD, snapshot),
        (SESSION, 1, "{}", snapshot),
        (SESSION, 1, PAYLOAD, None),
        ("ses_2", 1, PAYLOAD, snapshot),
    ] {
        ids.push(
            store
                .put(session, generation, payload, snapshot, &|_, _| {})
                .await
                .unwrap(),
        );
    }
    let lost = place.read(&ids[3]).await.unwrap();
    assert_eq!((lost.payload.as_str(), lost.snapshot), (PAYLOAD, None));
    let error = store.snapshot_file(&ids[3]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[test]
fn an_interrupted_put_shows_nothing_and_the_next_one_mends_it() {
    let place = Place::new();
    let id = on_a_runtime(async { Place::new().put().await.unwrap() });
    // The whole runtime goes, as with a process that is ended, after more and more turns, until one put gets to its end.
    let mut turns = 1;
    loop {
        let done = on_a_runtime(turns_of(turns, place.put()));
        if let Some(done) = done {
            assert_eq!(done.unwrap(), id);
            assert!(turns > 5, "it was interrupted at several places");
            break;
        }
        match on_a_runtime(place.read(&id)) {
            Ok(found) => assert_eq!(found.payload, PAYLOAD),
            Err(error) => assert_eq!(error.kind, ErrorKind::NotFound, "{error:?}"),
        }
        turns += 1 + turns / 3;
    }
    assert_eq!(on_a_runtime(place.read(&id)).unwrap().payload, PAYLOAD);
    assert_eq!(names(&place.folder(&id)).len(), 3, "no leftovers");
    assert_eq!(names(&place.objects().join(SESSION)).len(), 1);
}

#[tokio::test]
async fn a_dropped_put_and_its_repeats_do_not_harm_each_other() {
    let place = Place::new();
    let reference = Place::new().put().await.unwrap();
    for turns in (0..60).step_by(5) {
        assert!(
            turns_of(turns, place.put())
                .await
                .is_none_or(|done| done.is_ok())
        );
        fs::remove_dir_all(place.folder(&reference)).ok();
        let (one, two) = tokio::join!(place.put(), place.put());
        assert_eq!(
            (one.unwrap(), two.unwrap()),
            (reference.clone(), reference.clone())
        );
        assert_eq!(place.read(&reference).await.unwrap().payload, PAYLOAD);
    }
    assert_eq!(names(&place.folder(&reference)).len(), 3, "no leftovers");
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}

/// Polls a future so many times, with a turn for all other tasks in between, and drops it if it is not done then.
async fn turns_of<F: Future>(turns: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    for _ in 0..turns {
        let poll = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(done) = poll {
            return Some(done);
        }
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    }
    None
}

#[tokio::test]
async fn every_damage_is_found_and_a_repeat_mends_it() {
    let place = Place::new();
    let id = place.put().await.unwrap();
    for file in ["manifest.json", "payload.json", "workspace.tar.zst"] {
        for damage in [flip, cut, grow, remove] {
            let path = place.folder(&id).join(file);
            damage(&path);
            let error = place.read(&id).await.unwrap_err();
            let gone = file == "manifest.json" && !path.exists();
            let expected = if gone {
                ErrorKind::NotFound
            } else {
                ErrorKind::Corrupt
            };
            assert_eq!(error.kind, expected, "{file}: {error:?}");
            assert_eq!(place.put().await.unwrap(), id);
            assert_eq!(place.read(&id).await.unwrap().payload, PAYLOAD);
        }
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
}

fn grow(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes.push(b'x');
    fs::write(path, bytes).unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn a_staged_file_that_is_not_what_it_was_is_refused() {
    let place = Place::new();
    for damage in [flip, cut, grow, remove] {
        let bytes = fs::read(place.staged()).unwrap();
        damage(&place.staged());
        let error = place.put().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{error:?}");
        let objects = place.objects().join(SESSION);
        for folder in names(&objects) {
            assert_eq!(names(&objects.join(folder)), [""; 0]);
        }
        fs::write(place.staged(), bytes).unwrap();
    }
    place.put().await.unwrap();
}

#[tokio::test]
async fn ids_reach_nothing_else() {
    let place = Place::new();
    let id = place.put().await.unwrap();
    let (_, folder) = id.split_once('/').unwrap();
    fs::create_dir_all(place.root.path().join("other").join(folder)).unwrap();
    for given in [
        format!("../other/{folder}"),
        format!("{SESSION}/../{id}"),
        format!("/{id}"),
        format!("{id}/manifest.json"),
        place.folder(&id).to_str().unwrap().to_owned(),
        format!("{SESSION}%2F{folder}"),
        String::new(),
    ] {
        let error = place.read(&given).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{given}");
        let error = place.store().snapshot_file(&given).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{given}");
    }
    for session in ["", "..", "a/b", "a b", "/tmp"] {
        let put = place
            .store()
            .put(session, 1, PAYLOAD, None, &|_, _| {})
            .await;
        assert_eq!(
            put.unwrap_err().kind,
            ErrorKind::InvalidArgument,
            "{session}"
        );
    }
    let missing = format!("{SESSION}/9-0123456789abcdef");
    assert_eq!(
        place.read(&missing).await.unwrap_err().kind,
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let place = Place::new();
    fs::write(place.objects(), "a file").unwrap();
    let error = Store::file(&place.objects()).unwrap_err();
    assert!(
        error.message.contains(place.objects().to_str().unwrap()),
        "{error}"
    );
    fs::remove_file(place.objects()).unwrap();
    // A file where a directory has to be stops the superuser too.
    let store = place.store();
    fs::write(place.objects().join(SESSION), "in the way").unwrap();
    let staged = place.staged();
    let snapshot = Some((staged.as_path(), place.digest.as_str()));
    let error = store
        .put(SESSION, 1, PAYLOAD, snapshot, &|_, _| {})
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io, "{error:?}");
    assert!(error.message.contains(SESSION), "{error}");
    assert!(!error.message.contains("LocalFileSystem"), "{error}");
}

#[test]
fn a_read_only_store_is_named_with_a_hint() {
    let place = Place::new();
    place.store();
    let outcome = limited(&place, || {
        fs::set_permissions(place.objects(), fs::Permissions::from_mode(0o500)).unwrap()
    });
    fs::set_permissions(place.objects(), fs::Permissions::from_mode(0o700)).unwrap();
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io, "{error:?}");
    let hint = error.hint.unwrap();
    assert!(
        hint.starts_with("ls -ld '/") || hint == "alpine config",
        "{hint}"
    );
}

/// Puts in a thread that is no superuser, after the preparation.
fn limited(place: &Place, prepare: impl FnOnce()) -> Result<String, ProviderError> {
    let root = rustix::process::geteuid().is_root();
    let user = rustix::process::Uid::from_raw(54_321);
    let store = place.store();
    if root {
        for path in [
            place.root.path().to_owned(),
            place.objects(),
            place.staged(),
        ] {
            std::os::unix::fs::chown(path, Some(user.as_raw()), None).unwrap();
        }
    }
    prepare();
    let become_user = move || {
        if root {
            // The system call changes this thread alone.
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        }
    };
    let staged = place.staged();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            become_user();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .on_thread_start(become_user)
                .build()
                .unwrap();
            let snapshot = Some((staged.as_path(), place.digest.as_str()));
            runtime.block_on(store.put(SESSION, 1, PAYLOAD, snapshot, &|_, _| {}))
        });
        worker.join().unwrap()
    })
}
