//! What a machine can check of the house's rules: the checks are in `tests/tidy.rs`.
