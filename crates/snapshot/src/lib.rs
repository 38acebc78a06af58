//! Turns a workspace into a verified archive, and back.
