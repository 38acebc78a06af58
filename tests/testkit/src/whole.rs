//! How much is tested.

/// Whether `ALPINE_TEST=all` asks for the minutes more that `.ci/run` leaves out.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "asked by whoever runs the tests, never of what is tested"
)]
pub fn is_whole() -> bool {
    std::env::var("ALPINE_TEST").is_ok_and(|value| value == "all")
}
