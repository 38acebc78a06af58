//! From a method's number to the trait's method.

use crate::message::OnlyRequest;
use alpine_provider_api::{Call, ErrorKind, ExecInput, Method, ProviderError, SandboxProvider};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

/// What was asked.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// Which method.
    pub(super) method: Method,
    /// CALL's payload.
    pub(super) payload: &'a [u8],
    /// What a command is sent.
    pub(super) input: mpsc::Receiver<ExecInput>,
}

/// Asks the provider, and gives its reply as JSON.
#[expect(
    clippy::cognitive_complexity,
    reason = "one line for each method, and nothing else"
)]
pub(super) async fn dispatch(
    to: &dyn SandboxProvider,
    call: &Call,
    asked: Asked<'_>,
) -> Result<Vec<u8>, ProviderError> {
    let with = asked.payload;
    match asked.method {
        Method::Describe => write(to.describe().await),
        Method::Provision => answer(with, |request| to.provision(call, request)).await,
        Method::SyncRepo => answer(with, |request| to.sync_repo(call, request)).await,
        Method::Install => answer(with, |request| to.install(call, request)).await,
        Method::StartAgent => answer(with, |request| to.start_agent(call, request)).await,
        Method::OpenAgent => answer(with, |request| to.open_agent(call, request)).await,
        Method::Inspect => answer(with, |request| to.inspect(call, request)).await,
        Method::List => answer(with, |request| to.list(call, request)).await,
        Method::Exec => answer(with, |request| to.exec(call, request, asked.input)).await,
        Method::Logs => answer(with, |request| to.logs(call, request)).await,
        Method::Stop => answer(with, |request| to.stop(call, request)).await,
        Method::Capture => answer(with, |request| to.capture(call, request)).await,
        Method::Persist => answer(with, |request| to.persist(call, request)).await,
        Method::ReadObject => answer(with, |request| to.read_object(call, request)).await,
        Method::Restore => answer(with, |request| to.restore(call, request)).await,
        Method::Destroy => answer(with, |request| to.destroy(call, request)).await,
    }
}

async fn answer<Q, R, F>(with: &[u8], ask: impl FnOnce(Q) -> F) -> Result<Vec<u8>, ProviderError>
where
    Q: DeserializeOwned,
    R: Serialize,
    F: Future<Output = Result<R, ProviderError>>,
{
    write(ask(read(with)?).await)
}

fn read<Q: DeserializeOwned>(payload: &[u8]) -> Result<Q, ProviderError> {
    match serde_json::from_slice::<OnlyRequest<Q>>(payload) {
        Ok(payload) => Ok(payload.request),
        Err(error) => {
            let message = format!("the request is not what the method takes: {error}");
            Err(ProviderError::new(ErrorKind::InvalidArgument, message))
        }
    }
}

fn write<R: Serialize>(reply: Result<R, ProviderError>) -> Result<Vec<u8>, ProviderError> {
    serde_json::to_vec(&reply?).map_err(|error| {
        let message = format!("the reply can't be written as JSON: {error}");
        ProviderError::new(ErrorKind::Internal, message)
    })
}
