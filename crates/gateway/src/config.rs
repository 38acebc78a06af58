//! What the supervisor tells the gateway.

use alpine_provider_api::{PageFacts, Secret, wire};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// Everything that a gateway needs to know; it crosses to its process once, through a pipe or a memory file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GatewayConfig {
    /// The session.
    pub session_id: String,
    /// The port of the listening socket.
    pub port: u16,
    /// The session's own host: `<host_label>.localhost`. See [`host_label`].
    pub host_label: String,
    /// The user name that is taken by HTTP Basic.
    pub username: String,
    /// The password that goes with it; the agent's own is the same.
    #[serde(with = "wire")]
    pub password: Secret<String>,
    /// The key that cookies are signed with; they outlive a gateway for as long as this stays the same.
    #[serde(with = "wire")]
    pub cookie_key: Secret<String>,
    /// The agent's server, if the session has one.
    pub upstream: Option<Upstream>,
    /// What the built-in page tells, if it is shown.
    pub page: Option<PageFacts>,
    /// The agent's log.
    pub agent_log: PathBuf,
    /// The install step's log.
    pub install_log: PathBuf,
    /// After how long without a connection the gateway leaves, in milliseconds.
    pub idle_ms: u64,
}

/// The agent's server behind the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The user name that it takes by HTTP Basic, with the session's password; none where it asks for nothing.
    pub auth: Option<String>,
    /// Whose the listener has to be.
    pub listener: Listener,
}

/// Whose a listening socket has to be before a credential is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listener {
    /// That process's, or one's that descends from it.
    Family(u32),
    /// Any process's of that user.
    User(u32),
    /// Whoever the sandbox's engine published the port for.
    Anybody,
}

impl GatewayConfig {
    /// Refuses what would leave the door open or make the gateway call itself.
    pub(crate) fn check(&self) -> io::Result<()> {
        let wrong = if self.password.expose().is_empty() {
            "the gateway's password is empty"
        } else if self.cookie_key.expose().is_empty() {
            "the gateway's cookie key is empty"
        } else if self.username.contains(':') {
            "the gateway's user name holds a colon"
        } else if host_label(&self.host_label) != self.host_label || self.host_label.is_empty() {
            "the gateway's host label is not one of `host_label`"
        } else if self
            .upstream
            .as_ref()
            .is_some_and(|upstream| upstream.port == self.port)
        {
            "the agent's port is the gateway's own"
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, wrong))
    }
}

/// The short name that a session's host is made of: the first twelve letters and digits of its id, without `ses_`.
#[must_use]
pub fn host_label(session_id: &str) -> String {
    session_id
        .strip_prefix("ses_")
        .unwrap_or(session_id)
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(12)
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::host_label;

    #[test]
    fn labels_are_short_and_fit_a_host_name() {
        assert_eq!(
            host_label("ses_0123456789abcdef0123456789abcdef"),
            "0123456789ab"
        );
        assert_eq!(host_label("Ses-../<b>"), "sesb");
        assert_eq!(host_label(&host_label("ses_AB12")), "ab12");
    }
}
