//! The provider's half: what serves a [`SandboxProvider`](alpine_provider_api::SandboxProvider) to a host.

mod dispatch;
mod executable;
mod exported;
mod lanes;
mod logs;
mod manifest;
mod open;
mod panics;
mod server;
mod task;

pub use executable::serve;
#[doc(hidden)]
pub use exported::{Export, opened};
#[doc(hidden)]
pub use manifest::{c_text, joined, joined_len};

/// The compiler that this was built with.
#[doc(hidden)]
pub const COMPILER: &str = env!("ALPINE_COMPILER");
/// The version of this crate.
#[doc(hidden)]
pub const SDK: &str = env!("CARGO_PKG_VERSION");
