//! What each method does that makes and fills a sandbox, and what it refuses.

use super::ending::{is_changed, readable};
use super::judge::Judge;
use super::store::{Agent, Locked, Run, Sandbox, remove, write_bytes};
use super::tree::{self, Tree};
use alpine_provider_api::*;
use std::collections::BTreeMap;
use std::fs;

/// How much of its work a method does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it, and the answer is given.
    Whole,
    /// All of it, but nobody sees the answer.
    Unseen,
    /// The first half.
    Half,
    /// All of it, but the answer will be falsified.
    Lie,
}

/// What a method that was told to do half answers.
pub(super) fn half_done() -> ProviderError {
    ProviderError::transient(ErrorKind::Io, "the fake stopped halfway")
}

pub(super) fn not_found(id: &SandboxId) -> ProviderError {
    ProviderError::new(ErrorKind::NotFound, format!("sandbox `{id}` is not there"))
}

/// The isolation that the fake says it has.
pub(super) fn isolation() -> Isolation {
    Isolation {
        tier: "process".to_owned(),
        layers: Vec::new(),
        limits: BTreeMap::new(),
        missing: Vec::new(),
    }
}

pub(super) type Reply<T> = Result<T, ProviderError>;

impl Judge<'_> {
    /// Refuses an old fence and a destroyed id; raises the fence.
    pub(super) fn enter(&self, store: &Locked, id: &SandboxId) -> Reply<Sandbox> {
        if store.tombstone(id.as_str()).is_some() {
            let text = format!("sandbox `{id}` was destroyed");
            return Err(ProviderError::new(ErrorKind::Destroyed, text));
        }
        let mut sandbox = store.sandbox(id.as_str()).ok_or_else(|| not_found(id))?;
        self.raise_fence(&mut sandbox)?;
        store.keep_sandbox(&sandbox);
        Ok(sandbox)
    }

    pub(super) fn raise_fence(&self, sandbox: &mut Sandbox) -> Reply<()> {
        self.check_fence(&sandbox.id, sandbox.fence)?;
        sandbox.fence = self.meta.fence;
        Ok(())
    }

    pub(super) fn check_fence(&self, id: &str, seen: u64) -> Reply<()> {
        let fence = self.meta.fence;
        if fence < seen {
            let text = format!("sandbox `{id}` has seen fence {seen}; {fence} is older");
            return Err(ProviderError::new(ErrorKind::Fenced, text));
        }
        Ok(())
    }

    /// A sandbox that runs and has its storage.
    pub(super) fn enter_running(&self, store: &Locked, id: &SandboxId) -> Reply<Sandbox> {
        let sandbox = self.enter(store, id)?;
        if sandbox.lost {
            return Err(not_found(id));
        }
        match sandbox.run {
            Run::Running => Ok(sandbox),
            Run::Exited => Err(ProviderError::new(
                ErrorKind::Io,
                format!("sandbox `{id}` has ended"),
            )),
            Run::Half => Err(self.broken(store, "the sandbox was never provisioned whole")),
            Run::Stopped => Err(self.broken(store, "the sandbox was stopped")),
        }
    }

    pub(super) fn provision(
        &self,
        store: &Locked,
        extent: Extent,
        request: &ProvisionRequest,
    ) -> Reply<ProvisionReply> {
        let id = request.sandbox_id.as_str();
        if store.tombstone(id).is_none() && store.sandbox(id).is_none() {
            let mut sandbox = fresh(request, self.meta.fence);
            // Where the work is real, the caller is a test of the provider, which gives up what it made.
            sandbox.loss_allowed = store.is_real();
            store.keep_sandbox(&sandbox);
        }
        let mut sandbox = self.enter(store, &request.sandbox_id)?;
        let same = sandbox.ledger_id == request.ledger_id
            && sandbox.session_id == request.session_id
            && sandbox.allow_unsandboxed == request.allow_unsandboxed;
        if !same {
            let text = format!("sandbox `{id}` was made with other arguments");
            return Err(ProviderError::new(ErrorKind::Conflict, text));
        }
        if extent == Extent::Half {
            return Err(half_done());
        }
        if sandbox.run == Run::Half {
            fs::create_dir_all(store.workspace(id))
                .map_err(|error| ProviderError::io(format!("workspace of `{id}`"), &error))?;
            sandbox.run = Run::Running;
        }
        let reply = ProvisionReply {
            workspace_path: Some(store.workspace(id)),
            isolation: isolation(),
        };
        self.answered(store, &mut sandbox, request, &reply);
        Ok(reply)
    }

    pub(super) fn sync_repo(
        &self,
        store: &Locked,
        extent: Extent,
        request: &SyncRepoRequest,
    ) -> Reply<SyncRepoReply> {
        let mut sandbox = self.enter_running(store, &request.sandbox_id)?;
        let id = request.sandbox_id.as_str();
        let there = sandbox.synced.as_ref() == Some(&request.commit)
            && store.head(id).as_ref() == Some(&request.commit);
        if !there {
            if sandbox.agent.is_some() && is_changed(store, &sandbox) {
                return Err(self.lost_work(store, "sync_repo would replace an agent's work"));
            }
            let files = Tree::from([
                (
                    "HEAD".to_owned(),
                    format!("{}\n", request.commit).into_bytes(),
                ),
                (
                    "README.md".to_owned(),
                    format!("{}\n", request.repo).into_bytes(),
                ),
                (
                    ".git/branch".to_owned(),
                    format!("{}\n", request.branch).into_bytes(),
                ),
            ]);
            let some = if extent == Extent::Half {
                1
            } else {
                files.len()
            };
            sandbox.synced = None;
            sandbox.clean = None;
            store.keep_sandbox(&sandbox);
            remove(&store.workspace(id));
            // The last ones first: what breaks off halfway has no `HEAD`.
            let written = files.iter().filter(|(name, _)| some > 1 || *name != "HEAD");
            fill(store, id, written)?;
            if extent != Extent::Half {
                sandbox.synced = Some(request.commit.clone());
                sandbox.clean = Some(tree::digest(&tree::encode(&files)));
            }
        }
        if extent == Extent::Half {
            return Err(half_done());
        }
        let reply = SyncRepoReply {
            head: request.commit.clone(),
        };
        self.answered(store, &mut sandbox, request, &reply);
        Ok(reply)
    }

    pub(super) fn install(
        &self,
        store: &Locked,
        extent: Extent,
        request: &InstallRequest,
    ) -> Reply<InstallReply> {
        let mut sandbox = self.enter_running(store, &request.sandbox_id)?;
        if sandbox.clean.is_none() {
            return Err(self.broken(store, "install comes after sync_repo or restore"));
        }
        let id = request.sandbox_id.as_str();
        if !sandbox.installed {
            write_bytes(&store.log(id, "install"), b"installing\n");
            if extent == Extent::Half {
                return Err(half_done());
            }
            write_bytes(&store.log(id, "install"), b"installing\ninstalled\n");
            sandbox.installed = true;
        } else if extent == Extent::Half {
            return Err(half_done());
        }
        let reply = InstallReply {
            command: Some("fake-install".to_owned()),
            found_by: Some("fake.lock".to_owned()),
        };
        self.answered(store, &mut sandbox, request, &reply);
        Ok(reply)
    }

    pub(super) fn start_agent(
        &self,
        store: &Locked,
        extent: Extent,
        request: &StartAgentRequest,
    ) -> Reply<StartAgentReply> {
        let mut sandbox = self.enter_running(store, &request.sandbox_id)?;
        if sandbox.clean.is_none() {
            return Err(self.broken(store, "start_agent comes after sync_repo or restore"));
        }
        let id = request.sandbox_id.as_str();
        let url = match request.agent.serve {
            Serve::None => None,
            Serve::Page | Serve::Process(_) if store.is_real() => {
                let text = "the fake serves nothing where its work is real";
                return Err(ProviderError::new(ErrorKind::Unsupported, text));
            }
            Serve::Page | Serve::Process(_) => Some(format!("http://127.0.0.1:9/{id}")),
        };
        sandbox.agent = Some(Agent {
            spec: request.agent.clone(),
            url: url.clone(),
            ready: extent != Extent::Half,
        });
        store.keep_sandbox(&sandbox);
        write_bytes(&store.log(id, "agent"), b"the agent listens\n");
        if extent == Extent::Half {
            return Err(half_done());
        }
        let reply = StartAgentReply { url };
        self.answered(store, &mut sandbox, request, &reply);
        Ok(reply)
    }

    pub(super) fn restore(
        &self,
        store: &Locked,
        extent: Extent,
        request: &RestoreRequest,
    ) -> Reply<RestoreReply> {
        let mut sandbox = self.enter_running(store, &request.sandbox_id)?;
        let id = request.sandbox_id.as_str();
        let object = readable(store, &request.durable_object_id)?;
        let bytes = fs::read(store.object_snapshot(&object.id)).ok();
        let Some(files) = bytes.as_deref().and_then(tree::decode) else {
            let text = format!("object `{}` has no workspace", object.id);
            return Err(ProviderError::new(ErrorKind::NotFound, text));
        };
        let whole = sandbox.clean.is_some();
        if whole && store.tree(id).as_ref() != Some(&files) {
            return Err(self.broken(store, "restore into a workspace that is not empty"));
        }
        if !whole {
            remove(&store.workspace(id));
            let some = if extent == Extent::Half {
                files.len() / 2
            } else {
                files.len()
            };
            fill(store, id, files.iter().take(some))?;
        }
        if extent == Extent::Half {
            return Err(half_done());
        }
        sandbox.synced = store.head(id);
        sandbox.clean = Some(tree::digest(&tree::encode(&files)));
        store.keep_sandbox(&sandbox);
        Ok(RestoreReply {
            entries: files.len() as u64,
        })
    }
}

fn fill<'a>(
    store: &Locked,
    id: &str,
    files: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>,
) -> Reply<()> {
    tree::write(&store.workspace(id), files)
        .map_err(|error| ProviderError::io(format!("workspace of `{id}`"), &error))
}

fn fresh(request: &ProvisionRequest, fence: u64) -> Sandbox {
    Sandbox {
        id: request.sandbox_id.as_str().to_owned(),
        ledger_id: request.ledger_id.clone(),
        session_id: request.session_id.clone(),
        allow_unsandboxed: request.allow_unsandboxed,
        fence,
        run: Run::Half,
        lost: false,
        loss_allowed: false,
        read_only: false,
        synced: None,
        clean: None,
        installed: false,
        agent: None,
        links: 0,
        staged: BTreeMap::new(),
        replies: BTreeMap::new(),
    }
}
