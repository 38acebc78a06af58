//! The gateway and the agent's client over real sockets.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod client;
#[cfg(test)]
mod door;
#[cfg(test)]
mod lifetime;
#[cfg(test)]
mod links;
#[cfg(test)]
mod page;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod session;
