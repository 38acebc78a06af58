//! The commands that ask for the same session again: under its own id, or under a new one.

use crate::DownRequest;
use crate::caller::quoted;
use crate::engine::Engine;
use crate::up::{Kept, UpRequest};
use alpine_ledger::{Found, NewSession};

/// Stands in a command for what has to be given: a reason, or again the value of a variable.
pub const UNKEPT: &str = "…";

/// The same `up` under the same id: it carries the request on. Values of variables are not kept, their names are: where one
/// was spelled out, [`UNKEPT`] stands for it.
pub(crate) fn again(new: &NewSession) -> String {
    command(new, &["--client-request-id", &new.client_request_id])
}

/// The same `up` under a new id: it makes another session.
pub(crate) fn anew(new: &NewSession) -> String {
    command(new, &[])
}

/// The same `down`.
pub(crate) fn down_again(request: &DownRequest) -> String {
    let mut words = vec!["alpine", "down", &request.session];
    let flags = [
        (request.retry_persist, "--retry-persist"),
        (request.cancel, "--cancel"),
    ];
    words.extend(flags.iter().filter(|(on, _)| *on).map(|(_, flag)| *flag));
    let limit = request
        .timeout
        .map(|limit| span(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1)));
    for (flag, value) in [
        ("--discard", request.discard.as_deref()),
        ("--reason", request.reason.as_deref()),
        ("--timeout", limit.as_deref()),
    ] {
        words.extend(value.into_iter().flat_map(|value| [flag, value]));
    }
    let words: Vec<_> = words.into_iter().map(quoted).collect();
    words.join(" ")
}

/// A time limit as it is given.
fn span(ms: u64) -> String {
    match ms % 1000 {
        0 => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

/// Every choice is spelled out: what it says does not depend on what is configured where it is pasted.
fn command(new: &NewSession, id: &[&str]) -> String {
    let kept = Kept::of(new);
    let mut words = vec!["alpine", "up", &new.repo_url, "--branch", &new.branch];
    words.extend(id);
    words.extend(["--agent", &new.agent, "--provider", &new.provider]);
    if let Some(name) = &new.name {
        words.extend(["--name", name]);
    }
    let flags = [
        (new.public, "--public"),
        (kept.no_install, "--no-install"),
        (kept.allow_unsandboxed, "--allow-unsandboxed"),
        (kept.no_browser, "--no-browser"),
    ];
    words.extend(flags.iter().filter(|(on, _)| *on).map(|(_, flag)| *flag));
    let limit = kept.timeout_ms.map(span);
    words.extend(limit.iter().flat_map(|limit| ["--timeout", limit]));
    let variable = |name: &String| match kept.spelled.contains(name) {
        true => format!("{name}={UNKEPT}"),
        false => name.clone(),
    };
    let variables: Vec<_> = kept.env.iter().map(variable).collect();
    words.extend(variables.iter().flat_map(|given| ["--env", given]));
    let words: Vec<_> = words.into_iter().map(quoted).collect();
    words.join(" ")
}

impl Engine {
    /// The same `up` under a new id, without its name where an unfinished session bears that.
    pub(crate) async fn anew(&self, request: &UpRequest) -> String {
        let mut new = request.recorded();
        if let Some(name) = new.name.clone() {
            let owner = new.owner.clone();
            let borne = self.read(move |snapshot| {
                let Found::One(id) = snapshot.find(Some(&owner), &name)? else {
                    return Ok(false);
                };
                let session = snapshot.session(&id)?;
                Ok(session.is_some_and(|session| !session.state.is_terminal()))
            });
            // A hint without a name works; one with a name that is taken does not.
            if borne.await.unwrap_or(true) {
                new.name = None;
            }
        }
        anew(&new)
    }
}
