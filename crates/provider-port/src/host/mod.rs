//! The host's half: starts and loads providers, and speaks to them as a
//! [`SandboxProvider`](alpine_provider_api::SandboxProvider).

mod call;
mod config;
mod flight;
mod hosted;
mod in_process;
mod library;
mod process;
mod provider;
mod session;
mod spawn;
mod stderr;
mod watcher;

pub use config::{ENV_ALWAYS, PortConfig, Source, Timings};
pub use hosted::hosted;
pub use provider::PortProvider;
