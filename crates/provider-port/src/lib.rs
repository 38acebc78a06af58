//! The frame port: both halves of the boundary to a provider that is not compiled in.
//!
//! A provider reaches its host as a library in a child process (the usual way), as a library in the host's own process, or
//! as an executable in any language. All three speak the same frames ([`frame`]) with the same payloads ([`message`]): JSON
//! for control, raw bytes for streams. A library is called through C ([`abi`], `include/alpine_provider.h`); a child has the
//! frames on descriptor 3.
//!
//! # The rules
//!
//! 1. Every pointer is borrowed until the function returns. Nobody frees the other side's memory.
//! 2. `send` may be called from any thread, at once; it does not block.
//! 3. Exactly one OK or ERR for each CALL that was taken, also after CANCEL, a panic, or `close`. The events of a call are
//!    ordered, and come before its answer.
//! 4. No unwinding crosses. Panics are caught and answered with kind `internal` and the place; a library built with
//!    `panic=abort` is refused in process.
//! 5. A provider brings its own runtime. Its tracing is forwarded as LOG.
//! 6. Libraries are opened `RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE` and never unloaded; a closed instance is marked, not freed.
//! 7. Every call has a deadline. After it, or when its caller has gone, CANCEL; 10 s later SIGTERM, 2 s later SIGKILL; a
//!    process that has ended is started anew with the next call, at most 3 times a minute.
//! 8. Providers are stateless between calls but for caches: any call works in a fresh process.
//! 9. `Crashed` says that the outcome is unknown: `inspect`, then converge.
//! 10. A child ends with its host: at the end of its socket, or by the kernel. Its environment holds what is allowed and no
//!     more, its standard input is empty, what it prints is captured, redacted and logged.
//!
//! # Credit
//!
//! Each call has, for each direction, 256 KiB of credit for its stream: EVENT stdout and stderr, INPUT data. A chunk costs
//! its bytes, and never less than 64. GRANT gives credit back when the other side has used what it got; without credit,
//! `send` answers "would block", and on a wire sending all the same ends the provider. So a stalled stream blocks itself alone.
//!
//! # On a wire
//!
//! Both sides greet with HELLO (kind 32) at once. The host then sends OPEN (33) with the configuration, and the provider
//! answers READY (34), or ERR of call 0. A provider whose HELLO has the feature `ping` answers PING even while calls run,
//! and is taken for stuck when it does not; others are not asked.

pub mod abi;
#[cfg(any(feature = "plugin", feature = "host"))]
mod child;
pub mod frame;
#[cfg(feature = "host")]
mod host;
pub mod message;
#[cfg(feature = "plugin")]
pub mod plugin;
#[cfg(any(feature = "plugin", feature = "host"))]
mod rate;
#[cfg(any(feature = "plugin", feature = "host"))]
mod wire;

#[cfg(feature = "host")]
pub use host::{ENV_ALWAYS, PortConfig, PortProvider, Source, Timings, hosted};
#[cfg(feature = "plugin")]
pub use plugin::serve;
