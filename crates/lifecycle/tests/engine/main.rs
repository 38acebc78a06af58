//! The engine against the strict fake: every row of the contract's tables, every step's failures.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod busy;
mod common;
mod down;
mod holders;
mod next;
mod reconcile;
mod up;
