//! The door to a session's agent: one-time link, cookie, proxy.
//!
//! A supervisor keeps the session's listening socket and starts this gateway, a process of its own, at the first
//! connection. The gateway asks who is calling, shows the session's page or passes requests on to the agent with the
//! agent's credential, and leaves when nobody has called for a while. The book of one-time links ([`Links`]) stays with
//! the supervisor, so that a link works once however often the gateway is started.
//!
//! [`client`] is the other way round: how the provider itself asks an agent for something.

mod access;
mod answer;
mod basic;
pub mod client;
mod config;
mod control;
mod cookie;
mod follow;
mod forward;
mod links;
mod open;
mod owner;
mod page;
mod port;
mod proxy;
mod route;
mod seats;
mod serve;
mod upstream;

pub use config::{GatewayConfig, Listener, Upstream, host_label};
pub use control::{AgentState, ControlReply, ControlRequest};
pub use links::{Links, open_url};
pub use port::free_port;
pub use serve::run;
