//! A provider that is a program of its own.

use super::open;
use super::server::Server;
use crate::abi::Sent;
use crate::child::{self, SOCKET_FD, Serving};
use crate::frame::Frame;
use crate::message::Hello;
use crate::wire::Wire;
use alpine_provider_api::{ErrorKind, ProviderError, SandboxProvider};
use serde::de::DeserializeOwned;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Serves a provider to the host that started this program, until the host has gone: the whole `main` of a provider that
/// is an executable. What makes it is as in [`export_provider!`](crate::export_provider).
#[must_use]
pub fn serve<T, P>(
    name: &str,
    version: &str,
    make: impl Fn(T) -> Result<P, ProviderError>,
) -> ExitCode
where
    T: DeserializeOwned + 'static,
    P: SandboxProvider + 'static,
{
    let wire = child::inherited(SOCKET_FD).map(Wire::new);
    let Some(Ok(wire)) = wire.map(|wire| wire.map(Arc::new)) else {
        return failed(
            "this is a provider for alpine, which starts it with a socket as descriptor 3",
        );
    };
    let mut program = Program {
        wire: Arc::clone(&wire),
        make,
        server: OnceLock::new(),
        argument: std::marker::PhantomData,
    };
    match child::serve(&wire, &Hello::new(name, version), &mut program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            child::refuse(&wire, &error);
            failed(&error.message)
        }
    }
}

fn failed(why: &str) -> ExitCode {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "{why}");
    ExitCode::FAILURE
}

struct Program<T, M> {
    wire: Arc<Wire>,
    make: M,
    server: OnceLock<Arc<Server>>,
    argument: std::marker::PhantomData<T>,
}

impl<T, P, M> Serving for Program<T, M>
where
    T: DeserializeOwned + 'static,
    P: SandboxProvider + 'static,
    M: Fn(T) -> Result<P, ProviderError>,
{
    fn open(&mut self, host: &Hello, json: &[u8]) -> Result<(), ProviderError> {
        let wire = Arc::clone(&self.wire);
        let server = Server::open(wire, host.log_level, || open::make(json, &self.make))?;
        self.server
            .set(server)
            .map_err(|_| ProviderError::new(ErrorKind::InvalidArgument, "OPEN came twice"))
    }

    fn take(&self, frame: &Frame<'_>) -> Sent {
        let server = self.server.get();
        server.map_or(Sent::Closed, |server| server.accept(frame))
    }

    fn is_over(&self) -> bool {
        false
    }

    fn close(&self, limit: Duration) {
        if let Some(server) = self.server.get() {
            server.close(limit);
        }
    }
}
