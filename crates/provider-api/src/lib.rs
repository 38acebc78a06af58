//! The contract with a provider of sandboxes.
