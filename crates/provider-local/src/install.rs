//! Runs the install step.

use crate::dial::{self, Dial};
use crate::file;
use crate::intent::Purpose;
use crate::layout::Sandbox;
use crate::logs;
use crate::protocol::{Install, Reply, Request, Run};
use crate::provider::{Local, blocking};
use crate::record::InstalledRecord;
use alpine_install_step::{self as detect, Plan};
use alpine_provider_api::{
    Call, ErrorKind, ExecReply, InstallReply, InstallRequest, LogName, ProviderError, Retry,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Finds the install command and runs it, unless it has been done.
pub(crate) async fn install(
    local: &Arc<Local>,
    call: &Call,
    request: InstallRequest,
) -> Result<InstallReply, ProviderError> {
    let sandbox = local
        .admit(&request.sandbox_id, call.meta.fence, Purpose::Use)
        .await?;
    let found = {
        let sandbox = sandbox.clone();
        blocking(move || {
            let done: Option<InstalledRecord> = file::read_json(&sandbox.installed())?;
            Ok(match done {
                Some(done) => Err(done),
                None => Ok(detect::detect(&sandbox.workspace())?),
            })
        })
        .await?
    };
    let plan = match found {
        Err(done) => return Ok(reply(done.command, done.found_by)),
        Ok(None) => {
            return Ok(InstallReply {
                command: None,
                found_by: None,
            });
        }
        Ok(Some(plan)) => plan,
    };
    let path = local.config.env.get("PATH").map_or("", String::as_str);
    if !plan.has_tool(path) {
        return Err(no_tool(&plan));
    }
    local.revive(&sandbox).await?;
    match run(local, call, &sandbox, &plan).await? {
        ExecReply::Exited(0) => Ok(reply(plan.command, plan.found_by)),
        ended @ (ExecReply::Exited(_) | ExecReply::Signalled(_)) => {
            Err(failed(&sandbox, &plan, ended))
        }
    }
}

fn reply(command: String, found_by: String) -> InstallReply {
    InstallReply {
        command: Some(command),
        found_by: Some(found_by),
    }
}

/// Starts the step or joins it, and waits for its end. When this is dropped, so is the connection, and with the last
/// connection the step is ended.
async fn run(
    local: &Local,
    call: &Call,
    sandbox: &Sandbox,
    plan: &Plan,
) -> Result<ExecReply, ProviderError> {
    let limit = Instant::now() + Duration::from_secs(5);
    loop {
        let request = Request::Install(Install {
            run: Run {
                argv: plan.argv.clone(),
                env: local.env(&BTreeMap::new()),
            },
            command: plan.command.clone(),
            found_by: plan.found_by.clone(),
        });
        let mut dial = Dial::ask(sandbox, &request).await?;
        match wait(call, sandbox, &mut dial).await {
            Ok(Reply::Ended(ended)) => return Ok(ended),
            Ok(_) => return Err(dial::unexpected(sandbox)),
            // An earlier run that was given up is just being ended.
            Err(error) if error.retry == Retry::Transient && Instant::now() < limit => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn wait(call: &Call, sandbox: &Sandbox, dial: &mut Dial) -> Result<Reply, ProviderError> {
    let log = sandbox.log(LogName::Install);
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let mut before = 0;
    loop {
        tokio::select! {
            reply = dial.next(sandbox) => return reply,
            _ = ticks.tick() => {
                let size = log.metadata().map_or(0, |meta| meta.len());
                if size != before {
                    before = size;
                    call.progress("installing", size, None);
                }
            }
        }
    }
}

fn failed(sandbox: &Sandbox, plan: &Plan, ended: ExecReply) -> ProviderError {
    let how = match ended {
        ExecReply::Exited(code) => format!("exited with status {code}"),
        ExecReply::Signalled(signal) => format!("was ended by signal {signal}"),
    };
    let message = format!("`{}` (found by `{}`) {how}", plan.command, plan.found_by);
    ProviderError::new(ErrorKind::InstallFailed, message).log_tail(logs::tail(
        sandbox,
        LogName::Install,
        0,
        20,
    ))
}

fn no_tool(plan: &Plan) -> ProviderError {
    let tool = plan.tool();
    let message = format!(
        "`{}` was found, which asks for `{}`, but `{tool}` is not installed here",
        plan.found_by, plan.command
    );
    ProviderError::new(ErrorKind::InstallFailed, message)
}
