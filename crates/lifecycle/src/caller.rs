//! Who is calling, and which session is meant.

use crate::{ErrorCode, Failure};
use alpine_ledger::{Found, LedgerError, SessionId, SessionRecord, Snapshot};

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The principal.
    pub principal: String,
    /// Whether they may act on others' sessions.
    pub admin: bool,
}

/// The session that `given` means to `caller`: an id, a unique prefix of one, or a name.
///
/// # Errors
/// The inner failure says that there is none, that it is another's, or which ones it may be.
pub fn lookup(
    snapshot: &Snapshot<'_>,
    caller: &Caller,
    given: &str,
) -> Result<Result<SessionRecord, Failure>, LedgerError> {
    let owner = (!caller.admin).then_some(caller.principal.as_str());
    let none = || {
        Failure::new(
            ErrorCode::SessionNotFound,
            format!("there is no session `{}`", shown(given)),
        )
        .next("alpine list --all")
    };
    let id = match snapshot.find(owner, given)? {
        Found::One(id) => id,
        Found::None => return Ok(Err(none())),
        Found::Ambiguous(ids) => return Ok(Err(ambiguous(given, &ids))),
    };
    let Some(session) = snapshot.session(&id)? else {
        return Ok(Err(none()));
    };
    Ok(may_touch(caller, &session).map(|()| session))
}

fn ambiguous(given: &str, ids: &[SessionId]) -> Failure {
    let ids: Vec<_> = ids.iter().map(SessionId::as_str).collect();
    Failure::new(
        ErrorCode::Usage,
        format!("`{}` may be any of: {}", shown(given), ids.join(", ")),
    )
    .next("alpine list --all")
}

/// Refuses another's session to all but admins.
pub(crate) fn may_touch(caller: &Caller, session: &SessionRecord) -> Result<(), Failure> {
    if caller.admin || session.new.owner == caller.principal {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::SessionForbidden,
        format!(
            "session `{}` belongs to another principal",
            session.session_id
        ),
    )
    .next("alpine list"))
}

/// A text as one word of a POSIX shell.
#[must_use]
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// What a user gave, short and without control characters.
fn shown(given: &str) -> String {
    given
        .chars()
        .take(100)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
