//! The session that somebody means: by its id, the start of it, or its name.

use crate::list::{FINISHED, UNFINISHED, class, newest_first};
use crate::store::{Order, Span};
use crate::tables::{Key, NAMES, SESSIONS};
use crate::{LedgerError, SessionId, SessionRecord, Snapshot};
use std::ops::ControlFlow;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Exactly one session.
    One(SessionId),
    /// None.
    None,
    /// Several.
    Ambiguous(Vec<SessionId>),
}

/// How sessions' ids start.
const PREFIX: &str = "ses_";
/// How many characters after that are enough to be looked for.
const ENOUGH: usize = 4;
/// How many candidates are named at most.
const CANDIDATES: usize = 20;

/// The key of a session's name.
pub(crate) fn name_key(session: &SessionRecord, name: &str) -> Key {
    Key::text(&session.new.owner)
        .and_text(name)
        .and_byte(class(session.state))
        .and_number(newest_first(session.updated_at))
        .and_last(session.session_id.as_str())
}

impl Snapshot<'_> {
    /// The session that `given` means: a full id, whoever owns it; else, among those of `owner` (or all), the
    /// name of an unfinished session, a unique start of an id, or the name of the latest finished one.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn find(&self, owner: Option<&str>, given: &str) -> Result<Found, LedgerError> {
        if let Some(session) = self.session(&SessionId::from_recorded(given))? {
            return Ok(Found::One(session.session_id));
        }
        let named = self.named(owner, given, UNFINISHED, CANDIDATES)?;
        if !named.is_empty() {
            return Ok(found(named));
        }
        let starting = self.starting_with(owner, given)?;
        if !starting.is_empty() {
            return Ok(found(starting));
        }
        Ok(found(self.named(owner, given, FINISHED, 1)?))
    }

    /// The owner's unfinished session of that name.
    pub(crate) fn unfinished_named(
        &self,
        owner: &str,
        name: &str,
    ) -> Result<Option<SessionId>, LedgerError> {
        Ok(self
            .named(Some(owner), name, UNFINISHED, 1)?
            .into_iter()
            .next())
    }

    fn named(
        &self,
        owner: Option<&str>,
        name: &str,
        class: u8,
        limit: usize,
    ) -> Result<Vec<SessionId>, LedgerError> {
        let owners = match owner {
            Some(owner) => vec![owner.to_owned()],
            None => self.owners()?,
        };
        let mut ids = Vec::new();
        for owner in owners {
            let prefix = Key::text(&owner).and_text(name).and_byte(class);
            let mut left = limit;
            self.store.scan(
                NAMES,
                &Span::of(prefix.as_bytes()),
                Order::Forward,
                |_, json| {
                    ids.push(self.store.parse(NAMES, json)?);
                    left -= 1;
                    Ok(if left == 0 {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    })
                },
            )?;
        }
        Ok(ids)
    }

    fn starting_with(
        &self,
        owner: Option<&str>,
        given: &str,
    ) -> Result<Vec<SessionId>, LedgerError> {
        let mut ids = Vec::new();
        if given
            .strip_prefix(PREFIX)
            .is_none_or(|rest| rest.len() < ENOUGH)
        {
            return Ok(ids);
        }
        self.store.scan(
            SESSIONS,
            &Span::of(given.as_bytes()),
            Order::Forward,
            |_, json| {
                let session: SessionRecord = self.store.parse(SESSIONS, json)?;
                if owner.is_none_or(|owner| owner == session.new.owner) {
                    ids.push(session.session_id);
                }
                Ok(if ids.len() < CANDIDATES {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                })
            },
        )?;
        Ok(ids)
    }
}

fn found(mut ids: Vec<SessionId>) -> Found {
    match ids.len() {
        0 => Found::None,
        1 => Found::One(ids.remove(0)),
        _ => Found::Ambiguous(ids),
    }
}
