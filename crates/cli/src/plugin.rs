//! Providers that are not compiled in: checked, and started, when the first call needs them.

mod calls;
mod replies;
mod subject;

pub(crate) use subject::Checkable;

use crate::config::{Origin, ProviderTable};
use crate::ended;
use alpine_lifecycle::{ErrorCode, Failure, Interrupt, quoted, shortened};
use alpine_provider_api::{
    ErrorKind, OpenRequest, ProviderError, Redactor, Retry, SandboxProvider, Secret,
};
use alpine_provider_port::{PortConfig, PortProvider, Source, Timings, abi};
use alpine_provider_store::{Expectation, Isolation, Kind, Reason, Refusal, Vetted, vet};
use rustix::fd::OwnedFd;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::OnceCell;

/// The versions of the boundary that are spoken here.
pub(crate) const BOUNDARY: RangeInclusive<u32> = abi::ABI_MIN..=abi::ABI_MAX;

/// A provider that is not compiled in. Nothing of it is looked at before [`check`](Plugin::check) or the first call.
#[derive(Clone, Debug)]
pub(crate) struct Plugin(Arc<Inside>);

/// What a provider that is not compiled in is started with.
#[derive(Clone, Debug)]
pub(crate) struct PluginSetup {
    /// The name it is configured by.
    pub(crate) name: String,
    /// What the configuration says of it.
    pub(crate) table: ProviderTable,
    /// What it is opened with.
    pub(crate) open: OpenRequest,
    /// The whole environment of its process.
    pub(crate) env: BTreeMap<String, Secret<String>>,
    /// The caller's W3C trace context.
    pub(crate) traceparent: Option<String>,
    /// Takes secrets out of what it says.
    pub(crate) redactor: Redactor,
    /// The user's configuration.
    pub(crate) file: PathBuf,
}

#[derive(Debug)]
struct Inside {
    setup: PluginSetup,
    adapt: Adapt,
    checked: OnceLock<Checked>,
}

/// Whether the adapter is put over a provider that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Adapt {
    Yes,
    No,
}

/// A provider whose file passed every check.
#[derive(Debug)]
struct Checked {
    port: Arc<PortProvider>,
    /// The same, or the adapter over it where it has the six methods alone: known when it has been asked.
    whole: OnceCell<Arc<dyn SandboxProvider>>,
    /// A program is started, and started anew, by this descriptor.
    _file: Option<OwnedFd>,
}

impl Plugin {
    /// Looks at nothing yet.
    pub(crate) fn new(setup: PluginSetup) -> Self {
        Self::with(setup, Adapt::Yes)
    }

    fn with(setup: PluginSetup, adapt: Adapt) -> Self {
        Self(Arc::new(Inside {
            setup,
            adapt,
            checked: OnceLock::new(),
        }))
    }

    /// The user's own table, as a text that is the same for the same settings.
    pub(crate) fn configuration(&self) -> String {
        self.0.setup.open.config.to_string()
    }

    /// Checks the file, once; reads all of it, so that no thread of a runtime is the place for this.
    ///
    /// # Errors
    /// `ERR_PROVIDER_NOT_FOUND`, `ERR_PROVIDER_INCOMPATIBLE`.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.0.checked().map(|_| ())
    }

    /// Checks the file, and starts it, unless the limit passes or a signal comes: before anything is recorded that only it
    /// could take back. `again` is the command that asks for the same.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), and what its start ends with.
    pub(crate) async fn start(
        &self,
        limit: Duration,
        interrupt: &Interrupt,
        again: &str,
    ) -> Result<(), Failure> {
        let mut interrupt = interrupt.clone();
        tokio::select! {
            started = tokio::time::timeout(limit, self.started()) => {
                started.unwrap_or_else(|_| Err(not_started_in(limit).next(again)))
            }
            signal = interrupt.raised() => Err(Failure::signalled(signal).next(again)),
        }
    }

    async fn started(&self) -> Result<(), Failure> {
        self.file().await?;
        let mut answer = self.describe().await;
        if answer.as_ref().is_err_and(|error| error.kind.has_crashed()) {
            // One that died for a reason that has passed keeps nobody from their session.
            answer = self.describe().await;
        }
        match answer {
            Ok(_) => Ok(()),
            Err(error) => Err(self.0.setup.not_started(&error)),
        }
    }

    /// What calls go to.
    async fn whole(&self) -> Result<&dyn SandboxProvider, ProviderError> {
        let checked = self.file().await.map_err(calls::refused)?;
        if self.0.adapt == Adapt::No {
            return Ok(checked.port.as_ref());
        }
        let port = Arc::clone(&checked.port);
        let ask = || alpine_provider_adapter::whole(port, &self.0.setup.open.place);
        let whole = checked.whole.get_or_try_init(ask).await?;
        Ok(whole.as_ref())
    }

    /// The file, once it has been checked.
    async fn file(&self) -> Result<&Checked, Failure> {
        if self.0.checked.get().is_none() {
            let plugin = self.clone();
            let checked = tokio::task::spawn_blocking(move || plugin.check()).await;
            checked.map_err(|died| {
                Failure::new(ErrorCode::Internal, format!("a check has died: {died}"))
            })??;
        }
        self.0.checked()
    }
}

impl Inside {
    fn checked(&self) -> Result<&Checked, Failure> {
        if let Some(checked) = self.checked.get() {
            return Ok(checked);
        }
        let checked = self.setup.checked()?;
        // Another thread may have been faster; nothing was started for either.
        Ok(self.checked.get_or_init(|| checked))
    }
}

impl PluginSetup {
    fn checked(&self) -> Result<Checked, Failure> {
        let vetted = vet_provider(&self.name, &self.table)?;
        let (source, file) = match (vetted.kind, self.table.isolation()) {
            (Kind::Exec, _) => {
                let (program, args) = (vetted.program(), Vec::new());
                (Source::Executable { program, args }, Some(vetted.file))
            }
            (Kind::Dylib, Isolation::InProcess) => {
                let library = vetted.file;
                ended::guard();
                (Source::InProcess { library }, None)
            }
            (Kind::Dylib, Isolation::Process) => {
                let (library, program) = (vetted.file, self.open.place.executable.clone());
                (Source::Hosted { library, program }, None)
            }
        };
        let port = PortProvider::new(PortConfig {
            name: self.name.clone(),
            source,
            open: self.open.clone(),
            env: self.env.clone(),
            traceparent: self.traceparent.clone(),
            redactor: self.redactor.clone(),
            timings: Timings::default(),
        });
        let port = Arc::new(port);
        ended::closes(&port);
        Ok(Checked {
            port,
            whole: OnceCell::new(),
            _file: file,
        })
    }

    /// Why it did not start, as the user sees it.
    fn not_started(&self, error: &ProviderError) -> Failure {
        let error = shortened(error);
        let code = code_of(error.kind);
        let next = match (&error.hint, code) {
            (Some(hint), _) => hint.clone(),
            (None, ErrorCode::ConfigInvalid) => {
                format!("${{EDITOR:-vi}} {}", quoted(&self.file.to_string_lossy()))
            }
            (None, _) => format!("alpine provider check {}", self.name),
        };
        let tail: String = error
            .log_tail
            .iter()
            .map(|line| format!("\n  {line}"))
            .collect();
        let cause = format!(
            "provider `{}` did not start: {}{tail}",
            self.name,
            self.remedied(&error)
        );
        let mut failure = Failure::new(code, cause).next(next);
        failure.retryable |= error.retry == Retry::Transient;
        failure
    }
}

impl PluginSetup {
    /// What its start ended with, and what its author does about it.
    fn remedied(&self, error: &ProviderError) -> String {
        let message = nameless(&self.name, &error.message);
        let Some(file) = &self.table.file else {
            return message.to_owned();
        };
        let is_told = error.hint.is_some() || message.contains(": set `");
        if file.value.kind != Kind::Dylib || error.kind != ErrorKind::Unsupported || is_told {
            return message.to_owned();
        }
        let remedy = if message.contains("can't be loaded") {
            "link it with all that it needs"
        } else {
            "build it anew against the header or the kit of this version"
        };
        format!("{}: {remedy}", by_path(message, &file.value.path))
    }
}

/// A library is loaded by its descriptor; whoever reads of it knows its path.
fn by_path(message: &str, path: &Path) -> String {
    let descriptor = "/proc/self/fd/";
    let Some((before, after)) = message.split_once(descriptor) else {
        return message.to_owned();
    };
    let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}{}{after}", path.display())
}

fn not_started_in(limit: Duration) -> Failure {
    let cause = format!(
        "the provider did not start within the operation's {} s",
        limit.as_secs_f32()
    );
    Failure::new(ErrorCode::Timeout, cause)
}

/// What a provider's failure says, without whose it is: that was just told.
fn nameless<'m>(name: &str, message: &'m str) -> &'m str {
    let whose = format!("provider `{name}`: ");
    message.strip_prefix(&whose).unwrap_or(message)
}

/// What a provider that does not start is told as.
fn code_of(kind: ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::ConfigInvalid | ErrorKind::InvalidArgument => ErrorCode::ConfigInvalid,
        ErrorKind::Unsupported => ErrorCode::ProviderIncompatible,
        ErrorKind::Timeout => ErrorCode::Timeout,
        ErrorKind::Crashed | ErrorKind::Internal => ErrorCode::ProviderCrashed,
        ErrorKind::IsolationUnavailable => ErrorCode::SandboxUnavailable,
        // It runs, and says why it can't work: no sandbox is made.
        ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Fenced
        | ErrorKind::Destroyed
        | ErrorKind::AuthRejected
        | ErrorKind::BranchNotFound
        | ErrorKind::CommitNotFound
        | ErrorKind::Unreachable
        | ErrorKind::InstallFailed
        | ErrorKind::AgentNotReady
        | ErrorKind::WorkspaceLost
        | ErrorKind::TooLarge
        | ErrorKind::Corrupt
        | ErrorKind::NoSpace
        | ErrorKind::Cancelled
        | ErrorKind::Io
        | ErrorKind::Unknown
        | _ => ErrorCode::SandboxProvisionFailed,
    }
}

/// Checks a provider's file as its table has it. Nothing of it is loaded or run.
pub(crate) fn vet_provider(name: &str, table: &ProviderTable) -> Result<Vetted, Failure> {
    let again = format!("alpine provider add FILE --name {name}");
    let Some(file) = &table.file else {
        let cause = format!(
            "provider `{name}` has settings, but no file: it was not added, and `[providers.{name}]` names no `path`"
        );
        return Err(Failure::new(ErrorCode::ProviderNotFound, cause).next(again));
    };
    let expected = Expectation {
        kind: file.value.kind,
        isolation: table.isolation(),
        abi: BOUNDARY,
        sha256: file.value.sha256.clone(),
    };
    vet(&file.value.path, &expected).map_err(|refusal| {
        let failure = refused(Some(name), &refusal);
        let is_spoilt = matches!(refusal.reason, Reason::NotThere | Reason::Digest);
        if is_spoilt && file.origin == Origin::Added {
            failure.next(again)
        } else {
            failure
        }
    })
}

/// A refusal as the user sees it.
pub(crate) fn refused(name: Option<&str>, refusal: &Refusal) -> Failure {
    let code = if refusal.is_not_there() {
        ErrorCode::ProviderNotFound
    } else {
        ErrorCode::ProviderIncompatible
    };
    let who = name.map_or("the file".to_owned(), |name| format!("provider `{name}`"));
    Failure::new(code, format!("{who} is refused: {refusal}")).next(&refusal.remedy)
}

#[cfg(test)]
mod tests {
    use super::code_of;
    use alpine_provider_api::ErrorKind;
    use expect_test::expect;

    #[test]
    fn what_a_start_that_fails_is_called() {
        let row = |kind: ErrorKind| format!("{}: {}\n", kind.as_str(), code_of(kind));
        let table: String = ErrorKind::ALL.into_iter().map(row).collect();
        expect![[r#"
            invalid_argument: ERR_CONFIG_INVALID
            not_found: ERR_SANDBOX_PROVISION_FAILED
            conflict: ERR_SANDBOX_PROVISION_FAILED
            fenced: ERR_SANDBOX_PROVISION_FAILED
            destroyed: ERR_SANDBOX_PROVISION_FAILED
            unsupported: ERR_PROVIDER_INCOMPATIBLE
            isolation_unavailable: ERR_SANDBOX_UNAVAILABLE
            auth_rejected: ERR_SANDBOX_PROVISION_FAILED
            branch_not_found: ERR_SANDBOX_PROVISION_FAILED
            commit_not_found: ERR_SANDBOX_PROVISION_FAILED
            unreachable: ERR_SANDBOX_PROVISION_FAILED
            config_invalid: ERR_CONFIG_INVALID
            install_failed: ERR_SANDBOX_PROVISION_FAILED
            agent_not_ready: ERR_SANDBOX_PROVISION_FAILED
            workspace_lost: ERR_SANDBOX_PROVISION_FAILED
            too_large: ERR_SANDBOX_PROVISION_FAILED
            corrupt: ERR_SANDBOX_PROVISION_FAILED
            no_space: ERR_SANDBOX_PROVISION_FAILED
            cancelled: ERR_SANDBOX_PROVISION_FAILED
            timeout: ERR_TIMEOUT
            crashed: ERR_PROVIDER_CRASHED
            io: ERR_SANDBOX_PROVISION_FAILED
            internal: ERR_PROVIDER_CRASHED
            unknown: ERR_SANDBOX_PROVISION_FAILED
        "#]]
        .assert_eq(&table);
    }
}
