//! Serves the repository over HTTP on loopback to who bears a token, so that a credential has something to open.

use crate::called::{Checking, broken};
use crate::http::base64;
use alpine_provider_api::RepoUrl;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The most that a client of git sends here.
const LARGEST: usize = 1 << 20;

/// A server that ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// The repository's address.
    pub(crate) repo: RepoUrl,
    /// The host, with its port.
    pub(crate) host: String,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    /// Serves the repository at this path to who bears the token, whatever the user's name.
    pub(crate) async fn start(repository: &Path, token: &str) -> Checking<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.or_else(failed)?;
        let host = listener.local_addr().or_else(failed)?.to_string();
        let url = format!("http://{host}/repository");
        let repo = RepoUrl::parse(&url, Path::new("/"));
        let repo = repo.or_else(|error| broken("the kit's address is one", error.to_string()))?;
        let backend = Arc::new(Backend {
            repository: repository.to_owned(),
            // Git sends the token as the password of a name that is its own choice.
            accepted: ["x-access-token", "token", "git", "oauth2", ""]
                .map(|user| format!("Basic {}", base64(format!("{user}:{token}").as_bytes())))
                .to_vec(),
        });
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let backend = Arc::clone(&backend);
                // A client that has gone needs no answer.
                tokio::spawn(async move { backend.answer(stream).await.ok() });
            }
        });
        Ok(Self {
            repo,
            host,
            serving,
        })
    }
}

fn failed<T>(error: io::Error) -> Checking<T> {
    broken("the kit serves on loopback", error.to_string())
}

#[derive(Debug)]
struct Backend {
    repository: PathBuf,
    accepted: Vec<String>,
}

#[derive(Debug, Default)]
struct Asked {
    method: String,
    target: String,
    authorization: String,
    content_type: String,
    content_encoding: String,
    protocol: String,
    body: Vec<u8>,
}

impl Backend {
    async fn answer(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let asked = read(&mut stream).await?;
        let answer = match self.accepted.contains(&asked.authorization) {
            true => self.backend(&asked).await?,
            false => b"Status: 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"kit\"\r\n\r\n"
                .to_vec(),
        };
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n");
        let (head, body) = answer.split_at(end.map_or(0, |end| end + 4));
        let head = String::from_utf8_lossy(head);
        let status = head.lines().find_map(|line| line.strip_prefix("Status: "));
        let fields: String = head
            .lines()
            .filter(|line| line.contains(": ") && !line.starts_with("Status: "))
            .map(|line| format!("{line}\r\n"))
            .collect();
        let head = format!(
            "HTTP/1.1 {}\r\n{fields}content-length: {}\r\nconnection: close\r\n\r\n",
            status.unwrap_or("200 OK"),
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        stream.shutdown().await
    }

    /// Asks git's own CGI program.
    async fn backend(&self, asked: &Asked) -> io::Result<Vec<u8>> {
        let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        let rest = path.strip_prefix("/repository").unwrap_or_default();
        let mut child = tokio::process::Command::new("git")
            .arg("http-backend")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .env("GIT_PROJECT_ROOT", self.repository.join(".git"))
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_PROTOCOL", &asked.protocol)
            .env("REQUEST_METHOD", &asked.method)
            .env("PATH_INFO", rest)
            .env("QUERY_STRING", query)
            .env("CONTENT_TYPE", &asked.content_type)
            .env("CONTENT_LENGTH", asked.body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", &asked.content_encoding)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(&asked.body).await?;
        }
        Ok(child.wait_with_output().await?.stdout)
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Asked> {
    let mut asked = Asked::default();
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let mut words = line.split(' ');
    asked.method = words.next().unwrap_or_default().to_owned();
    asked.target = words.next().unwrap_or_default().to_owned();
    let mut length = 0;
    let mut chunked = false;
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => asked.authorization = value.to_owned(),
            "content-type" => asked.content_type = value.to_owned(),
            "content-encoding" => asked.content_encoding = value.to_owned(),
            "git-protocol" => asked.protocol = value.to_owned(),
            "content-length" => length = value.parse().unwrap_or(0),
            "transfer-encoding" => chunked = true,
            _ => {}
        }
    }
    if chunked || length > LARGEST {
        return Err(io::Error::other("more than a client sends here"));
    }
    asked.body.resize(length, 0);
    stream.read_exact(&mut asked.body).await?;
    Ok(asked)
}
