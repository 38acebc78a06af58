//! What a command works with, and the ways to what it needs: configuration, ledger, engine, a session's provider.

use crate::config::{Config, Variables, home};
use crate::output::Output;
use crate::setup::{ProviderSetup, Setup};
use alpine_ledger::{AuditRecord, Ledger, Options, SessionRecord};
use alpine_lifecycle::{
    Caller, Engine, ErrorCode, Failure, Interrupt, Providers, Watch, lookup, no_provider, quoted,
    shortened,
};
use alpine_provider_api::{
    ErrorKind, Meta, ProviderError, Redactor, SandboxId, SandboxProvider, Secret,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinError;

/// What a command works with.
#[derive(Debug)]
pub(crate) struct Work {
    /// What the embedding program brought along.
    pub(crate) setup: Setup,
    /// The caller's environment.
    pub(crate) variables: Variables,
    /// The secrets in it.
    pub(crate) secrets: Vec<Secret<String>>,
    /// Where results go.
    pub(crate) output: Output,
    /// `--lock-timeout`.
    pub(crate) lock_timeout: Option<Duration>,
}

/// A session, and the provider that has it.
#[derive(Debug)]
pub(crate) struct Reached {
    /// Its record.
    pub(crate) session: SessionRecord,
    /// Its sandbox.
    pub(crate) sandbox_id: SandboxId,
    /// The provider.
    pub(crate) provider: Arc<dyn SandboxProvider>,
}

impl Work {
    /// Looks for one more secret from now on.
    pub(crate) fn learn(&mut self, secret: &Secret<String>) {
        self.secrets.push(secret.clone());
        self.output.redactor.learn(secret);
    }

    /// Takes secrets out of text.
    pub(crate) fn redactor(&self) -> &Redactor {
        &self.output.redactor
    }

    /// What is in force. Where the pins of added providers can't be used, it warns and goes on without them.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let config = Config::lenient(&self.variables)?;
        if let Some(Failure {
            cause, next_step, ..
        }) = &config.pins_refused
        {
            let warning =
                format!("no provider that was added is known: {cause}; first `{next_step}`");
            self.output.warning(&warning);
        }
        Ok(config)
    }

    /// The ledger, to read it: it is never made.
    pub(crate) fn ledger_to_read(&self, config: &Config) -> Result<Ledger, Failure> {
        Ok(Ledger::open_read(
            &config.ledger.value,
            self.options(config),
        )?)
    }

    /// The ledger; it and the home are made where they are not there.
    pub(crate) fn ledger(&self, config: &Config) -> Result<Ledger, Failure> {
        home::make(&config.home.value)?;
        let path = &config.ledger.value;
        if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
            let cause = format!(
                "the ledger `{}` can't be used: its directory is not there",
                path.display()
            );
            let next = format!("mkdir -p -m 700 {}", quoted(&dir.to_string_lossy()));
            return Err(Failure::new(ErrorCode::LedgerUnavailable, cause).next(next));
        }
        Ok(Ledger::open(path, self.options(config))?)
    }

    /// How the ledger is opened.
    pub(crate) fn options(&self, config: &Config) -> Options {
        Options {
            lock_timeout: self.lock_timeout.unwrap_or(config.lock_timeout.value),
            lease: config.limits.lease,
            clock: self.setup.env().clock,
            allow_network_fs: config.allow_network_fs.value,
            wrap: self.setup.wrap_ledger.clone(),
            ..Options::new()
        }
    }

    /// What providers are made with.
    pub(crate) fn provider_setup(&self, config: &Config) -> Result<ProviderSetup, Failure> {
        let compiled_in = |name: &&str| config.providers.get(name).is_some();
        if let Some(name) = self.setup.names().find(compiled_in) {
            let cause = format!(
                "`[providers.{name}]` is for a provider that is compiled in: choose another name"
            );
            return Err(Failure::new(ErrorCode::ConfigInvalid, cause).next("alpine config"));
        }
        ProviderSetup::new(config, &self.variables, &self.secrets, self.redactor())
    }

    /// The engine.
    pub(crate) fn engine(
        &self,
        config: &Config,
        ledger: Ledger,
        providers: Providers,
        with: &ProviderSetup,
        watch: Watch,
        interrupt: Interrupt,
    ) -> Engine {
        Engine {
            ledger,
            providers,
            tips: self.setup.tips(&with.git),
            agents: config.agents.specs(),
            env: self.setup.env(),
            limits: config.limits.clone(),
            redactor: self.redactor().clone(),
            watch,
            interrupt,
        }
    }

    /// The session that the caller means.
    pub(crate) fn session(
        &self,
        config: &Config,
        caller: &Caller,
        given: &str,
    ) -> Result<SessionRecord, Failure> {
        let ledger = self.ledger_to_read(config)?;
        ledger.read(|snapshot| lookup(snapshot, caller, given))?
    }

    /// The session that the caller means, and the provider that has it.
    pub(crate) fn reach(
        &self,
        config: &Config,
        given: &str,
        action: &str,
    ) -> Result<Reached, Failure> {
        let caller = config.caller()?;
        let session = self.session(config, &caller, given)?;
        let reached = self.reached(session, &self.provider_setup(config)?)?;
        if reached.session.new.owner != caller.principal {
            self.audit(config, &caller, &reached.session, action)?;
        }
        Ok(reached)
    }

    /// An admin's act on another's session leaves a record before it begins.
    fn audit(
        &self,
        config: &Config,
        caller: &Caller,
        session: &SessionRecord,
        action: &str,
    ) -> Result<(), Failure> {
        let record = AuditRecord {
            actor: caller.principal.clone(),
            session_id: session.session_id.clone(),
            action: action.to_owned(),
            reason: format!("alpine {action}"),
            at: self.setup.env().clock.now(),
        };
        let ledger = self.ledger(config)?;
        ledger.write(move |tx| tx.put_audit(&record))?;
        ledger.close();
        Ok(())
    }

    /// A session, and the provider that has it.
    pub(crate) fn reached(
        &self,
        session: SessionRecord,
        with: &ProviderSetup,
    ) -> Result<Reached, Failure> {
        let name = &session.new.provider;
        let provider = self
            .setup
            .provider(name, with)?
            .ok_or_else(|| no_provider(&session))?;
        if let Some(plugin) = with.plugins.get(name) {
            plugin.check()?;
        }
        let sandbox_id = SandboxId::new(&session.sandbox_id).ok_or_else(|| {
            Failure::new(
                ErrorCode::LedgerCorrupt,
                "the recorded sandbox id is malformed",
            )
        })?;
        Ok(Reached {
            session,
            sandbox_id,
            provider,
        })
    }
}

impl Reached {
    /// The plain part of a call that holds no lease.
    pub(crate) fn meta(&self, limit: Option<Duration>) -> Meta {
        Meta {
            operation_id: self.session.operation_id.to_string(),
            fence: 0,
            attempt: 1,
            deadline_ms: limit.map_or(0, millis),
            traceparent: None,
        }
    }

    /// A failure that says where to look next.
    pub(crate) fn failed(&self, code: ErrorCode, cause: String) -> Failure {
        let next = format!("alpine status {}", self.session.session_id);
        Failure::new(code, cause).next(next)
    }

    /// The task of a call has died.
    pub(crate) fn panicked(&self, died: &JoinError) -> Failure {
        self.failed(
            ErrorCode::ProviderCrashed,
            format!("the provider panicked: {died}"),
        )
    }

    /// Refuses a session that is not `ready`.
    pub(crate) fn ready(&self) -> Result<(), Failure> {
        let session = &self.session;
        if session.state == alpine_ledger::State::Ready {
            return Ok(());
        }
        let cause = format!(
            "session `{}` is `{}`, not `ready`",
            session.session_id, session.state
        );
        let failure = Failure::conflict(cause).in_operation(&session.operation_id);
        Err(failure.next(format!("alpine status {}", session.session_id)))
    }
}

/// A provider's failure outside of an operation.
pub(crate) fn provider_failed(what: &str, error: &ProviderError, reached: &Reached) -> Failure {
    let error = &shortened(error);
    let tail: String = error
        .log_tail
        .iter()
        .map(|line| format!("\n  {line}"))
        .collect();
    let cause = format!("{what}: {}{tail}", error.message);
    let mut failure = reached.failed(code_of(error.kind), cause);
    if let Some(hint) = &error.hint {
        failure = failure.next(hint);
    }
    if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Destroyed) {
        // The sandbox is gone: the same call finds it no more.
        failure = failure.must_change();
    }
    failure
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's kinds, of which later versions have more"
)]
fn code_of(kind: ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::InvalidArgument => ErrorCode::Usage,
        ErrorKind::Unsupported => ErrorCode::ProviderIncompatible,
        ErrorKind::AgentNotReady => ErrorCode::AgentNotReady,
        ErrorKind::NotFound | ErrorKind::Destroyed => ErrorCode::OperationConflict,
        ErrorKind::Timeout | ErrorKind::Unreachable => ErrorCode::Timeout,
        _ => ErrorCode::ProviderCrashed,
    }
}

/// Milliseconds, as far as they can be counted.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The runtime of a command that drives a provider.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    built.map_err(|error| {
        Failure::new(
            ErrorCode::Internal,
            format!("no runtime can be started: {error}"),
        )
    })
}

/// Drives a future to its end, and waits for nothing that it left behind.
pub(crate) fn drive<T>(runtime: Runtime, future: impl Future<Output = T>) -> T {
    let value = runtime.block_on(future);
    runtime.shutdown_background();
    value
}
