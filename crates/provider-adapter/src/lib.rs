//! Makes a whole provider of one that can only make sandboxes and run commands in them.
