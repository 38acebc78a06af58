//! Lists of sessions, from the covering index alone.

use crate::store::{Order, Span};
use crate::tables::{BY_OWNER, Key, split_text};
use crate::{LedgerError, SessionId, SessionRecord, Snapshot, State, Timestamp};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// Which sessions to list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Whose; everybody's when none.
    pub owner: Option<String>,
    /// In which states; in any when empty.
    pub states: Vec<State>,
    /// Ended sessions only when they were written at this time or later; all when none.
    pub ended_since: Option<Timestamp>,
    /// How many at most.
    pub limit: usize,
}

/// What `list` shows of a session: read from the covering index alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSummary {
    /// Its id.
    pub session_id: SessionId,
    /// Its name.
    pub name: Option<String>,
    /// Where it stands.
    pub state: State,
    /// The repository.
    pub repo_url: String,
    /// The branch.
    pub branch: String,
    /// The provider's name.
    pub provider: String,
    /// The agent's address.
    pub opencode_url: Option<String>,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// The owner.
    pub owner_principal_id: String,
    /// Whether a sandbox is still to be destroyed.
    #[serde(default)]
    pub destroy_pending: bool,
    /// The digest of the staged workspace, which `down --discard` asks for.
    #[serde(default)]
    pub workspace_digest: Option<String>,
}

/// Sessions, those that were written last first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The sessions.
    pub sessions: Vec<SessionSummary>,
    /// Whether the limit left some out.
    pub truncated: bool,
}

/// Sessions that are active or wait for their user, however old.
pub(crate) const UNFINISHED: u8 = 0;
/// Sessions whose state is final.
pub(crate) const FINISHED: u8 = 1;

/// The class of a session in the indexes.
pub(crate) fn class(state: State) -> u8 {
    if state.is_terminal() {
        FINISHED
    } else {
        UNFINISHED
    }
}

/// The part of an index key that puts what was written last first.
pub(crate) fn newest_first(at: Timestamp) -> u64 {
    !at.0
}

/// The key of a session in the covering index.
pub(crate) fn owner_key(session: &SessionRecord) -> Key {
    Key::text(&session.new.owner)
        .and_byte(class(session.state))
        .and_number(newest_first(session.updated_at))
        .and_last(session.session_id.as_str())
}

impl SessionRecord {
    /// What a list shows of it, which is what the covering index holds.
    #[must_use]
    pub fn summary(&self) -> SessionSummary {
        let digest = self
            .workspace_snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.get("digest")?.as_str());
        SessionSummary {
            session_id: self.session_id.clone(),
            name: self.new.name.clone(),
            state: self.state,
            repo_url: self.new.repo_url.clone(),
            branch: self.new.branch.clone(),
            provider: self.new.provider.clone(),
            opencode_url: self.opencode_url.clone(),
            updated_at: self.updated_at,
            owner_principal_id: self.new.owner.clone(),
            destroy_pending: self.destroy_pending,
            workspace_digest: digest.map(str::to_owned),
        }
    }
}

/// Whether sessions of the class can be among those of the query.
fn may_hold(query: &ListQuery, wanted: u8) -> bool {
    query.states.is_empty() || query.states.iter().any(|state| class(*state) == wanted)
}

impl Snapshot<'_> {
    /// The sessions of a query.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn list(&self, query: &ListQuery) -> Result<Page, LedgerError> {
        let owners = match &query.owner {
            Some(owner) => vec![owner.clone()],
            None => self.owners()?,
        };
        let mut sessions = Vec::new();
        for owner in &owners {
            for class in [UNFINISHED, FINISHED]
                .into_iter()
                .filter(|class| may_hold(query, *class))
            {
                self.collect(query, owner, class, &mut sessions)?;
            }
        }
        sessions.sort_by(|a, b| {
            b.updated_at
                .cmp(&a.updated_at)
                .then_with(|| a.session_id.cmp(&b.session_id))
        });
        let truncated = sessions.len() > query.limit;
        sessions.truncate(query.limit);
        Ok(Page {
            sessions,
            truncated,
        })
    }

    /// Everybody who owns a session.
    pub(crate) fn owners(&self) -> Result<Vec<String>, LedgerError> {
        let mut owners: Vec<String> = Vec::new();
        let mut span = Span {
            start: Vec::new(),
            end: None,
        };
        loop {
            let mut next = None;
            self.store.scan(BY_OWNER, &span, Order::Forward, |key, _| {
                let (owner, _) = split_text(key).ok_or_else(|| self.bad_key(BY_OWNER))?;
                next = Some(owner.to_owned());
                Ok(ControlFlow::Break(()))
            })?;
            let Some(owner) = next else { return Ok(owners) };
            let Some(after) = Span::of(Key::text(&owner).as_bytes()).end else {
                return Ok(owners);
            };
            span.start = after;
            owners.push(owner);
        }
    }

    /// Adds one class of one owner's sessions: one more than the limit, so that a page knows it left some out.
    fn collect(
        &self,
        query: &ListQuery,
        owner: &str,
        class: u8,
        sessions: &mut Vec<SessionSummary>,
    ) -> Result<(), LedgerError> {
        let start = Key::text(owner).and_byte(class);
        let mut span = Span::of(start.as_bytes());
        if let (FINISHED, Some(since)) = (class, query.ended_since)
            && let Some(end) = newest_first(since).checked_add(1)
        {
            span.end = Some(start.and_number(end).as_bytes().to_vec());
        }
        let mut found = 0;
        self.store.scan(BY_OWNER, &span, Order::Forward, |_, json| {
            let session: SessionSummary = self.store.parse(BY_OWNER, json)?;
            if query.states.is_empty() || query.states.contains(&session.state) {
                sessions.push(session);
                found += 1;
            }
            Ok(if found > query.limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })
    }
}
