//! Runs git so that nothing of a repository is ever executed.
