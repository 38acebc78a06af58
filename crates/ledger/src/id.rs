//! Ids that a retry must find again: derived, never drawn.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// The namespace of every derived id.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x8f6d_5c1e_2b7a_5e43_9c0d_6a1f_4be2_7d90);

/// The UUID v5, in simple form, of the compact JSON array of `parts`.
fn derive(parts: &serde_json::Value) -> String {
    Uuid::new_v5(&NAMESPACE, parts.to_string().as_bytes())
        .simple()
        .to_string()
}

/// A session: `ses_` and the UUID of its owner and client request id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(String);

impl SessionId {
    /// The id of the session that `principal` asked for with `client_request_id`.
    #[must_use]
    pub fn derive(principal: &str, client_request_id: &str) -> Self {
        Self(format!(
            "ses_{}",
            derive(&serde_json::json!([
                "session",
                principal,
                client_request_id
            ]))
        ))
    }

    /// An id that was recorded before.
    #[must_use]
    pub fn from_recorded(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An operation: `op_` and the UUID of its session, action and number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(String);

impl OperationId {
    /// The id of the `n`th operation of `action` on `session`.
    #[must_use]
    pub fn derive(session: &SessionId, action: &str, n: u64) -> Self {
        Self(format!(
            "op_{}",
            derive(&serde_json::json!([
                "operation",
                session.as_str(),
                action,
                n
            ]))
        ))
    }

    /// An id that was recorded before.
    #[must_use]
    pub fn from_recorded(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{OperationId, SessionId};
    use expect_test::expect;

    #[test]
    fn derived_ids_never_change() {
        let session = SessionId::derive("me", "r1");
        expect!["ses_e952e4bb48cf5c2594accc133be82371"].assert_eq(session.as_str());
        expect!["op_0e15c4936d5d577a875922977b057c52"]
            .assert_eq(OperationId::derive(&session, "up", 0).as_str());
        expect!["op_1a694a82303456a9851b5ff76ab5316d"]
            .assert_eq(OperationId::derive(&session, "down", 1).as_str());
        expect!["ses_6af8d32c89d35bae953f2d5b889df96f"]
            .assert_eq(SessionId::derive("Zoë \"x\" \\", "\u{1F980}\n").as_str());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(SessionId::derive("a", "bc"), SessionId::derive("ab", "c"));
        assert_ne!(
            SessionId::derive("a\",\"b", "c"),
            SessionId::derive("a", "b\",\"c")
        );
    }
}
