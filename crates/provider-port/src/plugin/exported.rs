//! The C boundary, from the provider's side: the only place where it handles the host's pointers.

use super::open;
use super::server::Server;
use crate::abi::{
    ABI_MAX, ABI_MIN, HOST_LOG_SHIFT, Host, MAGIC, OpenFn, PROVIDER_ABORTS, Port, Provider, Sent,
    read_marked, read_sized,
};
use crate::frame::{Frame, Kind, Takes};
use crate::message::{error_code, write_error};
use alpine_provider_api::{ErrorKind, ProviderError, SandboxProvider};
use serde::de::DeserializeOwned;
use std::ffi::{CStr, c_void};
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// The level of LOG that the host said it wants.
static LOG_LEVEL: AtomicU32 = AtomicU32::new(0);

/// What a library exports.
#[derive(Debug)]
pub struct Export(Provider);

#[expect(unsafe_code, reason = "its pointers are to constants")]
// SAFETY: the pointers are to texts that live for ever and that nobody writes.
unsafe impl Sync for Export {}

impl Export {
    /// What a library says of itself.
    #[must_use]
    pub const fn new(
        name: &'static CStr,
        version: &'static CStr,
        build: &'static CStr,
        aborts: bool,
        open: OpenFn,
    ) -> Self {
        Self(Provider {
            magic: MAGIC,
            struct_size: size_of::<Provider>() as u32,
            abi_min: ABI_MIN,
            abi_max: ABI_MAX,
            flags: if aborts { PROVIDER_ABORTS } else { 0 },
            name: name.as_ptr(),
            version: version.as_ptr(),
            build: build.as_ptr(),
            open: Some(open),
        })
    }

    /// What the host gets; nothing, where it is none.
    ///
    /// # Safety
    /// `host` is null or points to a [`Host`], as large as it says, that stays until this returns.
    #[expect(unsafe_code, reason = "the host is told of by a pointer")]
    pub unsafe fn shown_to(&'static self, host: *const Host) -> *const Provider {
        if host.is_null() {
            return std::ptr::null();
        }
        // SAFETY: the caller's promise; it is not null.
        let Ok(host) = (unsafe { read_marked(host) }) else {
            return std::ptr::null();
        };
        LOG_LEVEL.store((host.flags >> HOST_LOG_SHIFT) & 7, Ordering::Relaxed);
        &raw const self.0
    }
}

/// The host's end of the port.
#[derive(Debug)]
struct HostEnd(Port);

#[expect(unsafe_code, reason = "the boundary's second rule")]
// SAFETY: a port's `send` may be called from any thread, at once.
unsafe impl Send for HostEnd {}
#[expect(unsafe_code, reason = "the boundary's second rule")]
// SAFETY: as above.
unsafe impl Sync for HostEnd {}

impl Takes for HostEnd {
    #[expect(unsafe_code, reason = "the host is reached by a C function")]
    fn take(&self, frame: &Frame<'_>) -> Sent {
        let Some(send) = self.0.send else {
            return Sent::Closed;
        };
        let (data, len) = (frame.payload.as_ptr(), frame.payload.len());
        let (id, kind, code) = (frame.call_id, frame.kind.number(), frame.code);
        // SAFETY: the host keeps its port for as long as this process lives, and borrows the payload until it returns.
        Sent::of(unsafe { send(self.0.ctx, id, kind, code, data, len) })
    }
}

/// What the host's pointer to an instance points to. It is never freed: a host that is late finds it closed.
#[derive(Debug)]
struct Instance {
    server: Arc<Server>,
    closed: AtomicBool,
}

/// `open` of a library that holds this provider.
///
/// # Safety
/// The pointers are null or valid until this returns, `config` for `len` bytes; `host` may be called from then on for as
/// long as the process lives.
#[expect(unsafe_code, reason = "the host's pointers")]
pub unsafe fn opened<T, P>(
    abi: u32,
    host: *const Port,
    config: *const u8,
    len: usize,
    out: *mut Port,
    make: impl FnOnce(T) -> Result<P, ProviderError>,
) -> i32
where
    T: DeserializeOwned + 'static,
    P: SandboxProvider + 'static,
{
    if !(ABI_MIN..=ABI_MAX).contains(&abi) {
        return Sent::Unsupported.number();
    }
    if host.is_null() || out.is_null() || (config.is_null() && len > 0) {
        return Sent::Bad.number();
    }
    // SAFETY: the caller's promise; it is not null.
    let Ok(host) = (unsafe { read_sized(host, offset_of!(Port, struct_size)) }) else {
        return Sent::Bad.number();
    };
    let config = if len == 0 {
        &[][..]
    } else {
        // SAFETY: the caller's promise; it is not null.
        unsafe { std::slice::from_raw_parts(config, len) }
    };
    let host: Arc<dyn Takes> = Arc::new(HostEnd(host));
    let level = LOG_LEVEL.load(Ordering::Relaxed);
    let server = catch_unwind(AssertUnwindSafe(|| {
        Server::open(Arc::clone(&host), level, || open::make(config, make))
    }));
    let server = server.unwrap_or_else(|_| {
        let message = "the provider panicked while it was opened";
        Err(ProviderError::new(ErrorKind::Internal, message))
    });
    match server {
        Ok(server) => {
            let closed = AtomicBool::new(false);
            let instance = Box::leak(Box::new(Instance { server, closed }));
            let port = Port {
                struct_size: size_of::<Port>() as u32,
                abi,
                ctx: std::ptr::from_mut(instance).cast(),
                send: Some(send),
                close: Some(close),
            };
            // SAFETY: the caller's promise; it is not null.
            unsafe { out.write(port) };
            Sent::Ok.number()
        }
        Err(error) => {
            host.take(&Frame {
                call_id: 0,
                kind: Kind::Err,
                code: error_code(error.kind),
                payload: &write_error(&error),
            });
            Sent::Bad.number()
        }
    }
}

#[expect(unsafe_code, reason = "the host's pointers")]
unsafe extern "C" fn send(
    ctx: *mut c_void,
    call_id: u64,
    kind: u32,
    code: u32,
    data: *const u8,
    len: usize,
) -> i32 {
    // SAFETY: `ctx` is what `open` wrote, and that is never freed.
    let Some(instance) = (unsafe { ctx.cast::<Instance>().as_ref() }) else {
        return Sent::Bad.number();
    };
    if instance.closed.load(Ordering::Acquire) {
        return Sent::Closed.number();
    }
    if data.is_null() && len > 0 {
        return Sent::Bad.number();
    }
    let payload = if len == 0 {
        &[][..]
    } else {
        // SAFETY: the host lends `len` bytes until this returns.
        unsafe { std::slice::from_raw_parts(data, len) }
    };
    let sent = match Frame::checked(call_id, kind, code, payload) {
        Ok(frame) => catch_unwind(AssertUnwindSafe(|| instance.server.accept(&frame))),
        Err(error) => Ok(error.sent()),
    };
    sent.unwrap_or(Sent::Panic).number()
}

#[expect(unsafe_code, reason = "the host's pointer")]
unsafe extern "C" fn close(ctx: *mut c_void, deadline_ms: u32) -> i32 {
    // SAFETY: `ctx` is what `open` wrote, and that is never freed.
    let Some(instance) = (unsafe { ctx.cast::<Instance>().as_ref() }) else {
        return Sent::Bad.number();
    };
    if instance.closed.swap(true, Ordering::AcqRel) {
        return Sent::Closed.number();
    }
    let limit = Duration::from_millis(deadline_ms.into());
    let closed = catch_unwind(AssertUnwindSafe(|| instance.server.close(limit)));
    closed.map_or(Sent::Panic, |()| Sent::Ok).number()
}
