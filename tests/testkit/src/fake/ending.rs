//! What each method does that keeps a sandbox's work and ends it, and what it refuses.

use super::judge::Judge;
use super::store::{Locked, Object, Run, Sandbox, remove, write_bytes};
use super::tree;
use super::types::ViolationKind;
use super::work::{Extent, Reply, half_done, not_found};
use alpine_provider_api::*;
use serde_json::Value;
use std::fs;

impl Judge<'_> {
    pub(super) fn stop(
        &self,
        store: &Locked,
        extent: Extent,
        request: &StopRequest,
    ) -> Reply<StopReply> {
        let mut sandbox = self.enter(store, &request.sandbox_id)?;
        if sandbox.lost {
            return Err(not_found(&request.sandbox_id));
        }
        if let Some(agent) = &mut sandbox.agent {
            agent.ready = false;
        }
        match extent {
            Extent::Lie => {}
            Extent::Half => {
                store.keep_sandbox(&sandbox);
                return Err(half_done());
            }
            Extent::Whole | Extent::Unseen => {
                sandbox.run = Run::Stopped;
                store.keep_sandbox(&sandbox);
            }
        }
        Ok(StopReply { forced: false })
    }

    pub(super) fn capture(
        &self,
        store: &Locked,
        extent: Extent,
        request: &CaptureRequest,
    ) -> Reply<StagedSnapshot> {
        let mut sandbox = self.enter(store, &request.sandbox_id)?;
        let id = request.sandbox_id.as_str();
        if sandbox.run == Run::Running && !sandbox.lost {
            return Err(self.broken(store, "capture comes after stop"));
        }
        let Some(files) = store.tree(id).filter(|_| !sandbox.lost) else {
            let text = format!("the workspace of sandbox `{id}` is gone");
            return Err(ProviderError::new(ErrorKind::WorkspaceLost, text));
        };
        let known = sandbox.staged.get(&request.generation).filter(|staged| {
            fs::read(store.staged(&staged.staging_id))
                .is_ok_and(|bytes| tree::digest(&bytes) == staged.digest)
        });
        if let Some(staged) = known.cloned() {
            return if extent == Extent::Half {
                Err(half_done())
            } else {
                Ok(staged)
            };
        }
        let bytes = tree::encode(&files);
        let staged = StagedSnapshot {
            staging_id: format!("{id}-{}", request.generation),
            digest: tree::digest(&bytes),
            size: bytes.len() as u64,
            entries: files.len() as u64,
            left_out: Vec::new(),
        };
        if extent == Extent::Half {
            write_bytes(&store.staged(&staged.staging_id), &bytes[..bytes.len() / 2]);
            return Err(half_done());
        }
        write_bytes(&store.staged(&staged.staging_id), &bytes);
        sandbox.staged.insert(request.generation, staged.clone());
        self.answered(store, &mut sandbox, request, &staged);
        Ok(staged)
    }

    pub(super) fn destroy(
        &self,
        store: &Locked,
        extent: Extent,
        request: &DestroyRequest,
    ) -> Reply<DestroyReply> {
        let id = request.sandbox_id.as_str();
        let fence = self.meta.fence;
        if let Some(seen) = store.tombstone(id) {
            self.check_fence(id, seen)?;
            store.keep_tombstone(id, fence);
            return Ok(DestroyReply {});
        }
        if let Some(mut sandbox) = store.sandbox(id) {
            self.raise_fence(&mut sandbox)?;
            store.keep_sandbox(&sandbox);
            self.guard_work(store, &sandbox)?;
            if extent == Extent::Lie {
                return Ok(DestroyReply {});
            }
            sandbox.run = Run::Stopped;
            sandbox.lost = true;
            store.keep_sandbox(&sandbox);
            remove(&store.workspace(id));
            if extent == Extent::Half {
                return Err(half_done());
            }
            for staged in sandbox.staged.values() {
                remove(&store.staged(&staged.staging_id));
            }
            remove(&store.log(id, "install"));
            remove(&store.log(id, "agent"));
        } else if extent == Extent::Half {
            return Err(half_done());
        }
        store.keep_tombstone(id, fence);
        store.forget_sandbox(id);
        Ok(DestroyReply {})
    }

    /// Refuses to destroy work that no object holds, or whose object was not read back.
    fn guard_work(&self, store: &Locked, sandbox: &Sandbox) -> Reply<()> {
        if sandbox.lost || sandbox.loss_allowed || !is_changed(store, sandbox) {
            return Ok(());
        }
        let files = store.tree(&sandbox.id).unwrap_or_default();
        let digest = tree::digest(&tree::encode(&files));
        let kept: Vec<Object> = store
            .objects()
            .into_iter()
            .filter(|object| object.session_id == sandbox.session_id)
            .filter(|object| {
                object
                    .snapshot
                    .as_ref()
                    .is_some_and(|snapshot| snapshot.digest == digest)
            })
            .filter(|object| store.is_intact(object))
            .collect();
        if kept.is_empty() {
            return Err(self.lost_work(store, "destroy of a workspace that no object holds"));
        }
        if !kept.iter().any(|object| object.read_back) {
            let text = "destroy of a workspace whose object was not read back";
            return Err(self.violation(store, ViolationKind::Unverified, text));
        }
        Ok(())
    }

    pub(super) fn persist(
        &self,
        store: &Locked,
        extent: Extent,
        request: &PersistRequest,
    ) -> Reply<PersistReply> {
        self.check_payload(store, request)?;
        let id = request.sandbox_id.as_str();
        let sandbox = match self.enter(store, &request.sandbox_id) {
            // The whole sandbox has gone: what is left of the session is its payload.
            Err(ProviderError {
                kind: ErrorKind::NotFound | ErrorKind::Destroyed,
                ..
            }) if request.snapshot.is_none() => None,
            Err(error) => return Err(error),
            Ok(sandbox) => Some(sandbox),
        };
        if let Some(sandbox) = &sandbox {
            self.check_persist(store, sandbox, request)?;
        }
        let digest = request
            .snapshot
            .as_ref()
            .map(|snapshot| snapshot.digest.as_str());
        let parts = serde_json::json!([
            request.session_id,
            request.generation,
            request.payload,
            digest
        ]);
        let object_id = format!("obj_{}", &tree::digest(parts.to_string().as_bytes())[..32]);
        if store
            .object(&object_id)
            .is_none_or(|object| !store.is_intact(&object))
        {
            if let Some(snapshot) = &request.snapshot {
                let bytes = fs::read(store.staged(&snapshot.staging_id)).unwrap_or_default();
                if tree::digest(&bytes) != snapshot.digest {
                    let text = format!("staged snapshot `{}` has changed", snapshot.staging_id);
                    return Err(ProviderError::new(ErrorKind::Corrupt, text));
                }
                let some = if extent == Extent::Half {
                    bytes.len() / 2
                } else {
                    bytes.len()
                };
                write_bytes(&store.object_snapshot(&object_id), &bytes[..some]);
            }
            if extent != Extent::Half {
                store.keep_object(&Object {
                    id: object_id.clone(),
                    sandbox_id: id.to_owned(),
                    session_id: request.session_id.clone(),
                    generation: request.generation,
                    payload: request.payload.clone(),
                    payload_digest: tree::digest(request.payload.as_bytes()),
                    snapshot: request.snapshot.clone(),
                    read_back: false,
                });
            }
        }
        if extent == Extent::Half {
            return Err(half_done());
        }
        let reply = PersistReply {
            durable_object_id: object_id,
        };
        if let Some(mut sandbox) = sandbox {
            self.answered(store, &mut sandbox, request, &reply);
        }
        Ok(reply)
    }

    fn check_payload(&self, store: &Locked, request: &PersistRequest) -> Reply<()> {
        if request.payload.len() > 512 * 1024 {
            return Err(self.broken(store, "the payload is over 512 KiB"));
        }
        match serde_json::from_str::<Value>(&request.payload) {
            Ok(Value::Object(_)) => Ok(()),
            Ok(_) | Err(_) => Err(self.broken(store, "the payload is no JSON object")),
        }
    }

    fn check_persist(
        &self,
        store: &Locked,
        sandbox: &Sandbox,
        request: &PersistRequest,
    ) -> Reply<()> {
        if sandbox.session_id != request.session_id {
            return Err(self.broken(store, "persist for another session than the sandbox's"));
        }
        match &request.snapshot {
            None if !sandbox.lost && !sandbox.loss_allowed => {
                return Err(self.broken(store, "persist without the workspace, which is there"));
            }
            Some(given) if sandbox.staged.get(&request.generation) != Some(given) => {
                return Err(self.broken(store, "persist of a snapshot that was not staged so"));
            }
            None | Some(_) => {}
        }
        let other = store.objects().into_iter().any(|object| {
            object.sandbox_id == sandbox.id
                && object.generation == request.generation
                && object.payload != request.payload
        });
        if other {
            return Err(self.broken(store, "one generation was persisted with two payloads"));
        }
        Ok(())
    }

    pub(super) fn read_object(
        &self,
        store: &Locked,
        extent: Extent,
        request: &ReadObjectRequest,
    ) -> Reply<ReadObjectReply> {
        let mut object = readable(store, &request.durable_object_id)?;
        match extent {
            Extent::Half => return Err(half_done()),
            Extent::Whole if !object.read_back => {
                object.read_back = true;
                store.keep_object(&object);
            }
            Extent::Whole | Extent::Unseen | Extent::Lie => {}
        }
        Ok(ReadObjectReply {
            payload: object.payload,
            snapshot: object.snapshot.map(|snapshot| ReadSnapshot {
                digest: snapshot.digest,
                size: snapshot.size,
            }),
        })
    }
}

/// An object whose every byte is what was written.
pub(super) fn readable(store: &Locked, id: &str) -> Reply<Object> {
    let Some(object) = store.object(id) else {
        if store.has_object(id) {
            let text = format!("the record of object `{id}` is not what was written");
            return Err(ProviderError::new(ErrorKind::Corrupt, text));
        }
        let text = format!("object `{id}` is not there");
        return Err(ProviderError::new(ErrorKind::NotFound, text));
    };
    if !store.is_intact(&object) {
        let text = format!("object `{id}` is not what was written");
        return Err(ProviderError::new(ErrorKind::Corrupt, text));
    }
    Ok(object)
}

/// Whether the workspace was written after `sync_repo` or `restore` had left it whole.
pub(super) fn is_changed(store: &Locked, sandbox: &Sandbox) -> bool {
    let now = store
        .tree(&sandbox.id)
        .map(|files| tree::digest(&tree::encode(&files)));
    sandbox.clean.is_some() && sandbox.clean != now
}
