//! The command `alpine`.

fn main() {}
