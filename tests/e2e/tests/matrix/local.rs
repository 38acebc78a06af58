//! The same on the local provider, with real processes and git, at every commit.
