//! The fake, `local`, and what is broken on purpose.

#[path = "conformance/fake.rs"]
mod fake;
