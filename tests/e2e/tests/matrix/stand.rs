//! The way to where a session stands when its scene begins.

use super::plan::{Operation, Stand};
use super::stage::{REPO, Stage, TIP};
use crate::support::{Running, wait_until};
use alpine_ledger::SessionRecord;
use alpine_provider_api::{
    BranchName, Call, CommitId, ErrorKind, Meta, ProvisionRequest, RepoUrl, SandboxId,
    SandboxProvider, SyncRepoRequest,
};
use alpine_testkit::{FakeProvider, Fault, KillPoint};
use std::fs;
use std::path::Path;
use std::time::Duration;

const STRAY: &str = "sbx_stray";

impl Stage {
    pub(super) fn go_there(&mut self) {
        match self.scene.stand {
            Stand::Nothing | Stand::UpWillHang(_) => {}
            Stand::Ready => self.ready(),
            Stand::UpDied(call) => self.die(Operation::Up, call),
            Stand::DownDied(call) => {
                self.ready();
                self.die(Operation::Down, call);
            }
            Stand::UpHangs(call) => {
                self.hang_in(call);
                let up = Running::start(self.command_of(Operation::Up));
                self.wait_until_it_hangs(0);
                self.beside = Some(up);
            }
            Stand::CleanUpDied(call) => {
                self.lose_agent();
                // That call is none of those that pass.
                self.die(Operation::TakeOver, call - 1);
            }
            Stand::RescueFailed => {
                self.lose_agent();
                self.env
                    .fake()
                    .fault("persist", Fault::Error(ErrorKind::Io), 2);
                self.run(Operation::TakeOver);
                // Only `down` says how to give the work up.
                self.run(Operation::Down);
            }
            Stand::CloseFailed => self.fail_down("stop", ErrorKind::Io),
            Stand::Unpersisted => self.fail_down("persist", ErrorKind::Io),
            Stand::PersistFailed => self.fail_down("persist", ErrorKind::TooLarge),
            Stand::DestroyPending => self.fail_down("destroy", ErrorKind::Io),
            Stand::CleanupFailed => {
                self.fault("install", Fault::Error(ErrorKind::InstallFailed));
                self.fault("destroy", Fault::Error(ErrorKind::Io));
                self.run(Operation::Up);
            }
            Stand::Gone => {
                self.ready();
                self.works.clear();
                let session = self.session().expect("it");
                self.env.fake().lose_sandbox(&session.sandbox_id);
            }
            Stand::Left => {
                self.ready();
                self.run(Operation::Down);
                let session = self.session().expect("it");
                self.haunt(&session);
            }
            Stand::Restored => {
                self.ready();
                let ledger = self.env.alpine_home().join("ledger.redb");
                let kept = ledger.with_extension("kept");
                fs::copy(&ledger, &kept).expect("a copy of the ledger");
                self.run(Operation::Down);
                fs::rename(&kept, &ledger).expect("the ledger as it was");
            }
            Stand::Stray => self.stray(),
            Stand::SavedStray => {
                self.stray();
                self.run(Operation::Reconcile);
                self.env.clock().advance(Duration::from_secs(61 * 60));
            }
        }
    }

    fn ready(&mut self) {
        let up = self.run(Operation::Up);
        assert_eq!(up.code(), Some(0), "{up:#?}");
        self.work();
    }

    /// Kills an operation in its nth call. An `up` is left alone then until it counts as abandoned.
    fn die(&mut self, operation: Operation, nth: usize) {
        let passes = u32::try_from(nth).expect("few calls");
        self.let_pass("*", passes);
        self.fault("*", Fault::KillCaller(KillPoint::After));
        let killed = self.run(operation);
        assert_eq!(killed.code(), None, "{killed:#?}");
        self.work();
        self.env.clock().advance(Duration::from_secs(16 * 60));
    }

    /// The agent of an `up` that was killed has written something, and won't start again.
    fn lose_agent(&mut self) {
        self.fault("start_agent", Fault::KillCaller(KillPoint::After));
        let killed = self.run(Operation::Up);
        assert_eq!(killed.code(), None, "{killed:#?}");
        self.work();
        let error = Fault::Error(ErrorKind::AgentNotReady);
        self.fault("start_agent", error);
    }

    pub(super) fn hang_in(&self, nth: usize) {
        self.let_pass("*", u32::try_from(nth).expect("few calls"));
        self.fault("*", Fault::Hang);
    }

    /// Waits for a call that hangs, after so many others.
    pub(super) fn wait_until_it_hangs(&self, before: usize) {
        let hangs = || {
            let calls = self.env.fake().calls().split_off(before);
            calls.iter().any(|call| call.fault == Some(Fault::Hang))
        };
        wait_until("a call that hangs", hangs);
    }

    fn fail_down(&mut self, method: &str, kind: ErrorKind) {
        self.ready();
        self.fault(method, Fault::Error(kind));
        self.run(Operation::Down);
    }

    /// A sandbox that no session owns, beside one that is stopped.
    fn stray(&mut self) {
        self.ready();
        self.run(Operation::Down);
        self.appear(STRAY, "ses_unknown");
        self.write(STRAY);
    }

    /// Brings the sandbox of a session that has ended back, as a provider might that forgot its destroy.
    fn haunt(&mut self, session: &SessionRecord) {
        let tombs = self.env.fake_directory().join("tombstones");
        fs::remove_file(tombs.join(&session.sandbox_id)).expect("its tombstone");
        self.appear(&session.sandbox_id, session.session_id.as_str());
        self.write(&session.sandbox_id);
    }

    /// Makes a sandbox behind the ledger's back.
    pub(super) fn appear(&self, sandbox: &str, session: &str) {
        let provider = FakeProvider::new(self.env.fake_directory());
        let call = Call::quiet(Meta {
            operation_id: "op_stray".to_owned(),
            fence: 1,
            attempt: 1,
            deadline_ms: 0,
            traceparent: None,
        });
        let sandbox_id = SandboxId::new(sandbox).expect("an id");
        let provision = ProvisionRequest {
            sandbox_id: sandbox_id.clone(),
            ledger_id: self.ledger(|_| Ok(())).0,
            session_id: session.to_owned(),
            allow_unsandboxed: true,
        };
        let sync = SyncRepoRequest {
            sandbox_id,
            repo: RepoUrl::parse(REPO, Path::new("/")).expect("a repository"),
            branch: BranchName::new("main").expect("a branch"),
            commit: CommitId::new(TIP).expect("a commit"),
            credential: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            provider
                .provision(&call, provision)
                .await
                .expect("a sandbox");
            provider
                .sync_repo(&call, sync)
                .await
                .expect("its workspace");
        });
    }
}
