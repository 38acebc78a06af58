//! The engine against the strict fake: every row of the contract's tables, every step's failures.

mod common;
mod down;
mod up;
