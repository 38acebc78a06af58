//! The durable record of sessions, operations and events; refuses an illegal change.
