//! The adapter over sandboxes that are plain directories.

#![expect(
    clippy::unwrap_used,
    reason = "what a test needs and does not get ends it"
)]

#[path = "adapter/addresses.rs"]
mod addresses;
#[path = "adapter/bent.rs"]
mod bent;
#[path = "adapter/ending.rs"]
mod ending;
#[path = "adapter/filling.rs"]
mod filling;
#[path = "adapter/guards.rs"]
mod guards;
#[path = "adapter/world.rs"]
mod world;
