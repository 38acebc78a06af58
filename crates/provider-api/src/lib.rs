//! The contract with a provider of sandboxes.
//!
//! A provider implements [`SandboxProvider`]. The engine calls it with plain data and gets plain data back, so that every
//! call can cross a process boundary as JSON. What a call says while it runs (progress, output, warnings) goes through
//! [`Call::send`].

mod agent;
mod call;
mod describe;
mod error;
mod method;
mod open;
mod provider;
mod redact;
mod repo;
mod secret;
mod snapshot;
mod types;

pub use agent::{AgentSpec, BasicAuth, Probe, Serve, Server, Shutdown, Transcript};
pub use call::{Call, CallEvent, ExecInput, Meta};
pub use describe::{DescribeReply, Feature, Isolation, MissingLayer};
pub use error::{ErrorKind, ProviderError, Retry};
pub use method::Method;
pub use open::{OpenRequest, Place};
pub use provider::SandboxProvider;
pub use redact::{Redactor, StreamRedactor};
pub use repo::{BranchName, CommitId, GitCredential, RepoUrl, RepoUrlError, Transport};
pub use secret::{Secret, wire};
pub use snapshot::*;
pub use types::*;
