//! Signals that ask the program to end.

use crate::ended;
use alpine_lifecycle::{ErrorCode, Failure, Interrupt, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// The first signal becomes a wish to stop, which the engine records; a second one ends the program at once.
///
/// # Errors
/// When no thread can be started or no signal can be caught.
pub(crate) fn interrupt() -> Result<Interrupt, Failure> {
    let (wish, wished) = watch::channel(None);
    let mut asked = false;
    listen(move |signal| {
        if asked {
            ended::exit(signal.exit_code());
        }
        asked = true;
        // An engine that has gone already wants to know nothing.
        let _ = wish.send(Some(signal));
    })?;
    Ok(Interrupt::new(wished))
}

/// The first signal ends the program at once, with the status that tells of it: nothing is left half done.
///
/// # Errors
/// As `interrupt`.
pub(crate) fn end() -> Result<(), Failure> {
    listen(|signal| ended::exit(signal.exit_code()))
}

/// Every signal goes to the other end.
///
/// # Errors
/// As `interrupt`.
pub(crate) fn forward(to: mpsc::Sender<i32>) -> Result<(), Failure> {
    listen(move |signal| {
        let number = match signal {
            Signal::Int => libc::SIGINT,
            Signal::Term => libc::SIGTERM,
        };
        // A command that has ended already gets no signal.
        let _ = to.try_send(number);
    })
}

/// Calls back for each signal, on a thread of its own: no provider that blocks a thread can keep signals from being heard.
fn listen(mut heard: impl FnMut(Signal) + Send + 'static) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(
            ErrorCode::Internal,
            format!("signals can't be caught: {error}"),
        )
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    let (mut int, mut term) = {
        let _entered = runtime.enter();
        let int = signal(SignalKind::interrupt()).map_err(failed)?;
        (int, signal(SignalKind::terminate()).map_err(failed)?)
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    let spawned = thread.spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    Some(()) = int.recv() => heard(Signal::Int),
                    Some(()) = term.recv() => heard(Signal::Term),
                    else => return,
                }
            }
        });
    });
    spawned.map(|_| ()).map_err(failed)
}
