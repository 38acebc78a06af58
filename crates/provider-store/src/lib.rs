//! Checks a provider's file before anything of it is loaded, and keeps those that were added.
