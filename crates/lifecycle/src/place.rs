//! The sandbox's id of a session that begins. One that is there already may hold work that the ledger does not know of, as after
//! an older backup of it was restored: it is left to `reconcile`, which saves it, and the session gets another.

use crate::engine::Engine;
use crate::{ErrorCode, Failure};
use alpine_ledger::SessionId;
use alpine_provider_api::SandboxState;
use std::time::Duration;

/// How long the provider may take to say whether a sandbox is there: if it does not, one is made that surely is not.
const LOOK: Duration = Duration::from_secs(1);

/// Where a session is to be brought up.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) sandbox_id: String,
    /// The sandbox that would have been it, and that was there already.
    pub(crate) stray: Option<String>,
}

impl Place {
    pub(crate) fn new(sandbox_id: String) -> Self {
        Self {
            sandbox_id,
            stray: None,
        }
    }

    /// What the user should know of it.
    pub(crate) fn warning(&self) -> Option<String> {
        let stray = self.stray.as_ref()?;
        Some(format!(
            "an earlier sandbox of this request is there, which the ledger does not know: `{stray}` is left as it is, and a \
             new one is made; `alpine reconcile` saves what is in it"
        ))
    }
}

impl Engine {
    /// A sandbox's id that nobody has: the session's, with another prefix, unless there is such a sandbox.
    pub(crate) async fn free_place(
        &self,
        provider: &str,
        session: &SessionId,
    ) -> Result<Place, Failure> {
        let usual = format!("sbx_{}", session.as_str().trim_start_matches("ses_"));
        let stray = match self.is_there(provider, &usual).await {
            Ok(false) => return Ok(Place::new(usual)),
            Ok(true) => Some(usual),
            Err(failure) if failure.code == ErrorCode::Interrupted => return Err(failure),
            Err(failure) => {
                tracing::warn!(sandbox_id = usual, cause = %self.told(&failure), "it may be there already");
                None
            }
        };
        let (now, random) = (self.now().0, (self.env.random)());
        let sandbox_id = format!("sbx_{now:016x}{random:016x}");
        Ok(Place { sandbox_id, stray })
    }

    async fn is_there(&self, provider: &str, sandbox: &str) -> Result<bool, Failure> {
        let limit = self.limits.probe.min(LOOK);
        let look = |engine: Engine, (provider, sandbox): (String, String)| async move {
            engine.look_at(&provider, &sandbox, "op_up", limit).await
        };
        // As one of many: then a provider that panics does no harm.
        let asked = vec![(provider.to_owned(), sandbox.to_owned())];
        let seen = self.each(asked, look).await?;
        // What a provider never made it may not know of.
        let is_there = |state| matches!(state, SandboxState::Running | SandboxState::Exited);
        Ok(seen.into_iter().any(is_there))
    }
}
