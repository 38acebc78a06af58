//! A library in this process.

use super::config::{PortConfig, Source};
use super::library::{Hosts, Opened, load, log_level};
use super::session::Session;
use crate::frame::Takes;
use crate::wire::locked;
use alpine_provider_api::{ErrorKind, ProviderError};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

/// A library in this process: it is loaded by a thread of its own, since that may take long, or for ever.
#[derive(Debug)]
pub(super) struct InProcess(Arc<Mutex<Ends>>);

/// Whether it is there, and wanted.
#[derive(Debug, Default)]
struct Ends {
    opened: Option<Arc<Opened>>,
    closed: bool,
}

impl InProcess {
    pub(super) fn start(config: &Arc<PortConfig>, session: Arc<Session>) -> Self {
        let ends = Arc::new(Mutex::new(Ends::default()));
        let (here, config) = (Arc::clone(&ends), Arc::clone(config));
        let thread = std::thread::Builder::new().name("provider-load".to_owned());
        let spawned = thread.spawn({
            let session = Arc::clone(&session);
            move || match open_here(&config, &session) {
                Err(error) => session.ended(session.named(error)),
                Ok(opened) => {
                    let mut ends = locked(&here);
                    if ends.closed {
                        return opened.close();
                    }
                    session.connect(Arc::clone(&opened) as Arc<dyn Takes>);
                    ends.opened = Some(opened);
                    session.ready();
                }
            }
        });
        if let Err(error) = spawned {
            let error = ProviderError::io("a thread can't be started", &error);
            session.ended(session.named(error));
        }
        Self(ends)
    }
}

fn open_here(config: &PortConfig, session: &Arc<Session>) -> Result<Arc<Opened>, ProviderError> {
    let Source::InProcess { library } = &config.source else {
        return Err(ProviderError::new(
            ErrorKind::Unsupported,
            "it is not configured to run in this process",
        ));
    };
    let loaded = load(library.as_fd(), false, log_level())?;
    loaded.fits_in_process()?;
    let json = serde_json::to_vec(&config.open).unwrap_or_default();
    let opened = loaded.open(&json, Arc::clone(session) as Arc<dyn Hosts>)?;
    Ok(Arc::new(opened))
}

impl Drop for InProcess {
    fn drop(&mut self) {
        let opened = {
            let mut ends = locked(&self.0);
            ends.closed = true;
            ends.opened.take()
        };
        if let Some(opened) = opened {
            opened.close();
        }
    }
}
