//! A sandbox's whole life, step by step, so that each step can be broken off and repeated.

use crate::bench::Bench;
use crate::called::{Called, Checking, broken, same};
use crate::sandbox::Sandbox;
use alpine_provider_api::*;
use serde::Serialize;
use serde_json::Value;

/// The command's work. It writes over what is there and never empties it: one that is killed late spoils nothing that
/// the next one has done.
const WORK: &str = "echo work 1<>work";

/// A life that is being led.
pub(crate) struct Life<'b> {
    pub(crate) sandbox: Sandbox<'b>,
    /// Where the workspace comes back.
    other: Sandbox<'b>,
    staged: Option<StagedSnapshot>,
    object: String,
}

/// The steps in their order, as far as they are announced.
pub(crate) fn steps(describe: &DescribeReply) -> Vec<Method> {
    [
        Method::Provision,
        Method::SyncRepo,
        Method::Install,
        Method::StartAgent,
        Method::Exec,
        Method::Stop,
        Method::Capture,
        Method::Persist,
        Method::ReadObject,
        Method::Restore,
        Method::Destroy,
    ]
    .into_iter()
    .filter(|method| describe.has(*method))
    .collect()
}

fn json<R: Serialize>(told: Called<R>) -> Called<Value> {
    Called {
        reply: told
            .reply
            .map(|reply| serde_json::to_value(reply).unwrap_or(Value::Null)),
        stdout: told.stdout,
        stderr: told.stderr,
    }
}

impl<'b> Life<'b> {
    pub(crate) async fn begin(bench: &'b Bench<'_>) -> Checking<Self> {
        Ok(Self {
            sandbox: bench.sandbox()?,
            other: bench.sandbox()?.made().await?,
            staged: None,
            object: String::new(),
        })
    }

    /// One try of a step.
    pub(crate) async fn attempt(&self, step: Method) -> Checking<Called<Value>> {
        let sandbox = &self.sandbox;
        let repository = sandbox.bench.repository();
        Ok(match step {
            Method::Provision => json(sandbox.provision().await?),
            Method::SyncRepo => json(sandbox.sync(&repository.installs).await?),
            Method::Install => json(sandbox.install().await?),
            Method::StartAgent => json(sandbox.start(AgentSpec::none(), 5000).await?),
            Method::Exec => json(sandbox.exec(&["sh", "-c", WORK]).await?),
            Method::Stop => {
                let mut told = json(sandbox.stop(2000).await?);
                // Who had to be killed was killed once.
                told.reply = told.reply.map(|_| Value::Null);
                told
            }
            Method::Capture => json(sandbox.capture(1).await?),
            Method::Persist => {
                let request = sandbox.persist_request(1, self.staged.clone());
                json(sandbox.persist_as(request).await?)
            }
            Method::ReadObject => json(sandbox.read(&self.object).await?),
            Method::Restore => json(self.other.restore(&self.object).await?),
            Method::Destroy => json(sandbox.destroy().await?),
            Method::Describe
            | Method::OpenAgent
            | Method::Inspect
            | Method::List
            | Method::Logs => return broken("a step", format!("`{step}` is none")),
        })
    }

    /// The step has to succeed, and to give the same answer again; then what it promises has to be so.
    pub(crate) async fn finish(&mut self, step: Method, when: &str) -> Checking {
        let expected = format!("`{step}` {when} succeeds");
        let first = self.attempt(step).await?.ok(&expected)?;
        let again = format!("`{step}` once more succeeds");
        let second = self.attempt(step).await?.ok(&again)?;
        same(&format!("the answer of `{step}` again"), &first, &second)?;
        match step {
            Method::Capture => self.staged = serde_json::from_value(first).ok(),
            Method::Persist => {
                let object = first["durable_object_id"].as_str();
                self.object = object.unwrap_or_default().to_owned();
            }
            Method::ReadObject => {
                let request = self.sandbox.persist_request(1, self.staged.clone());
                let payload = first["payload"].as_str();
                same("the payload", &Some(request.payload.as_str()), &payload)?;
            }
            Method::Restore => {
                let found = self.other.sh("cat work version").await?;
                same("what came back", &"work\n1\n".to_owned(), &found)?;
            }
            Method::SyncRepo => {
                let found = self
                    .sandbox
                    .sh("cat version; git status --short 2>/dev/null | head -5")
                    .await?;
                same("the workspace", &"1\n".to_owned(), &found)?;
            }
            Method::Describe
            | Method::Provision
            | Method::Install
            | Method::StartAgent
            | Method::OpenAgent
            | Method::Inspect
            | Method::List
            | Method::Exec
            | Method::Logs
            | Method::Stop
            | Method::Destroy => {}
        }
        self.is_as_it_should(step).await
    }

    async fn is_as_it_should(&self, step: Method) -> Checking {
        let (state, times) = match step {
            Method::Destroy => (SandboxState::Missing, 0),
            Method::Stop
            | Method::Capture
            | Method::Persist
            | Method::ReadObject
            | Method::Restore => (SandboxState::Exited, 1),
            Method::Describe
            | Method::Provision
            | Method::SyncRepo
            | Method::Install
            | Method::StartAgent
            | Method::OpenAgent
            | Method::Inspect
            | Method::List
            | Method::Exec
            | Method::Logs => (SandboxState::Running, 1),
        };
        self.sandbox.is(state, &format!("after `{step}`")).await?;
        same(
            "how often it is listed",
            &times,
            &self.sandbox.times_listed().await?,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::WORK;
    use std::fs;
    use std::process::Command;

    #[test]
    fn work_that_is_killed_before_it_writes_leaves_what_was_done() {
        let directory = tempfile::tempdir().unwrap();
        let run = |before: &str| {
            let script = format!("{before}{WORK}");
            let mut shell = Command::new("sh");
            let shell = shell.args(["-c", &script]).current_dir(directory.path());
            shell.status().unwrap();
            fs::read_to_string(directory.path().join("work")).unwrap()
        };
        // Its file is open, and nothing is written.
        let killed = "echo() { kill -9 $$; }; ";
        assert_eq!(run(killed), "");
        assert_eq!(run(""), "work\n");
        assert_eq!(run(killed), "work\n");
        assert_eq!(run(""), "work\n");
    }
}
