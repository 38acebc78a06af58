//! The provider that the engine sees: takes each call's fault, does the work under the lock, writes the outcome down.

use super::command;
use super::judge::{Judge, judge, nobodys_call, public, shortened};
use super::look::{inspect, list, open_agent, running_workspace};
use super::real;
use super::store::{CallLine, Locked, Store};
use super::types::{Fault, KillPoint, Outcome};
use super::work::{Extent, Reply, half_done, isolation};
use super::wrong::Falsify;
use crate::clock::TestClock;
use alpine_provider_api::*;
use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// The strict fake provider. All of its state is in files, so that many processes may share it.
///
/// It keeps the contract of [`SandboxProvider`] to the letter and writes down each time its caller does not: see
/// [`FakeControl::violations`](super::FakeControl::violations). It never panics for what a caller does.
#[derive(Clone, Debug)]
pub struct FakeProvider {
    store: Store,
    clock: Option<TestClock>,
}

impl FakeProvider {
    /// A provider whose state is in `directory`, which is made when it is not there.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            store: Store::new(directory.into()),
            clock: None,
        }
    }

    /// The same, with the clock that `Fault::ClockJump` sets.
    #[must_use]
    pub fn with_clock(self, clock: TestClock) -> Self {
        Self {
            clock: Some(clock),
            ..self
        }
    }

    /// What a remote answers whose branch is at `commit`. Faults strike it as method `tip`.
    ///
    /// # Errors
    /// As the fault says.
    pub async fn tip(&self, commit: &CommitId) -> Reply<CommitId> {
        let call = nobodys_call();
        let judge = judge("tip", &call, None);
        let work = async |extent| match extent {
            Extent::Half => Err(half_done()),
            Extent::Whole | Extent::Unseen | Extent::Lie => Ok(commit.clone()),
        };
        self.run(&judge, &serde_json::json!({}), work).await
    }

    /// The same, but its work is real: it checks out real repositories, runs real commands, ends real processes, and keeps
    /// whole workspaces. That holds for everybody who opens the directory from then on.
    ///
    /// It serves no page and no agent, and says so.
    #[must_use]
    pub fn real(directory: impl Into<PathBuf>) -> Self {
        let fake = Self::new(directory);
        fake.store.make_real();
        fake
    }

    fn is_real(&self) -> bool {
        self.store.lock().is_real()
    }

    /// Runs one call: records it, judges it, lets its fault strike, and records how it ended.
    async fn run<R, W, F>(
        &self,
        judge: &Judge<'_>,
        request: &(impl Serialize + Sync),
        work: W,
    ) -> Reply<R>
    where
        R: Falsify + Send,
        W: FnOnce(Extent) -> F + Send,
        F: Future<Output = Reply<R>> + Send,
    {
        let (number, fault) = self.begin(judge, request);
        let reply = match fault {
            Ok(Some(Fault::ClockJump { ms })) => {
                self.clock.iter().for_each(|clock| clock.jump(ms));
                work(Extent::Whole).await
            }
            Ok(fault) => strike(fault, judge.method, work).await,
            Err(refused) => Err(refused),
        };
        let outcome = match &reply {
            Ok(_) => Outcome::Done,
            Err(error) => Outcome::Failed(error.kind),
        };
        self.store
            .lock()
            .append_call(&CallLine::Ended { number, outcome });
        reply
    }

    fn begin(&self, judge: &Judge<'_>, request: &impl Serialize) -> (u64, Reply<Option<Fault>>) {
        let public = public(request);
        let store = self.store.lock();
        let checked = judge.check_call(&store, &public);
        let fault = checked.map(|()| take_fault(&store, judge.method));
        let number = store.next_number();
        // What was refused may hold a secret: it is not repeated.
        let shown = fault.as_ref().map_or(Value::Null, |_| shortened(public));
        store.append_call(&CallLine::Began {
            number,
            method: judge.method.to_owned(),
            sandbox_id: judge.sandbox_id.map(str::to_owned),
            operation_id: judge.meta.operation_id.clone(),
            fence: judge.meta.fence,
            attempt: judge.meta.attempt,
            pid: std::process::id(),
            request: shown,
            fault: fault.as_ref().ok().cloned().flatten(),
        });
        (number, fault)
    }

    /// A guarded method: all its work is one step under the lock.
    async fn guarded<'a, Q, R>(
        &self,
        method: &'static str,
        call: &'a Call,
        id: &'a SandboxId,
        request: &Q,
        work: fn(&Judge<'a>, &Locked, Extent, &Q) -> Reply<R>,
    ) -> Reply<R>
    where
        Q: Serialize + Sync,
        R: Falsify + Send,
    {
        let judge = judge(method, call, Some(id));
        call.progress(method, 0, Some(1));
        let reply = self.run(&judge, request, |extent| {
            std::future::ready(work(&judge, &self.store.lock(), extent, request))
        });
        let reply = reply.await;
        call.progress(method, 1, Some(1));
        reply
    }
}

fn take_fault(store: &Locked, method: &str) -> Option<Fault> {
    let mut faults = store.faults();
    let at = faults
        .iter()
        .position(|planned| planned.method == method || planned.method == "*")?;
    let fault = faults[at].fault.clone();
    if let Some(left) = &mut faults[at].left {
        *left = left.saturating_sub(1);
        if *left == 0 {
            faults.remove(at);
        }
        store.keep_faults(&faults);
    }
    Some(fault)
}

/// Does as much of the work as the fault lets it, and answers as the fault says.
async fn strike<R, W, F>(fault: Option<Fault>, method: &str, work: W) -> Reply<R>
where
    R: Falsify,
    W: FnOnce(Extent) -> F,
    F: Future<Output = Reply<R>>,
{
    let Some(fault) = fault else {
        return work(Extent::Whole).await;
    };
    match fault {
        Fault::Error(kind) => Err(failure(ProviderError::new(kind, said(method, kind)))),
        Fault::Transient(kind) => Err(failure(ProviderError::transient(kind, said(method, kind)))),
        Fault::Hang => std::future::pending().await,
        Fault::LostReply => {
            work(Extent::Unseen).await?;
            let text = format!("the reply to `{method}` was lost");
            Err(ProviderError::transient(ErrorKind::Unreachable, text))
        }
        Fault::LostReplyHang => {
            let _unseen = work(Extent::Unseen).await;
            std::future::pending().await
        }
        Fault::WrongAnswer | Fault::WrongSnapshot => {
            let mut reply = work(Extent::Lie).await?;
            reply.falsify(&fault);
            Ok(reply)
        }
        Fault::Partial => work(Extent::Half).await,
        // The provider has the clock, and has set it already.
        Fault::ClockJump { .. } => work(Extent::Whole).await,
        Fault::Delay { ms } => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            work(Extent::Whole).await
        }
        Fault::KillCaller(point) => {
            match point {
                KillPoint::Before => {}
                KillPoint::During => drop(work(Extent::Half).await),
                KillPoint::After => drop(work(Extent::Unseen).await),
            }
            kill_caller()
        }
    }
}

/// Kills the process that calls: this one, or its parent where all the tests reach the fake over the port.
fn kill_caller() -> ! {
    use rustix::process::{Signal, getpid, getppid, kill_process};
    let by = std::env::var("ALPINE_TEST_FAKE_BY").unwrap_or_default();
    if let (true, Some(caller)) = (matches!(&*by, "hosted" | "program"), getppid()) {
        let _killed = kill_process(caller, Signal::KILL);
    }
    let killed = kill_process(getpid(), Signal::KILL);
    panic!("this process should have died: {killed:?}")
}

fn said(method: &str, kind: ErrorKind) -> String {
    format!("`{method}` was made to fail with `{}`", kind.as_str())
}

/// The kinds that come with a log bring one.
fn failure(error: ProviderError) -> ProviderError {
    if matches!(
        error.kind,
        ErrorKind::InstallFailed | ErrorKind::AgentNotReady
    ) {
        return error.log_tail(vec![
            "the line before".to_owned(),
            "the last line".to_owned(),
        ]);
    }
    error
}

#[async_trait]
impl SandboxProvider for FakeProvider {
    async fn describe(&self) -> Reply<DescribeReply> {
        let call = nobodys_call();
        let judge = judge("describe", &call, None);
        let work = async |extent| match extent {
            Extent::Half => Err(half_done()),
            Extent::Whole | Extent::Unseen | Extent::Lie => {
                let mut reply = DescribeReply::new("fake", "1.0.0", isolation());
                if self.is_real() {
                    let served = [Feature::ServeProcess, Feature::ServePage];
                    let is_served = |name: &String| served.iter().any(|one| one.as_str() == name);
                    reply.features.retain(|name| !is_served(name));
                }
                Ok(reply)
            }
        };
        self.run(&judge, &serde_json::json!({}), work).await
    }

    async fn provision(&self, call: &Call, request: ProvisionRequest) -> Reply<ProvisionReply> {
        let id = &request.sandbox_id;
        self.guarded("provision", call, id, &request, Judge::provision)
            .await
    }

    async fn sync_repo(&self, call: &Call, request: SyncRepoRequest) -> Reply<SyncRepoReply> {
        let id = &request.sandbox_id;
        if self.is_real() {
            let judge = judge("sync_repo", call, Some(id));
            let work = |extent| real::sync_repo(&judge, &self.store, extent, &request);
            return self.run(&judge, &request, work).await;
        }
        self.guarded("sync_repo", call, id, &request, Judge::sync_repo)
            .await
    }

    async fn install(&self, call: &Call, request: InstallRequest) -> Reply<InstallReply> {
        let id = &request.sandbox_id;
        if self.is_real() {
            let judge = judge("install", call, Some(id));
            let work = |extent| real::install(&judge, &self.store, extent, &request);
            return self.run(&judge, &request, work).await;
        }
        self.guarded("install", call, id, &request, Judge::install)
            .await
    }

    async fn start_agent(&self, call: &Call, request: StartAgentRequest) -> Reply<StartAgentReply> {
        let id = &request.sandbox_id;
        self.guarded("start_agent", call, id, &request, Judge::start_agent)
            .await
    }

    async fn open_agent(&self, call: &Call, request: OpenAgentRequest) -> Reply<OpenAgentReply> {
        let id = &request.sandbox_id;
        self.guarded("open_agent", call, id, &request, open_agent)
            .await
    }

    async fn inspect(&self, call: &Call, request: InspectRequest) -> Reply<InspectReply> {
        let id = &request.sandbox_id;
        self.guarded("inspect", call, id, &request, inspect).await
    }

    async fn list(&self, call: &Call, request: ListRequest) -> Reply<ListReply> {
        let judge = judge("list", call, None);
        let work = |extent| std::future::ready(list(&self.store.lock(), extent, &request));
        self.run(&judge, &request, work).await
    }

    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Reply<ExecReply> {
        let judge = judge("exec", call, Some(&request.sandbox_id));
        let work = async |extent| {
            if extent == Extent::Half {
                return Err(half_done());
            }
            let workspace = running_workspace(&self.store.lock(), &request.sandbox_id)?;
            command::run(call, &request, input, &workspace, &self.store).await
        };
        self.run(&judge, &request, work).await
    }

    async fn logs(&self, call: &Call, request: LogsRequest) -> Reply<LogsReply> {
        let judge = judge("logs", call, Some(&request.sandbox_id));
        let work = async |extent| {
            if extent == Extent::Half {
                return Err(half_done());
            }
            command::logs(call, &request, &self.store).await
        };
        self.run(&judge, &request, work).await
    }

    async fn stop(&self, call: &Call, request: StopRequest) -> Reply<StopReply> {
        let id = &request.sandbox_id;
        if self.is_real() {
            let judge = judge("stop", call, Some(id));
            let work = |extent| real::stop(&judge, &self.store, extent, &request);
            return self.run(&judge, &request, work).await;
        }
        self.guarded("stop", call, id, &request, Judge::stop).await
    }

    async fn capture(&self, call: &Call, request: CaptureRequest) -> Reply<StagedSnapshot> {
        let id = &request.sandbox_id;
        self.guarded("capture", call, id, &request, Judge::capture)
            .await
    }

    async fn persist(&self, call: &Call, request: PersistRequest) -> Reply<PersistReply> {
        let id = &request.sandbox_id;
        self.guarded("persist", call, id, &request, Judge::persist)
            .await
    }

    async fn read_object(&self, call: &Call, request: ReadObjectRequest) -> Reply<ReadObjectReply> {
        let judge = judge("read_object", call, None);
        let work =
            |extent| std::future::ready(judge.read_object(&self.store.lock(), extent, &request));
        self.run(&judge, &request, work).await
    }

    async fn restore(&self, call: &Call, request: RestoreRequest) -> Reply<RestoreReply> {
        let id = &request.sandbox_id;
        self.guarded("restore", call, id, &request, Judge::restore)
            .await
    }

    async fn destroy(&self, call: &Call, request: DestroyRequest) -> Reply<DestroyReply> {
        let id = &request.sandbox_id;
        if self.is_real() {
            let judge = judge("destroy", call, Some(id));
            real::end_all(&judge, &self.store, id).await?;
        }
        self.guarded("destroy", call, id, &request, Judge::destroy)
            .await
    }
}
