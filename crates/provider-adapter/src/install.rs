//! Runs the install step in the sandbox; its log is kept here.

use crate::provider::Adapted;
use crate::record::Record;
use crate::run::{Sink, blocking};
use crate::sandboxes::Sandboxes;
use alpine_files::{self as file, random_u32};
use alpine_install_step::{LARGEST, LOCK_FILES, NAME, Plan, YARN_HEAD, detect};
use alpine_provider_api::*;
use serde::{Deserialize, Serialize};
use std::path::Path;
use tokio::sync::mpsc;

/// Names those of its arguments that are regular files of the workspace; a strange settings file is one of its own.
const LOOK: &str = r#"
for name; do
    if [ -f "$name" ] && [ ! -L "$name" ]; then echo "$name"
    elif [ "$name" = .alpine.toml ] && { [ -e "$name" ] || [ -L "$name" ]; }; then echo strange
    fi
done
"#;
const READ: &str = r#"exec head -c "$1" "$2""#;
const HAS: &str = r#"command -v "$1" >/dev/null || echo no"#;

/// Runs a command that ends when the caller's end of its input is gone, however the caller ended. Who watches for that is
/// there before the command is, and in a session apart with it, so that neither ends with what is killed with the caller.
const RUN: &str = r#"
inner='
( while read -r line; do :; done; trap "" TERM; kill -TERM 0; sleep 1; kill -KILL 0 ) <&3 >/dev/null 2>&1 &
watch=$!
"$@" </dev/null 3<&-
status=$?
kill -KILL "$watch"
exit "$status"
'
exec 3<&0 </dev/null
if command -v setsid >/dev/null; then setsid sh -c "$inner" alpine "$@" & else sh -c "$inner" alpine "$@" & fi
exec 3<&-
wait "$!"
"#;

/// An install step that exited 0.
#[derive(Debug, Serialize, Deserialize)]
struct Installed {
    command: String,
    found_by: String,
}

impl<S: Sandboxes> Adapted<S> {
    /// Finds the install command and runs it, unless it was done. A run that is under way is waited for.
    pub(crate) async fn install_step(
        &self,
        call: &Call,
        id: SandboxId,
    ) -> Result<InstallReply, ProviderError> {
        let record = self.records.admit(&id, call.meta.fence).await?;
        let _alone = record.alone("work").await?;
        if let Some(done) = file::read_json::<Installed>(&record.installed())? {
            return Ok(reply(done.command, done.found_by));
        }
        let Some(plan) = self.plan(call, &record).await? else {
            return Ok(InstallReply {
                command: None,
                found_by: None,
            });
        };
        let tool = plan.tool();
        if !tool.contains('/') && !self.ask(call, &id, HAS, &[tool]).await?.is_empty() {
            return Err(no_tool(&plan));
        }
        match self.run_step(call, &record, &plan).await? {
            ExecReply::Exited(0) => {}
            ended @ (ExecReply::Exited(_) | ExecReply::Signalled(_)) => {
                return Err(failed(&record, &plan, ended));
            }
        }
        let done = Installed {
            command: plan.command,
            found_by: plan.found_by,
        };
        self.records
            .publish(&id, call.meta.fence, |record| {
                record.write(&record.installed(), &done)
            })
            .await?;
        Ok(reply(done.command, done.found_by))
    }

    /// The files that tell of the step are looked at here, in copies that hold no more than it takes.
    async fn plan(&self, call: &Call, record: &Record) -> Result<Option<Plan>, ProviderError> {
        let names: Vec<_> = LOCK_FILES
            .iter()
            .map(|(name, _)| *name)
            .chain([NAME])
            .collect();
        let found = self.ask(call, &record.id, LOOK, &names).await?;
        let found = String::from_utf8_lossy(&found).into_owned();
        let copies = record.dir.join(format!("look-{:08x}", random_u32()));
        let planned = async {
            file::private_dir(&copies)?;
            for name in found.lines() {
                self.copy(call, &record.id, name, &copies).await?;
            }
            let copies = copies.clone();
            blocking(move || detect(&copies)).await
        };
        let planned = planned.await;
        // What can't be removed now goes with the sandbox.
        let _ = std::fs::remove_dir_all(&copies);
        planned
    }

    async fn copy(
        &self,
        call: &Call,
        id: &SandboxId,
        name: &str,
        copies: &Path,
    ) -> Result<(), ProviderError> {
        let limit = match name {
            NAME => LARGEST + 1,
            "yarn.lock" => YARN_HEAD,
            _ if LOCK_FILES.iter().any(|(known, _)| *known == name) => 0,
            _ => {
                let message = format!("`{NAME}` is no regular file");
                return Err(ProviderError::new(ErrorKind::ConfigInvalid, message));
            }
        };
        let text = match limit {
            0 => Vec::new(),
            _ => {
                self.ask(call, id, READ, &[&limit.to_string(), name])
                    .await?
            }
        };
        file::write(&copies.join(name), &text)
    }

    async fn run_step(
        &self,
        call: &Call,
        record: &Record,
        plan: &Plan,
    ) -> Result<ExecReply, ProviderError> {
        let mut sink = Sink::log(record.log())?;
        call.progress("installing", 0, None);
        let argv: Vec<_> = plan.argv.iter().map(String::as_str).collect();
        // While this end lives, so may the command.
        let (_alive, input) = mpsc::channel(1);
        let said = self
            .sh(call, &record.id, RUN, &argv, input, &mut sink)
            .await?;
        Ok(said.reply)
    }
}

fn reply(command: String, found_by: String) -> InstallReply {
    InstallReply {
        command: Some(command),
        found_by: Some(found_by),
    }
}

fn failed(record: &Record, plan: &Plan, ended: ExecReply) -> ProviderError {
    let how = match ended {
        ExecReply::Exited(code) => format!("exited with status {code}"),
        ExecReply::Signalled(signal) => format!("was ended by signal {signal}"),
    };
    let message = format!("`{}` (found by `{}`) {how}", plan.command, plan.found_by);
    ProviderError::new(ErrorKind::InstallFailed, message)
        .log_tail(crate::look::tail(&record.log(), 20))
}

fn no_tool(plan: &Plan) -> ProviderError {
    let tool = plan.tool();
    let message = format!(
        "`{}` was found, which asks for `{}`, but the sandbox has no `{tool}`: an image that has it is needed",
        plan.found_by, plan.command
    );
    ProviderError::new(ErrorKind::InstallFailed, message)
}
