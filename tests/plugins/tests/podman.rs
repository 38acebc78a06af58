//! The provider with a podman of its own: storage, sockets and image are the test's, and nothing of them is left.

#[path = "podman/contract.rs"]
mod contract;
#[path = "podman/engine.rs"]
mod engine;
#[path = "podman/gate.rs"]
mod gate;
#[path = "podman/killed.rs"]
mod killed;
#[path = "podman/scenarios.rs"]
mod scenarios;
#[path = "podman/world.rs"]
mod world;
