//! The predecessor's `sessions.json`, as rows of a ledger. Its sessions keep their ids and answer their request
//! ids, and have no sandbox here: those that had not ended are ended.

mod document;
mod history;
mod session;

pub(crate) use document::Document;
