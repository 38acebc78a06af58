//! Drives a provider through the steps of up and down; recovers what was interrupted.
