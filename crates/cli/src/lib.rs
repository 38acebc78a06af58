//! The command `alpine`.
