//! Disks that are not as they should be: laid around the ledger's real file, whose locks are used in any case.

use alpine_ledger::{BackendError, Options, StorageBackend, WrapFile};
use std::fmt::Debug;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// What becomes of reads and writes; by default the real file does them.
pub(crate) trait Disk: Debug + Send + Sync + 'static {
    fn len(&self, file: &dyn StorageBackend) -> io::Result<u64> {
        file.len()
    }

    fn read(&self, file: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        file.read(offset, out)
    }

    fn set_len(&self, file: &dyn StorageBackend, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&self, file: &dyn StorageBackend) -> io::Result<()> {
        file.sync_data()
    }

    fn write(&self, file: &dyn StorageBackend, offset: u64, data: &[u8]) -> io::Result<()> {
        file.write(offset, data)
    }
}

/// Options for a ledger on that disk.
pub(crate) fn on<D: Disk>(disk: &Arc<D>) -> Options {
    Options {
        wrap: Some(Arc::new(On(Arc::clone(disk)))),
        ..Options::new()
    }
}

#[derive(Debug)]
struct On<D>(Arc<D>);

impl<D: Disk> WrapFile for On<D> {
    fn wrap(&self, file: Box<dyn StorageBackend>) -> Box<dyn StorageBackend> {
        let disk = Arc::clone(&self.0);
        Box::new(Wrapped { file, disk })
    }
}

#[derive(Debug)]
struct Wrapped<D> {
    file: Box<dyn StorageBackend>,
    disk: Arc<D>,
}

impl<D: Disk> StorageBackend for Wrapped<D> {
    fn len(&self) -> Result<u64, io::Error> {
        self.disk.len(&*self.file)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.disk.read(&*self.file, offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.disk.set_len(&*self.file, len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.disk.sync(&*self.file)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.disk.write(&*self.file, offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
