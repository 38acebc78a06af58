//! Runs the agent's server in the sandbox, by scripts: it outlives every call, and its files go with the sandbox.

use crate::agent::unserved;
use crate::agent_log::KEEP;
use crate::provider::Adapted;
use crate::run::{Sink, script_of};
use crate::sandboxes::{Network, Sandboxes};
use alpine_gateway::client::{AgentClient, ClientError};
use alpine_gateway::free_port;
use alpine_provider_api::*;
use alpine_provider_local::Address;
use std::collections::BTreeMap;
use std::time::Instant;
use tokio::sync::mpsc;

/// Where the agent's files are, and whether its process lives: the beginning of the scripts, whose first argument is the
/// sandbox's id. A process is known by its number and by when and in which boot it began, which stay while it executes one
/// program after the other, and which no later process of the same number has. The directory for temporary files is the
/// provider's to choose, and goes with the sandbox.
pub(crate) const HEAD: &str = r#"
id=$1; shift
base=${TMPDIR:-/tmp}
dir=$base/alpine-$id
began='{
    read -r stat <"/proc/$1/stat" && set -- ${stat##*")"} && [ "$1" != Z ] && [ "$1" != X ] &&
        echo "${20} $(cat /proc/sys/kernel/random/boot_id)"
} 2>/dev/null'
lives() {
    { read -r pid begin <"$dir/pid"; } 2>/dev/null && [ "$(set -- "$pid"; eval "$began")" = "$begin" ] && [ -n "$begin" ]
}
log() { cat "$dir/log.1" "$dir/log" 2>/dev/null; }
"#;
/// Makes the directories that are named, ends a server that is of no use any more, and says where they are.
const PREPARE: &str = r#"
umask 077
mkdir -p "$base"
[ -d "$dir" ] || mkdir "$dir" || exit 1
if [ -L "$dir" ] || ! [ -O "$dir" ]; then echo "$dir is somebody else's" >&2; exit 1; fi
if lives; then kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid"; fi
rm -f "$dir/pid" "$dir/log" "$dir/log.1"
cd "$dir" && mkdir -p tmp "$@" && pwd
"#;
/// Starts the server in a session of its own, and what keeps its log in another, and goes when the server is there. The
/// keeper ends when all have closed the log, and not before: a server that is asked to end may say why it did.
const START: &str = r#"
export TMPDIR="$dir/tmp"
run='echo "$$ $(set -- "$$"; '"$began"')" >"$0/pid"; exec "$@"'
alone() { if command -v setsid >/dev/null; then exec setsid "$@"; else exec "$@"; fi; }
alone sh -c "$run" "$dir" "$@" </dev/null 2>&1 | alone sh -c "$keep" "$dir" >/dev/null 2>&1 &
while kill -0 "$!" 2>/dev/null && ! [ -s "$dir/pid" ]; do sleep 0.1; done
"#;
pub(crate) const LIVES: &str = "lives && echo yes; :";
/// Waits for a line in its log.
const SAYS: &str = r#"until log | grep -qF -e "$1"; do sleep 0.1; done"#;
/// Waits for its end.
const ENDS: &str = "while lives; do sleep 0.2; done";
/// The last lines of its log. Those of a server that has ended may be on their way to it, for a moment.
const LAST_WORDS: &str = r#"
left=20
while ! lives && [ "$left" -gt 0 ] && kill -0 "$(cat "$dir/keeper")" 2>/dev/null; do
    left=$((left - 1)); sleep 0.1
done
log | tail -n 20 | tail -c 16384
"#;

impl<S: Sandboxes> Adapted<S> {
    /// The port that the server is to listen on, and the one on this machine that leads to it.
    pub(crate) async fn ports(&self, id: &SandboxId) -> Result<(u16, u16), ProviderError> {
        match self.sandboxes.facts().network {
            Network::Closed => Err(unserved("its sandboxes' network is closed")),
            Network::Shared => {
                let port = free_port().map_err(|source| ProviderError::io("a port", &source))?;
                Ok((port, port))
            }
            Network::Published(port) => match self.sandboxes.published(id, port).await? {
                Some(here) => Ok((port, here)),
                None => {
                    let message = format!("port {port} of sandbox `{id}` is not published");
                    Err(ProviderError::new(ErrorKind::Io, message))
                }
            },
        }
    }

    pub(crate) async fn launch(
        &self,
        call: &Call,
        request: &StartAgentRequest,
        server: &Server,
        port: u16,
        address: &Address,
    ) -> Result<(), ProviderError> {
        let id = &request.sandbox_id;
        let directories = Server::DIRECTORIES.map(|(_, name)| name);
        let home = self.agent(call, id, PREPARE, &directories).await?;
        let home = String::from_utf8_lossy(&home).trim_end().to_owned();
        let host = match self.sandboxes.facts().network {
            Network::Published(_) => "0.0.0.0",
            Network::Shared | Network::Closed => "127.0.0.1",
        };
        let port = port.to_string();
        let argv = server.argv.iter();
        let argv = argv.map(|word| word.replace("{port}", &port).replace("{host}", host));
        let env = environment(server, &request.env, &home, &port, address);
        let mut request = script_of(id, &format!("{HEAD}{KEEP}{START}"), &[id.as_str()]);
        request.argv.extend(argv);
        request.env = env;
        let (_, no_input) = mpsc::channel(1);
        let mut sink = Sink::Kept(Vec::new());
        self.run(call, request, no_input, &mut sink)
            .await?
            .success(id)
            .map(drop)
    }

    pub(crate) async fn await_ready(
        &self,
        call: &Call,
        request: &StartAgentRequest,
        server: &Server,
        client: &AgentClient,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        let id = &request.sandbox_id;
        let ready = async {
            if let Some(line) = server
                .ready
                .log_line
                .as_deref()
                .filter(|line| !line.is_empty())
            {
                self.agent(call, id, SAYS, &[line]).await?;
            }
            Ok(client.ready(&server.ready, deadline, || true).await)
        };
        let ended = self.agent(call, id, ENDS, &[]);
        let outcome = tokio::select! {
            ready = tokio::time::timeout_at(deadline.into(), ready) => match ready {
                Ok(ready) => ready?,
                Err(_) => Err(ClientError::NotReady { path: server.ready.path.clone(), source: None }),
            },
            ended = ended => ended.and(Ok(Err(ClientError::Exited)))?,
        };
        let Err(source) = outcome else { return Ok(()) };
        let tail = self
            .agent(call, id, LAST_WORDS, &[])
            .await
            .unwrap_or_default();
        let tail = String::from_utf8_lossy(&tail).into_owned();
        let tail = tail.lines().map(str::to_owned).collect();
        // The shell that could say how it ended is not its parent.
        Err(source.not_ready(&request.agent.name, server, None, tail))
    }

    /// Runs a script that begins with [`HEAD`].
    pub(crate) async fn agent(
        &self,
        call: &Call,
        id: &SandboxId,
        script: &str,
        arguments: &[&str],
    ) -> Result<Vec<u8>, ProviderError> {
        let arguments: Vec<_> = [id.as_str()].iter().chain(arguments).copied().collect();
        self.ask(call, id, &format!("{HEAD}{script}"), &arguments)
            .await
    }
}

/// All variables of the server: its own directories, its own, the user's, and what only the session knows.
fn environment(
    server: &Server,
    more: &BTreeMap<String, Secret<String>>,
    home: &str,
    port: &str,
    address: &Address,
) -> BTreeMap<String, Secret<String>> {
    let own = Server::DIRECTORIES.map(|(name, path)| (name.to_owned(), format!("{home}/{path}")));
    let fixed = server
        .env
        .clone()
        .into_iter()
        .chain(server.port_env.clone().map(|name| (name, port.to_owned())));
    let mut env: BTreeMap<_, _> = own
        .into_iter()
        .chain(fixed)
        .map(|(name, value)| (name, Secret::new(value)))
        .collect();
    env.extend(more.clone());
    // The scripts find the agent's files by it, and set another one for the agent.
    env.remove("TMPDIR");
    if let Some(auth) = &server.auth {
        env.insert(auth.password_env.clone(), address.password.clone());
    }
    env
}

/// The error without what its log's last lines may tell.
pub(crate) fn without_secrets(
    mut error: ProviderError,
    request: &StartAgentRequest,
    address: &Address,
) -> ProviderError {
    let redactor = Redactor::new(request.env.values().chain([&address.password]));
    error.message = redactor.redact(&error.message);
    for line in &mut error.log_tail {
        *line = redactor.redact(line);
    }
    error
}
