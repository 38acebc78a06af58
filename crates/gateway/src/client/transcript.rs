//! The export of an agent's transcripts.

use super::{AgentClient, ClientError};
use alpine_provider_api::{Shutdown, Transcript};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::time::{Duration, Instant};

/// How much all transcripts together may be: they are held in memory until they are written.
const TOTAL_LIMIT: usize = 256 * 1024 * 1024;

/// What an export brought. One transcript that can't be had does not cost the others.
#[derive(Debug, Default)]
pub struct Exported {
    /// Id and JSON of each; the ids are safe as the stem of a file's name.
    pub transcripts: Vec<(String, Vec<u8>)>,
    /// What was left out.
    pub failures: Vec<ClientError>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    id: String,
}

impl AgentClient {
    /// Ends what is running, which may take half of the limit, then exports every transcript. What can't be ended is
    /// exported as it is.
    ///
    /// # Errors
    /// The transcripts can't be listed within the limit.
    pub async fn export_transcript(
        &self,
        transcript: &Transcript,
        shutdown: &Shutdown,
        limit: Duration,
    ) -> Result<Exported, ClientError> {
        let deadline = Instant::now() + limit;
        let left = || deadline.saturating_duration_since(Instant::now());
        if let Some(abort_path) = &shutdown.abort_path {
            self.abort(transcript, abort_path, Instant::now() + limit / 2)
                .await?;
        }
        let mut exported = Exported::default();
        let mut total = 0;
        for listed in self.transcripts(transcript, left()).await? {
            match self
                .transcript(transcript, &listed.id, left(), &mut total)
                .await
            {
                Ok(json) => exported.transcripts.push((listed.id, json)),
                Err(error) => exported.failures.push(error),
            }
        }
        Ok(exported)
    }

    async fn abort(
        &self,
        transcript: &Transcript,
        abort_path: &str,
        deadline: Instant,
    ) -> Result<(), ClientError> {
        let left = || deadline.saturating_duration_since(Instant::now());
        for listed in self.transcripts(transcript, left()).await? {
            if is_safe(&listed.id) {
                let path = abort_path.replace("{id}", &listed.id);
                // What can't be ended is exported all the same.
                let _ = self.post(&path, left()).await;
            }
        }
        Ok(())
    }

    async fn transcripts(
        &self,
        transcript: &Transcript,
        limit: Duration,
    ) -> Result<Vec<Listed>, ClientError> {
        let path = &transcript.list_path;
        let body = self.success(path, limit).await?;
        serde_json::from_slice(&body).map_err(|source| ClientError::Json {
            path: path.clone(),
            source,
        })
    }

    async fn transcript(
        &self,
        transcript: &Transcript,
        id: &str,
        limit: Duration,
        total: &mut usize,
    ) -> Result<Vec<u8>, ClientError> {
        if !is_safe(id) {
            return Err(ClientError::TranscriptId(id.to_owned()));
        }
        let path = transcript.item_path.replace("{id}", id);
        let body = self.success(&path, limit).await?;
        if let Err(source) = serde_json::from_slice::<IgnoredAny>(&body) {
            return Err(ClientError::Json { path, source });
        }
        if body.len() > TOTAL_LIMIT - *total {
            let limit = TOTAL_LIMIT;
            return Err(ClientError::TooMuch { path, limit });
        }
        *total += body.len();
        Ok(body)
    }

    async fn success(&self, path: &str, limit: Duration) -> Result<Vec<u8>, ClientError> {
        let answer = self.get(path, limit).await?;
        if answer.is_success() {
            Ok(answer.body)
        } else {
            Err(ClientError::Status {
                path: path.to_owned(),
                status: answer.status,
            })
        }
    }
}

/// Whether an id, which the sandbox chose, is safe in a path and as a file's name.
fn is_safe(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && !id.starts_with(['.', '-'])
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}
