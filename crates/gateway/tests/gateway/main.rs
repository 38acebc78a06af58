//! The gateway and the agent's client over real sockets.

mod agent;
mod client;
mod door;
mod lifetime;
mod links;
mod page;
mod proxy;
mod session;
