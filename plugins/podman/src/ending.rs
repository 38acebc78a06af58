//! Ends what runs in a container, and the container.

use crate::containers::Containers;
use alpine_provider_api::*;
use bollard::query_parameters::StopContainerOptionsBuilder;
use std::time::Duration;

/// Asks every process but the container's own to end, and waits for them: exits 0 when none is left after so many tenths
/// of a second.
const ASK: &str = r#"
kill -TERM -1 2>/dev/null
left=$1
while :; do
    others=
    for process in /proc/[0-9]*; do
        number=${process#/proc/}
        if [ "$number" = 1 ] || [ "$number" = "$$" ] || ! [ -r "$process/cmdline" ]; then continue; fi
        if grep -q 2147483647 "$process/cmdline" 2>/dev/null; then continue; fi
        if grep -q "^State:[[:space:]]*Z" "$process/status" 2>/dev/null; then continue; fi
        if ! grep -qx "PPid:[[:space:]]*$$" "$process/status" 2>/dev/null; then others=yes; fi
    done
    if [ -z "$others" ]; then exit 0; fi
    if [ "$left" -le 0 ]; then exit 1; fi
    left=$((left - 1))
    sleep 0.1
done
"#;

impl Containers {
    /// Ends every process: asked first, then by force. The container and its layer stay.
    pub(crate) async fn end(
        &self,
        call: &Call,
        id: &SandboxId,
        grace: Duration,
    ) -> Result<StopReply, ProviderError> {
        match self.state(id).await? {
            SandboxState::Running => {}
            SandboxState::Exited | SandboxState::Unknown => return Ok(StopReply { forced: false }),
            SandboxState::Missing => {
                let message = format!("there is no sandbox `{id}`");
                return Err(ProviderError::new(ErrorKind::NotFound, message));
            }
        }
        let engine = self.engine()?;
        // What is paused can't end. That it was not, or that this failed, shows when it is asked to.
        let _ = engine.unpause_container(&Self::name(id)).await;
        call.progress("asking the sandbox's processes to end", 0, None);
        let tenths = (grace.as_millis() / 100).to_string();
        let argv = ["sh", "-c", ASK, "alpine", &tenths].map(str::to_owned);
        let asked = self.quietly(id, argv.to_vec());
        // A container that can't be asked is stopped all the same.
        let asked = tokio::time::timeout(grace + Duration::from_secs(5), asked).await;
        let forced = !matches!(asked, Ok(Ok(0)));
        let options = StopContainerOptionsBuilder::default().t(2).build();
        let stopped = engine.stop_container(&Self::name(id), Some(options)).await;
        // What the engine says of it counts less than what is: it may trip over a container whose end it did not see.
        match (self.state(id).await?, stopped) {
            (SandboxState::Running, Err(error)) => Err(self.failed(&error)),
            (SandboxState::Running, Ok(())) => {
                let message = format!("sandbox `{id}` runs on after it was stopped");
                Err(ProviderError::transient(ErrorKind::Io, message))
            }
            (SandboxState::Exited | SandboxState::Missing | SandboxState::Unknown, _) => {
                Ok(StopReply { forced })
            }
        }
    }
}
