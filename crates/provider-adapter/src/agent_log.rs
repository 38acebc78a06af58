//! The agent's log: in the sandbox while that runs, in two parts of bounded size, and on this machine when it is stopped.

use crate::provider::Adapted;
use crate::record::Record;
use crate::run::{Sink, script_of};
use crate::sandboxes::Sandboxes;
use crate::server::HEAD;
use alpine_provider_api::*;
use tokio::sync::mpsc;

/// Takes the log from its input: a part has 8192 pieces of at most 1 KiB, and one older part is kept. That a part begins is
/// known by its first byte. What can't be written is read all the same, since the server must not wait for it.
pub(crate) const KEEP: &str = r#"
keep='
trap "" HUP INT TERM
echo "$$" >"$0/keeper"
while dd bs=1 count=1 of="$0/next" 2>/dev/null && [ -s "$0/next" ]; do
    [ ! -e "$0/log" ] || mv -f "$0/log" "$0/log.1"
    mv -f "$0/next" "$0/log"
    dd bs=1024 count=8192 >>"$0/log" 2>/dev/null
done
exec cat
'
"#;
const LOG: &str = "log; :";
/// The older part first; the newer one is followed by its name, so that the next part is too.
const FOLLOW: &str = r#"
[ -d "$dir" ] || exit 0
cat "$dir/log.1" 2>/dev/null
exec tail -n +1 -F "$dir/log" 2>/dev/null
"#;

impl<S: Sandboxes> Adapted<S> {
    /// Sends the agent's log from a sandbox that runs.
    pub(crate) async fn agent_log(
        &self,
        call: &Call,
        request: &LogsRequest,
    ) -> Result<(), ProviderError> {
        let script = if request.follow { FOLLOW } else { LOG };
        let id = &request.sandbox_id;
        let request = script_of(id, &format!("{HEAD}{script}"), &[id.as_str()]);
        let (_, no_input) = mpsc::channel(1);
        // However it ends: a sandbox that is stopped ends it.
        self.sandboxes.exec(call, request, no_input).await.map(drop)
    }

    /// Takes the log of an agent's server, where there is one, out of a sandbox that is about to be stopped. What fails here
    /// costs a warning only.
    pub(crate) async fn keep_agent_log(&self, call: &Call, record: &Record) {
        let kept = async {
            if record
                .served()?
                .is_none_or(|served| served.server.is_none())
            {
                return Ok(());
            }
            let id = &record.id;
            let request = script_of(id, &format!("{HEAD}{LOG}"), &[id.as_str()]);
            let (_, no_input) = mpsc::channel(1);
            let mut sink = Sink::log(record.agent_log())?;
            let said = self.run(call, request, no_input, &mut sink).await?;
            said.success(id).map(drop)
        };
        if let Err(error) = kept.await {
            call.warn(format!("the agent's log was not kept: {error}"));
        }
    }
}
