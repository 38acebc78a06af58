//! The door to a session's agent: one-time link, cookie, proxy.
