//! Opening a ledger, and its transactions.

use crate::file::{self, Access};
use crate::handle::{Reader, Turn, Writers, lock, open_reader};
use crate::site::Site;
use crate::store::{Store, guard};
use crate::tables::{META, SCHEMA};
use crate::{LedgerError, Options, Snapshot, Tx, create, identity, migrate};
use redb::{ReadableDatabase, WriteTransaction};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

/// A ledger. Cheap to clone; clones share what they have open.
#[derive(Clone, Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    site: Site,
    access: Access,
    id: OnceLock<String>,
    commits: AtomicU64,
    reader: Mutex<Option<Reader>>,
    writers: Writers,
}

impl Ledger {
    /// Opens the ledger at `path`, and makes it if it is not there.
    ///
    /// # Errors
    /// `Unavailable` for a file, owner, mode, link or file system that is refused; `Corrupt`, `Incompatible`
    /// or `Predecessor` for what is in the file; `Busy` when another process kept it locked.
    pub fn open(path: &Path, options: Options) -> Result<Self, LedgerError> {
        let site = Site::new(path, options)?;
        file::open_dir(&site)?;
        if file::open(&site, Access::Write)?.is_none() {
            create::create(&site)?;
        }
        let ledger = Self::of(site, Access::Write);
        ledger.shared.reader()?;
        identity::put_right(&ledger.shared.site, ledger.id());
        Ok(ledger)
    }

    /// Opens the ledger at `path` to read it. Where there is none, it is empty; it is never made.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_read(path: &Path, options: Options) -> Result<Self, LedgerError> {
        let ledger = Self::of(Site::new(path, options)?, Access::Read);
        if ledger.shared.site.dir.exists() {
            file::open_dir(&ledger.shared.site)?;
        }
        ledger.shared.reader()?;
        Ok(ledger)
    }

    fn of(site: Site, access: Access) -> Self {
        let shared = Shared {
            site,
            access,
            id: OnceLock::new(),
            commits: AtomicU64::new(0),
            reader: Mutex::new(None),
            writers: Writers::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The ledger's id, drawn when the first one in its place was made; empty while there is none.
    #[must_use]
    pub fn id(&self) -> &str {
        self.shared.id.get().map_or("", String::as_str)
    }

    /// The id of this ledger; where it is lost, the one that it has when it is made anew, if that is known.
    ///
    /// # Errors
    /// `Unavailable` when what is kept beside it can't be read.
    pub fn id_or_kept(&self) -> Result<String, LedgerError> {
        match self.id() {
            "" => Ok(identity::kept(self.site())?.unwrap_or_default()),
            id => Ok(id.to_owned()),
        }
    }

    pub(crate) fn site(&self) -> &Site {
        &self.shared.site
    }

    /// How many write transactions this handle has committed.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// One atomic transaction. An error of `f` undoes all of it.
    ///
    /// # Errors
    /// What `f` says; `Busy` when another process wrote for longer than the limit; `OutcomeUnknown` when the
    /// commit failed.
    pub fn write<T>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let shared = &*self.shared;
        if shared.access == Access::Read {
            return Err(shared
                .site
                .unavailable("it was opened only to be read", None));
        }
        let mut turn = shared.writers.take(&shared.site)?;
        let result =
            begin(shared, &mut turn).and_then(|transaction| transact(shared, transaction, f));
        match &result {
            Ok(_) => {
                shared.commits.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => turn.after(error),
        }
        result
    }

    /// Closes what writes keep open, whoever else has a clone of this handle; the next write opens it again.
    ///
    /// A process that ends without it may leave the file to be repaired by the next reader.
    pub fn close(&self) {
        // A write that takes longer than the limit is not waited for: what it leaves can be repaired.
        if let Ok(mut turn) = self.shared.writers.take(&self.shared.site) {
            turn.close();
        }
    }

    /// Reads one state of the ledger. Waits for no writer.
    ///
    /// # Errors
    /// What `f` says; `Unavailable` or `Corrupt` when the file can't be read.
    pub fn read<T>(
        &self,
        f: impl FnOnce(&Snapshot<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let shared = &*self.shared;
        let Some(reader) = shared.reader()? else {
            return f(&Snapshot::new(Store::empty(&shared.site)));
        };
        let result = guard(&shared.site, || Ok(reader.database.begin_read()?))
            .and_then(|transaction| f(&Snapshot::new(Store::reading(&shared.site, &transaction))));
        if let Err(LedgerError::Unavailable { .. } | LedgerError::Corrupt { .. }) = &result {
            *lock(&shared.reader) = None;
        }
        result
    }
}

/// Takes the writer's lock of the file that has the ledger's name now.
fn begin(shared: &Shared, turn: &mut Turn<'_>) -> Result<WriteTransaction, LedgerError> {
    let site = &shared.site;
    let start = Instant::now();
    loop {
        let open = turn.open()?;
        let transaction = guard(site, || Ok(open.database.begin_write()?))?;
        if file::is_current(site, open.file) {
            return Ok(transaction);
        }
        // It was replaced meanwhile, as by a compaction.
        drop(transaction);
        turn.close();
        if start.elapsed() > site.options.lock_timeout {
            return Err(site.busy(site.options.lock_timeout));
        }
    }
}

/// One write transaction, once it has the writer's lock.
fn transact<T>(
    shared: &Shared,
    transaction: WriteTransaction,
    f: impl FnOnce(&mut Tx<'_>) -> Result<T, LedgerError>,
) -> Result<T, LedgerError> {
    let site = &shared.site;
    let store = Store::writing(site, &transaction);
    shared.identify(&store)?;
    migrate::refuse_newer(&store)?;
    let mut tx = Tx::new(Snapshot::new(store));
    match f(&mut tx) {
        Ok(value) => guard(site, || Ok(transaction.commit()?))
            .map(|()| value)
            .map_err(|error| LedgerError::OutcomeUnknown {
                source: Box::new(error),
            }),
        Err(error) => {
            // What was found out first says more than an abort that fails because of it.
            let aborted = guard(site, || Ok(transaction.abort()?));
            let worse = aborted
                .err()
                .filter(|_| !matches!(error, LedgerError::Corrupt { .. }));
            Err(worse.unwrap_or(error))
        }
    }
}

impl Shared {
    /// The reader's handle, opened if need be; none while there is no file.
    fn reader(&self) -> Result<Option<Reader>, LedgerError> {
        let mut held = lock(&self.reader);
        if let Some(reader) = held.as_ref().filter(|reader| reader.is_current(&self.site)) {
            return Ok(Some(reader.clone()));
        }
        *held = None;
        let mut opened = open_reader(&self.site)?;
        if let Some(reader) = &opened
            && self.look(reader)? < SCHEMA
        {
            migrate::migrate(&self.site, migrate::STEPS)?;
            opened = open_reader(&self.site)?;
        }
        held.clone_from(&opened);
        Ok(opened)
    }

    /// Makes sure that a file is this ledger's; its schema.
    fn look(&self, reader: &Reader) -> Result<u64, LedgerError> {
        let transaction = guard(&self.site, || Ok(reader.database.begin_read()?))?;
        let store = Store::reading(&self.site, &transaction);
        self.identify(&store)?;
        migrate::schema(&store)
    }

    /// Makes sure that the file is the ledger that was opened first: leases, fences and sandboxes belong to it.
    fn identify(&self, store: &Store<'_>) -> Result<(), LedgerError> {
        let found: String = store
            .get(META, b"id")?
            .ok_or_else(|| self.site.corrupt("it has no id"))?;
        let known = self.id.get_or_init(|| found.clone());
        if *known == found {
            return Ok(());
        }
        let reason = format!("it was replaced by another ledger (`{found}` instead of `{known}`)");
        Err(self.site.unavailable(reason, None))
    }
}
