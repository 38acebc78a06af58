//! Commands that go wrong, or say what they see.

use alpine_provider_api::{Call, CallEvent, ErrorKind, ExecInput, ExecReply, ProviderError};
use tokio::sync::mpsc;

const CHUNK: usize = 64 * 1024;

/// `nothing`, `panic`, `abort`, `exit N`, `kill N`, `segfault`, `block`, `hang`, `print TEXT`, `log TEXT`, `flood`, `stream MIB`,
/// `swallow`, `env`, `trace`, `descriptors`, `large`, `fail TEXT`.
pub(crate) async fn run(
    call: &Call,
    words: &[String],
    mut input: mpsc::Receiver<ExecInput>,
) -> Result<ExecReply, ProviderError> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["nothing"] => {}
        ["panic"] => panic!("as it was asked to"),
        ["abort"] => std::process::abort(),
        ["exit", status] => std::process::exit(status.parse().unwrap_or(1)),
        ["kill", signal] => kill(signal),
        ["segfault"] => segfault(),
        ["block"] => loop {
            std::thread::park();
        },
        ["hang"] => std::future::pending().await,
        ["print", text] => {
            println!("{text}");
            eprintln!("{text}");
        }
        ["log", text] => tracing::warn!(number = 7, "{text}"),
        ["flood"] => flood(call),
        ["stream", mib] => stream(call, mib.parse().unwrap_or(1)).await?,
        ["swallow"] => return swallow(call, &mut input).await,
        ["env"] => {
            let all = std::env::vars().map(|(name, value)| format!("{name}={value}\n"));
            let all = all.collect();
            out(call, all).await?;
        }
        ["trace"] => out(call, call.meta.traceparent.clone().unwrap_or_default()).await?,
        ["descriptors"] => descriptors(call).await?,
        ["large"] => return Err(ProviderError::new(ErrorKind::Io, "x".repeat(4 << 20))),
        ["fail", text] => return Err(ProviderError::new(ErrorKind::NoSpace, *text).hint(*text)),
        _ => return Err(ProviderError::new(ErrorKind::InvalidArgument, "not odd")),
    }
    Ok(ExecReply::Exited(0))
}

async fn out(call: &Call, text: String) -> Result<(), ProviderError> {
    call.send(CallEvent::Stdout(text.into_bytes())).await
}

fn kill(signal: &str) {
    let signal = signal.parse().ok();
    if let Some(signal) = signal.and_then(rustix::process::Signal::from_named_raw) {
        let sent = rustix::process::kill_process(rustix::process::getpid(), signal);
        sent.expect("a signal to myself");
    }
    loop {
        std::thread::park();
    }
}

fn segfault() {
    let nowhere: *mut u8 = std::ptr::without_provenance_mut(8);
    // SAFETY: it is not: this is what it is for.
    unsafe { nowhere.write_volatile(1) };
}

fn flood(call: &Call) {
    for number in 0..200_000_u64 {
        call.progress("flooding", number, None);
        if number < 50_000 {
            call.warn("a warning");
            tracing::warn!(number, "a line of the flood");
        }
    }
}

/// Bytes that say where they are, so that a lost or doubled one is seen.
async fn stream(call: &Call, mib: usize) -> Result<(), ProviderError> {
    let chunk: Vec<u8> = (0..CHUNK).map(|at| (at / 251 + at) as u8).collect();
    for _ in 0..mib * (1024 * 1024 / CHUNK) {
        call.send(CallEvent::Stdout(chunk.clone())).await?;
    }
    Ok(())
}

/// Takes all input, and says how much it was and what ended it.
async fn swallow(
    call: &Call,
    input: &mut mpsc::Receiver<ExecInput>,
) -> Result<ExecReply, ProviderError> {
    let mut bytes = 0;
    while let Some(piece) = input.recv().await {
        match piece {
            ExecInput::Data(data) => bytes += data.len(),
            ExecInput::Eof => break,
            ExecInput::Signal(signal) => return Ok(ExecReply::Signalled(signal)),
        }
    }
    out(call, bytes.to_string()).await?;
    Ok(ExecReply::Exited(0))
}

async fn descriptors(call: &Call) -> Result<(), ProviderError> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").expect("/proc").flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        all.push(format!(
            "{} {}\n",
            entry.file_name().to_string_lossy(),
            target.display()
        ));
    }
    out(call, all.concat()).await
}
