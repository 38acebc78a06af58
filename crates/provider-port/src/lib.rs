//! The frame port: both halves of the boundary to a provider that is not compiled in.
