//! Runs a command in a container, with its streams apart.

use crate::containers::{Containers, WORKSPACE};
use alpine_provider_api::*;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::sync::mpsc;

/// The variable by which the processes of a command are found.
const MARKER: &str = "ALPINE_COMMAND";
/// How large a piece of output may be.
const PIECE: usize = 64 * 1024;
/// How much of the complaints tells why a command did not start.
const COMPLAINT: usize = 4096;

/// Signals the processes of a command: the group of the one that nobody in the container has started; what ends it ends those
/// that have left the group, too. A process whose variables can't be read at this moment, since it executes a program, is looked at again.
const SIGNAL: &str = r#"
variables() { tr '\0' '\n' <"$process/environ"; } 2>/dev/null
executes() {
    readlink "$process/exe" && read -r stat <"$process/stat" && set -- ${stat##*")"} &&
        { [ "${25}" = 0 ] || [ "${48}" != "${49}" ]; }
} >/dev/null 2>&1
for process in /proc/[0-9]*; do
    while all=$(variables); [ -z "$all" ] && executes; do :; done
    if echo "$all" | grep -qx "ALPINE_COMMAND=$1"; then
        parent=$(sed -n 's/^PPid:[[:space:]]*//p' "$process/status" 2>/dev/null)
        if [ "$parent" = 0 ]; then kill "-$2" "-${process#/proc/}" || kill "-$2" "${process#/proc/}"; fi
        if [ "$2" = 9 ]; then kill -9 "${process#/proc/}"; fi
    fi
done
"#;

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// A command that is ended when nobody waits for it any more.
struct Alive<'a> {
    containers: &'a Containers,
    id: &'a SandboxId,
    key: String,
    ended: bool,
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if !self.ended
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (containers, id) = (self.containers.clone(), self.id.clone());
            let key = self.key.clone();
            // On a thread, which a provider that is closed at this moment waits for. What this does not reach ends with the
            // sandbox.
            runtime.spawn_blocking(move || {
                let own = Builder::new_current_thread().enable_all().build();
                own.is_ok_and(|own| own.block_on(containers.signal(&id, &key, 9)).is_ok())
            });
        }
    }
}

impl Containers {
    /// Runs a command in the workspace and passes its streams on until it ends.
    pub(crate) async fn run(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError> {
        let id = &request.sandbox_id;
        let key = getrandom::u64().map_err(|error| {
            ProviderError::new(ErrorKind::Io, format!("no random number: {error}"))
        })?;
        let mut alive = Alive {
            containers: self,
            id,
            key: format!("{key:016x}"),
            ended: false,
        };
        let mut env: Vec<String> = request
            .env
            .iter()
            .map(|(name, value)| format!("{name}={}", value.expose()))
            .collect();
        env.push(format!("{MARKER}={}", alive.key));
        let program = request.argv.first().cloned().unwrap_or_default();
        let exec = self.prepare(id, request.argv.clone(), env).await?;
        let (output, stdin) = self.start(&exec).await?;
        let mut complaint = Vec::new();
        tokio::select! {
            passed = pass(call, output, &mut complaint) => passed.map_err(|error| match error {
                Passing::Engine(error) => self.failed(&error),
                Passing::Caller(error) => error,
            })?,
            never = self.feed(id, &alive.key, stdin, input) => match never {},
        }
        let code = self.code(&exec).await?;
        alive.ended = true;
        let complaint = String::from_utf8_lossy(&complaint);
        match code {
            126 | 127 if complaint.contains("OCI ") => {
                let message = format!("`{program}` can't be run in sandbox `{id}`");
                Err(ProviderError::new(ErrorKind::InvalidArgument, message))
            }
            // An engine tells the end by a signal as a shell does.
            129..=192 => Ok(ExecReply::Signalled(code - 128)),
            code => Ok(ExecReply::Exited(code)),
        }
    }

    async fn prepare(
        &self,
        id: &SandboxId,
        argv: Vec<String>,
        env: Vec<String>,
    ) -> Result<String, ProviderError> {
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: Some(env),
            cmd: Some(argv),
            working_dir: Some(WORKSPACE.to_owned()),
            ..CreateExecOptions::default()
        };
        let engine = self.engine()?;
        match engine.create_exec(&Self::name(id), options).await {
            Ok(made) => Ok(made.id),
            Err(error) => match self.state(id).await? {
                SandboxState::Running => Err(self.failed(&error)),
                SandboxState::Exited | SandboxState::Missing | SandboxState::Unknown => {
                    let message = format!("sandbox `{id}` does not run");
                    Err(ProviderError::new(ErrorKind::NotFound, message))
                }
            },
        }
    }

    async fn start(&self, exec: &str) -> Result<(Output, Input), ProviderError> {
        let options = StartExecOptions {
            output_capacity: Some(PIECE),
            ..StartExecOptions::default()
        };
        match self.engine()?.start_exec(exec, Some(options)).await {
            Ok(StartExecResults::Attached { output, input }) => Ok((output, input)),
            Ok(StartExecResults::Detached) => Err(ProviderError::new(
                ErrorKind::Internal,
                "a command was started that nobody listens to",
            )),
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 400,
                message,
            }) => Err(ProviderError::new(ErrorKind::InvalidArgument, message)),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Its exit code. The engine may take a moment to note it after the streams have ended.
    async fn code(&self, exec: &str) -> Result<i32, ProviderError> {
        let engine = self.engine()?;
        loop {
            let found = engine.inspect_exec(exec).await;
            let found = found.map_err(|error| self.failed(&error))?;
            match (found.running, found.exit_code) {
                (Some(false) | None, Some(code)) => return Ok(i32::try_from(code).unwrap_or(255)),
                (Some(true), _) | (_, None) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Passes input and signals on for as long as it is asked to. A signal does not wait behind input.
    async fn feed(
        &self,
        id: &SandboxId,
        key: &str,
        stdin: Input,
        mut input: mpsc::Receiver<ExecInput>,
    ) -> std::convert::Infallible {
        let (to, pieces) = mpsc::channel(16);
        let mut to = Some(to);
        let asked = async {
            while let Some(item) = input.recv().await {
                match (item, &to) {
                    (ExecInput::Data(piece), Some(open)) => drop(open.send(piece).await),
                    (ExecInput::Data(_), None) => {}
                    (ExecInput::Eof, _) => to = None,
                    (ExecInput::Signal(number), _) => drop(self.signal(id, key, number).await),
                }
            }
            drop(to);
        };
        tokio::join!(asked, write(stdin, pieces));
        std::future::pending().await
    }

    async fn signal(&self, id: &SandboxId, key: &str, number: i32) -> Result<(), ProviderError> {
        let number = number.to_string();
        let argv = ["sh", "-c", SIGNAL, "alpine", key, &number].map(str::to_owned);
        self.quietly(id, argv.to_vec()).await.map(drop)
    }

    /// Runs a small command of the provider's own; gives its exit code.
    pub(crate) async fn quietly(
        &self,
        id: &SandboxId,
        argv: Vec<String>,
    ) -> Result<i32, ProviderError> {
        let exec = self.prepare(id, argv, Vec::new()).await?;
        let (mut output, mut stdin) = self.start(&exec).await?;
        // It takes no input; that it has ended already is fine.
        let _ = stdin.shutdown().await;
        while output.next().await.is_some() {}
        self.code(&exec).await
    }
}

async fn write(mut stdin: Input, mut pieces: mpsc::Receiver<Vec<u8>>) {
    while let Some(piece) = pieces.recv().await {
        if stdin.write_all(&piece).await.is_err() || stdin.flush().await.is_err() {
            // It reads no more: what else comes is dropped, as a shell does.
            break;
        }
    }
    let _ = stdin.shutdown().await;
    // Until the command has ended, the connection stays: it is the way of the output too.
    while pieces.recv().await.is_some() {}
    std::future::pending::<()>().await;
}

enum Passing {
    Engine(bollard::errors::Error),
    Caller(ProviderError),
}

async fn pass(call: &Call, mut output: Output, complaint: &mut Vec<u8>) -> Result<(), Passing> {
    while let Some(said) = output.next().await {
        let event = match said.map_err(Passing::Engine)? {
            LogOutput::StdErr { message } => {
                let room = COMPLAINT.saturating_sub(complaint.len());
                complaint.extend_from_slice(&message[..message.len().min(room)]);
                CallEvent::Stderr(message.to_vec())
            }
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                CallEvent::Stdout(message.to_vec())
            }
            LogOutput::StdIn { .. } => continue,
        };
        call.send(event).await.map_err(Passing::Caller)?;
    }
    Ok(())
}
