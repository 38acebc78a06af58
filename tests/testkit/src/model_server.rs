//! A model for the agent, without a model: an OpenAI-compatible server that makes the agent write one file.
//!
//! A scripted run of OpenCode 1.18.33, which needs no network beyond loopback:
//!
//! 1. `opencode serve --port N --hostname 127.0.0.1`, in the repository, with `OPENCODE_CONFIG_CONTENT` set to
//!    [`ModelServer::opencode_config`] and with `OPENCODE_DISABLE_MODELS_FETCH=1`, `OPENCODE_DISABLE_AUTOUPDATE=1`,
//!    `OPENCODE_SERVER_PASSWORD=…`. Every route then wants HTTP Basic; the user is `opencode`, or what
//!    `OPENCODE_SERVER_USERNAME` says.
//! 2. It writes `opencode server listening on http://127.0.0.1:N` to standard output; then `GET /global/health` answers
//!    `{"healthy":true,"version":"1.18.33"}`. A port that is taken ends it with status 1.
//! 3. `POST /session` with `{}` answers a session with its `id`; `POST /session/{id}/message` with
//!    `{"parts":[{"type":"text","text":"…"}]}` answers when the agent is done. `write` and `bash` ask for no permission.
//! 4. `GET /session` is the array of sessions, `GET /session/{id}/message` one transcript;
//!    `POST /session/{id}/abort` and `POST /global/dispose` answer `true`. The process stays until `SIGTERM`.

use crate::http::{Request, respond};
use crate::listener::Listener;
use serde_json::{Value, json};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Answers `POST /v1/chat/completions` with a stream: first a call of a tool, then a closing word.
#[derive(Debug)]
pub struct ModelServer {
    listener: Listener,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl ModelServer {
    /// Makes the agent write `content` to `file`; a relative path is taken from the agent's working directory.
    #[must_use]
    pub fn writing(file: impl Into<PathBuf>, content: &str) -> Self {
        let requests: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (file, content, seen) = (file.into(), content.to_owned(), Arc::clone(&requests));
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::start(anywhere, move |stream, _| {
            // An agent that has gone needs no answer.
            let _answered = answer(&stream, &file, &content, &seen);
        });
        Self { listener, requests }
    }

    /// The address that an agent's configuration takes.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.listener.address())
    }

    /// What `OPENCODE_CONFIG_CONTENT` has to hold.
    #[must_use]
    pub fn opencode_config(&self) -> String {
        let config = json!({
            "model": "fake/fake",
            "small_model": "fake/fake",
            "provider": {"fake": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "fake",
                "options": {"baseURL": self.base_url(), "apiKey": "fake-key"},
                "models": {"fake": {"name": "fake"}},
            }},
            "permission": {"edit": "allow", "bash": "allow"},
            "share": "disabled",
            "autoupdate": false,
        });
        config.to_string()
    }

    /// Every request that came in.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The pinned OpenCode.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn opencode() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = root.join("target/tools/node_modules/opencode-linux-x64/bin/opencode");
    assert!(
        program.exists(),
        "there is no {}; run tests/setup first",
        program.display()
    );
    program.canonicalize().expect("an absolute path")
}

fn answer(
    stream: &TcpStream,
    file: &Path,
    content: &str,
    seen: &Mutex<Vec<Value>>,
) -> io::Result<()> {
    let Some(request) = Request::read(stream)? else {
        return Ok(());
    };
    let Ok(asked) = serde_json::from_slice::<Value>(&request.body) else {
        return respond(stream, "400 Bad Request", &[], b"no JSON\n");
    };
    let (delta, reason) = next(&asked, file, content);
    seen.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(asked);
    let chunk = |delta: Value, reason: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
        let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "fake", "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let (first, last) = (chunk(delta, Value::Null), chunk(json!({}), reason.into()));
    let body = format!("{first}{last}data: [DONE]\n\n");
    respond(
        stream,
        "200 OK",
        &[("content-type", "text/event-stream")],
        body.as_bytes(),
    )
}

/// What the model says next, and why it stops there.
fn next(asked: &Value, file: &Path, content: &str) -> (Value, &'static str) {
    let has_tool = |name| items(asked, "tools").any(|tool| tool["function"]["name"] == name);
    let has_written = items(asked, "messages").any(|message| message["role"] == "tool");
    let say = |text| (json!({"role": "assistant", "content": text}), "stop");
    let call = |name: &str, arguments: &Value| {
        let function = json!({"name": name, "arguments": arguments.to_string()});
        let call = json!({"index": 0, "id": "call_1", "type": "function", "function": function});
        (
            json!({"role": "assistant", "tool_calls": [call]}),
            "tool_calls",
        )
    };
    if items(asked, "tools").next().is_none() {
        return say("A title");
    }
    if has_written {
        return say("The file is written.");
    }
    match directory(asked).map(|directory| directory.join(file)) {
        Some(path) if has_tool("write") => {
            call("write", &json!({"filePath": path, "content": content}))
        }
        Some(_) | None => {
            let command = format!(
                "printf %s {} > {}",
                quoted(content),
                quoted(&file.to_string_lossy())
            );
            call(
                "bash",
                &json!({"command": command, "description": "write a file"}),
            )
        }
    }
}

fn items<'a>(asked: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    asked[list].as_array().into_iter().flatten()
}

/// The working directory, which the agent tells the model first of all.
fn directory(asked: &Value) -> Option<PathBuf> {
    let told = items(asked, "messages").find_map(|message| message["content"].as_str())?;
    let line = told
        .lines()
        .find_map(|line| line.trim().strip_prefix("Working directory: "))?;
    Some(PathBuf::from(line))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
