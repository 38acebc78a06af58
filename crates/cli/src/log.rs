//! What the program tells about itself: `ALPINE_LOG` chooses, standard error receives, and the redactor reads it first.

use crate::config::Variables;
use crate::output::{Stream, write};
use alpine_lifecycle::{ErrorCode, Failure};
use alpine_provider_api::Redactor;
use std::io;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts to tell.
///
/// # Errors
/// `ERR_CONFIG_INVALID` for a filter or a format that there is not.
pub(crate) fn start(variables: &Variables, redactor: &Redactor) -> Result<(), Failure> {
    let invalid = |cause: String, name: &str| {
        Failure::new(ErrorCode::ConfigInvalid, cause).next(format!("unset {name}"))
    };
    let format = variables.get("ALPINE_LOG_FORMAT")?.unwrap_or("text");
    if !["text", "json"].contains(&format) {
        return Err(invalid(
            "the variable `ALPINE_LOG_FORMAT` is neither `text` nor `json`".to_owned(),
            "ALPINE_LOG_FORMAT",
        ));
    }
    let Some(filter) = variables.get("ALPINE_LOG")? else {
        // Without a wish of the user only what is wrong is told, and the failure tells that itself.
        return Ok(());
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        invalid(
            format!("the variable `ALPINE_LOG` is no filter: {error}"),
            "ALPINE_LOG",
        )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Redacted(redactor.clone()));
    let started = if format == "json" {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
    // A program that has its own subscriber keeps it.
    drop(started);
    Ok(())
}

/// Makes writers that redact.
struct Redacted(Redactor);

/// Collects one event.
struct Line {
    redactor: Redactor,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Redacted {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            redactor: self.0.clone(),
            text: Vec::new(),
        }
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Line {
    /// What may be written of it.
    fn safe(&self) -> Vec<u8> {
        self.redactor.redact_bytes(&self.text)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Nobody may be reading the log.
        let _ = write(Stream::Stderr, &self.safe());
    }
}

#[cfg(test)]
mod tests {
    use super::Redacted;
    use alpine_provider_api::{Redactor, Secret};
    use std::io::Write;
    use tracing_subscriber::fmt::MakeWriter;

    #[test]
    fn events_lose_their_secrets_even_in_pieces() {
        let secret = Secret::new("hunter2hunter2".to_owned());
        let maker = Redacted(Redactor::new([&secret]));
        let mut line = maker.make_writer();
        for piece in ["token hunter2", "hunter2 was sent"] {
            line.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(line.safe(), b"token [redacted] was sent");
        line.text.clear();
    }
}
