//! Looks at sandboxes and changes nothing.

use crate::pipe::PIECE;
use crate::provider::Adapted;
use crate::record::{Intent, Record};
use crate::run::blocking;
use crate::sandboxes::Sandboxes;
use alpine_files::{self as file, io_error};
use alpine_provider_api::*;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

/// Writes a file that was not there, and removes it again.
const WRITE: &str = r#"
name=.alpine-probe-$$
(set -C; echo probe > "$name") && rm "$name"
"#;

impl<S: Sandboxes> Adapted<S> {
    /// How a sandbox is; with `probe`, how its workspace is too, while it runs.
    pub(crate) async fn look(
        &self,
        call: &Call,
        request: InspectRequest,
    ) -> Result<InspectReply, ProviderError> {
        let id = &request.sandbox_id;
        let record = self.records.of(id);
        let state = if self.records.is_destroyed(id)? {
            SandboxState::Missing
        } else if file::is_dir(&record.dir)? {
            self.state(&record).await?
        } else {
            SandboxState::Unknown
        };
        let probe = match state {
            SandboxState::Running if request.probe => Some(ProbeReply {
                // What can't be read as a HEAD is none.
                head: self.head(call, id).await.unwrap_or_default(),
                writable: self.ask(call, id, WRITE, &[]).await.is_ok(),
                agent_ready: self.agent_ready(&record).await?,
            }),
            SandboxState::Exited if request.probe => Some(ProbeReply {
                head: None,
                writable: false,
                agent_ready: None,
            }),
            SandboxState::Running
            | SandboxState::Exited
            | SandboxState::Missing
            | SandboxState::Unknown => None,
        };
        Ok(InspectReply {
            state,
            probe,
            // A command in the sandbox would have to be run to know.
            agent_ended: None,
        })
    }

    /// The sandboxes that bear the ledger's id: those that are there, and those that were only begun.
    pub(crate) async fn all_of(&self, ledger_id: &str) -> Result<ListReply, ProviderError> {
        let there = self.sandboxes.list(ledger_id).await?;
        let mut all: BTreeMap<_, _> = there
            .into_iter()
            .map(|one| (one.sandbox_id.clone(), one))
            .collect();
        for record in self.recorded()? {
            // A damaged record belongs to nobody: it must not hide the other sandboxes.
            let intent: Option<Intent> = file::read_json(&record.intent()).unwrap_or_default();
            let Some(intent) = intent.filter(|it| it.request.ledger_id == ledger_id) else {
                continue;
            };
            if let Entry::Vacant(only_begun) = all.entry(record.id.clone()) {
                only_begun.insert(ListedSandbox {
                    sandbox_id: record.id.clone(),
                    session_id: intent.request.session_id,
                    state: self.state(&record).await.unwrap_or(SandboxState::Unknown),
                });
            }
        }
        let sandboxes = all.into_values().collect();
        Ok(ListReply { sandboxes })
    }

    fn recorded(&self) -> Result<Vec<Record>, ProviderError> {
        let root = self.records.root();
        let entries = match std::fs::read_dir(root) {
            Ok(entries) => entries,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(io_error(root, &source)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| io_error(root, &source))?;
            all.extend(entry.file_name().to_str().and_then(SandboxId::new));
        }
        Ok(all.iter().map(|id| self.records.of(id)).collect())
    }

    /// Sends a log, and goes on with it while the sandbox runs, if that is asked for.
    pub(crate) async fn tell(
        &self,
        call: &Call,
        request: LogsRequest,
    ) -> Result<LogsReply, ProviderError> {
        let record = self.records.there(&request.sandbox_id)?;
        let path = match request.log {
            LogName::Install => record.log(),
            LogName::Agent if self.state(&record).await? == SandboxState::Running => {
                self.agent_log(call, &request).await?;
                return Ok(LogsReply {});
            }
            LogName::Agent => record.agent_log(),
        };
        let mut from = 0;
        loop {
            let runs = request.follow && self.state(&record).await? == SandboxState::Running;
            from = send(call, &path, from).await?;
            if !runs {
                return Ok(LogsReply {});
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Sends what a log holds from a place on; gives where it ends. One that is shorter was begun anew.
async fn send(call: &Call, path: &Path, from: u64) -> Result<u64, ProviderError> {
    let mut at = from;
    loop {
        let path = path.to_owned();
        let piece = blocking(move || read(&path, at).map_err(|source| io_error(&path, &source)));
        let (begin, piece) = piece.await?;
        if piece.is_empty() {
            return Ok(begin);
        }
        at = begin + piece.len() as u64;
        call.send(CallEvent::Stdout(piece)).await?;
    }
}

fn read(path: &Path, from: u64) -> std::io::Result<(u64, Vec<u8>)> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok((0, Vec::new())),
        Err(source) => return Err(source),
    };
    let size = file.metadata()?.len();
    let from = if size < from { 0 } else { from };
    file.seek(SeekFrom::Start(from))?;
    let mut piece = Vec::new();
    file.take(PIECE as u64).read_to_end(&mut piece)?;
    Ok((from, piece))
}

/// The last lines of a log.
pub(crate) fn tail(path: &Path, lines: usize) -> Vec<String> {
    let size = path.metadata().map_or(0, |meta| meta.len());
    let text = read(path, size.saturating_sub(PIECE as u64)).map_or(Vec::new(), |(_, text)| text);
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let last = all.len().saturating_sub(lines);
    all[last..].iter().map(|line| (*line).to_owned()).collect()
}
