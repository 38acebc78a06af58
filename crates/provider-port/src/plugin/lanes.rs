//! The threads that calls run on. A call gets a thread that is idle, so that one that blocks its thread blocks nobody else;
//! calls that follow one another get the same thread, and wake no other.

use alpine_provider_api::ProviderError;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// Beyond so many calls at once, they share.
const MOST: usize = 8;

/// The threads there are.
#[derive(Debug)]
pub(super) struct Lanes(Vec<Lane>);

/// One thread, with a runtime.
#[derive(Debug)]
struct Lane {
    runtime: Runtime,
    /// Each call that runs on it holds one of these.
    busy: Arc<()>,
}

impl Lane {
    fn new() -> Result<Self, ProviderError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("provider")
            .enable_all()
            .build()
            .map_err(|error| ProviderError::io("its runtime can't be started", &error))?;
        let busy = Arc::new(());
        Ok(Self { runtime, busy })
    }

    fn calls(&self) -> usize {
        Arc::strong_count(&self.busy) - 1
    }
}

impl Lanes {
    /// One thread; others follow when they are needed.
    pub(super) fn new() -> Result<Self, ProviderError> {
        Ok(Self(vec![Lane::new()?]))
    }

    /// Does this with a runtime at hand.
    pub(super) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let _inside = self.0.first().map(|lane| lane.runtime.enter());
        work()
    }

    /// Runs a call on the thread that has the fewest.
    pub(super) fn spawn(&mut self, call: impl Future<Output = ()> + Send + 'static) {
        if self.0.len() < MOST
            && self.0.iter().all(|lane| lane.calls() > 0)
            // Without one more, they share.
            && let Ok(lane) = Lane::new()
        {
            self.0.push(lane);
        }
        if let Some(lane) = self.0.iter().min_by_key(|lane| lane.calls()) {
            let busy = Arc::clone(&lane.busy);
            lane.runtime.spawn(async move {
                call.await;
                drop(busy);
            });
        }
    }

    /// Ends them all. What was handed to threads for blocking work, such as ending what a call had started, gets so long.
    pub(super) fn end(self, limit: Duration) {
        // Whoever closes may be in a runtime itself, where waiting for one is forbidden.
        let ending = std::thread::Builder::new().spawn(move || {
            let until = Instant::now() + limit;
            for lane in self.0 {
                let left = until.saturating_duration_since(Instant::now());
                lane.runtime.shutdown_timeout(left);
            }
        });
        if let Ok(ending) = ending {
            // A thread that panicked has ended as well.
            let _ = ending.join();
        }
    }
}
