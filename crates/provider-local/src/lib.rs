//! The built-in provider on this machine.
