//! Tells that something goes on while a system call takes its time.

use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);

/// After how many ticks a disk is held to be gone: nothing is told any more, so that whoever waits gives up.
const PATIENCE: u32 = 600;

/// Does work on another thread, and ticks once a second meanwhile.
///
/// # Errors
/// No thread could be had.
pub(crate) fn ticking<T: Send>(
    tick: &mut dyn FnMut(),
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    ticking_every(EVERY, tick, work)
}

fn ticking_every<T: Send>(
    every: Duration,
    tick: &mut dyn FnMut(),
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        // Its end is the thread's: nothing is ever sent.
        let (end, ended) = channel::<()>();
        let worker = thread::Builder::new().spawn_scoped(scope, move || {
            let _end = end;
            work()
        })?;
        let mut left = PATIENCE;
        while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            if left > 0 {
                left -= 1;
                tick();
            }
        }
        worker.join().map_or_else(|panic| resume_unwind(panic), Ok)
    })
}

#[cfg(test)]
mod tests {
    use super::ticking_every;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn it_ticks_for_as_long_as_the_work_lasts() {
        let (send, receive) = channel();
        let mut tick = || {
            // Nobody may listen any more.
            let _ = send.send(());
        };
        let limit = Duration::from_secs(20);
        let every = Duration::from_millis(1);
        let done = ticking_every(every, &mut tick, move || {
            (0..3).all(|_| receive.recv_timeout(limit).is_ok())
        });
        assert!(done.unwrap());
    }
}
