//! A git server over smart HTTP on loopback, with credentials to ask for and ways to misbehave.

use crate::http::{Request, basic, respond};
use crate::listener::{Listener, Stop};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How the server answers from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GitMode {
    /// As git's own backend does.
    Normal,
    /// 401, whatever the credential.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 500.
    ServerError,
    /// 302 to the same path below this address.
    Redirect(String),
    /// As git's own backend does, after this long. Dropping the server ends the wait.
    Delay(Duration),
    /// Closes the connection without an answer.
    Drop,
}

/// A request that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitRequest {
    /// The path and the query.
    pub path: String,
    /// Whether it bore an `Authorization` header.
    pub had_auth: bool,
}

/// Serves the repositories of a directory at `http://127.0.0.1:PORT/<name>`.
#[derive(Debug)]
pub struct GitServer {
    listener: Listener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    repositories: PathBuf,
    /// The `Authorization` headers that are let in; empty lets everybody in.
    accepted: Vec<String>,
    mode: Mutex<GitMode>,
    requests: Mutex<Vec<GitRequest>>,
}

impl GitServer {
    /// Serves to everybody.
    #[must_use]
    pub fn start(repositories: &Path) -> Self {
        Self::start_for(repositories, &[])
    }

    /// Serves to those who bear one of these user names with its password.
    #[must_use]
    pub fn start_for(repositories: &Path, users: &[(&str, &str)]) -> Self {
        let shared = Arc::new(Shared {
            repositories: repositories.to_owned(),
            accepted: users
                .iter()
                .map(|(user, password)| basic(user, password))
                .collect(),
            mode: Mutex::new(GitMode::Normal),
            requests: Mutex::new(Vec::new()),
        });
        let serving = Arc::clone(&shared);
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::start(anywhere, move |stream, stop| {
            // A client that has gone needs no answer.
            let _answered = serving.answer(&stream, stop);
            let _already_closed = stream.shutdown(Shutdown::Both);
        });
        Self { listener, shared }
    }

    /// The server's own address.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.listener.address().port()
    }

    /// The address of the repository in the folder `name`.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.base_url())
    }

    /// Answers like this from the next request on.
    pub fn set(&self, mode: GitMode) {
        *self
            .shared
            .mode
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// Every request that came in.
    #[must_use]
    pub fn requests(&self) -> Vec<GitRequest> {
        let requests = self.shared.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn answer(&self, stream: &TcpStream, stop: &Stop) -> io::Result<()> {
        let Some(request) = Request::read(stream)? else {
            return Ok(());
        };
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(GitRequest {
                path: request.target.clone(),
                had_auth: request.header("authorization").is_some(),
            });
        let mode = self
            .mode
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let ask = ("www-authenticate", "Basic realm=\"git\"");
        match mode {
            GitMode::Unauthorized => respond(stream, "401 Unauthorized", &[ask], b"refused\n"),
            GitMode::Forbidden => respond(stream, "403 Forbidden", &[], b"forbidden\n"),
            GitMode::NotFound => respond(stream, "404 Not Found", &[], b"not found\n"),
            GitMode::ServerError => respond(stream, "500 Internal Server Error", &[], b"failed\n"),
            GitMode::Redirect(to) => {
                let to = format!("{to}{}", request.target);
                respond(stream, "302 Found", &[("location", &to)], b"")
            }
            GitMode::Drop => Ok(()),
            GitMode::Delay(span) if !stop.wait(span) => Ok(()),
            GitMode::Normal | GitMode::Delay(_) => {
                let given = request.header("authorization");
                let is_let_in = self.accepted.is_empty()
                    || given.is_some_and(|given| self.accepted.iter().any(|known| known == given));
                if is_let_in {
                    self.run_backend(stream, &request)
                } else {
                    respond(stream, "401 Unauthorized", &[ask], b"who are you?\n")
                }
            }
        }
    }

    /// Runs git's CGI program and passes its answer on.
    fn run_backend(&self, stream: &TcpStream, request: &Request) -> io::Result<()> {
        let (path, query) = request
            .target
            .split_once('?')
            .unwrap_or((&request.target, ""));
        let mut backend = Command::new("git");
        backend
            .arg("http-backend")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .env("GIT_PROJECT_ROOT", &self.repositories)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("REQUEST_METHOD", &request.method)
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("CONTENT_LENGTH", request.body.len().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if request.header("authorization").is_some() {
            // Git's own backend takes a push from a user that it knows only.
            backend.env("REMOTE_USER", "user");
        }
        for (header, variable) in [
            ("content-type", "CONTENT_TYPE"),
            ("content-encoding", "HTTP_CONTENT_ENCODING"),
            ("git-protocol", "GIT_PROTOCOL"),
        ] {
            if let Some(value) = request.header(header) {
                backend.env(variable, value);
            }
        }
        let mut child = backend.spawn()?;
        let mut input = child.stdin.take().expect("a pipe");
        let output = thread::scope(|scope| {
            scope.spawn(move || {
                // A backend that wants no more of the body has closed its end.
                let _written = input.write_all(&request.body);
            });
            child.wait_with_output()
        })?;
        let (head, body) = split_cgi(&output.stdout);
        let fields = head.lines().filter_map(|line| line.split_once(": "));
        let (status, headers): (Vec<_>, Vec<_>) =
            fields.partition(|(name, _)| name.eq_ignore_ascii_case("status"));
        let status = status.first().map_or("200 OK", |(_, status)| status);
        respond(stream, status, &headers, body)
    }
}

fn split_cgi(output: &[u8]) -> (String, &[u8]) {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = output.split_at(end.map_or(0, |end| end + 4));
    (String::from_utf8_lossy(head).into_owned(), body)
}
