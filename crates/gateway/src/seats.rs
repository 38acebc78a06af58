//! The places of connections: how many there are, and who has to give theirs up.
//!
//! Whoever has shown a credential keeps the place. Of all others the oldest has to go when somebody new comes and no place
//! is free, so that no crowd of strangers can hold the door shut.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// How many connections are open at most; one more waits here, others in the socket's queue.
pub(crate) const SEATS: usize = 64;

/// How long a new connection may take to say what it wants.
const FIRST_HEAD: Duration = Duration::from_secs(2);

/// All places.
#[derive(Clone, Debug)]
pub(crate) struct Seats(Arc<Room>);

#[derive(Debug)]
struct Room {
    free: Arc<Semaphore>,
    left: Notify,
    /// Those without a credential by the order in which they came, and how to send them away.
    strangers: Mutex<BTreeMap<u64, Arc<Notify>>>,
}

/// A connection's place: as long as one is taken the gateway is not idle.
#[derive(Clone, Debug)]
pub(crate) struct Seat(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    room: Arc<Room>,
    number: u64,
    leave: Arc<Notify>,
    spoke: AtomicBool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Seats {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Room {
            free: Arc::new(Semaphore::new(SEATS)),
            left: Notify::new(),
            strangers: Mutex::default(),
        }))
    }

    /// Whether nobody is here.
    pub(crate) fn are_empty(&self) -> bool {
        self.0.free.available_permits() == SEATS
    }

    /// Waits until somebody has left.
    pub(crate) async fn left(&self) {
        self.0.left.notified().await;
    }

    /// Sees to it that a place becomes free, if there is a stranger who has one.
    pub(crate) fn make_room(&self) {
        if self.0.free.available_permits() == 0
            && let Some((_, oldest)) = self.0.strangers().pop_first()
        {
            oldest.notify_one();
        }
    }

    /// Waits for a free place and takes it for the guest of that number, who is a stranger for now.
    pub(crate) async fn take(&self, number: u64) -> Seat {
        // It is never closed, so that this does not fail.
        let permit = Arc::clone(&self.0.free).acquire_owned().await.ok();
        let leave = Arc::new(Notify::new());
        self.0.strangers().insert(number, Arc::clone(&leave));
        Seat(Arc::new(Taken {
            room: Arc::clone(&self.0),
            number,
            leave,
            spoke: AtomicBool::new(false),
            permit,
        }))
    }
}

impl Room {
    fn strangers(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The guest has said what it wants, whoever it is.
    pub(crate) fn has_spoken(&self) {
        self.0.spoke.store(true, Ordering::Relaxed);
    }

    /// The guest has shown a credential and stays.
    pub(crate) fn is_known(&self) {
        self.0.room.strangers().remove(&self.0.number);
    }

    /// Waits until the guest has to go: it said nothing in time, or its place is needed.
    pub(crate) async fn lost(&self) {
        let silent = async {
            sleep(FIRST_HEAD).await;
            if self.0.spoke.load(Ordering::Relaxed) {
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = silent => {}
            () = self.0.leave.notified() => {}
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.strangers().remove(&self.number);
        drop(self.permit.take());
        self.room.left.notify_one();
    }
}
