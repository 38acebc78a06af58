//! The C boundary, from the host's side: loads a library, opens its provider, and passes frames over.

use crate::abi::{
    ABI_MAX, ABI_MIN, EntryFn, HOST_CHILD, HOST_LOG_SHIFT, Host, MAGIC, OpenFn, PROVIDER_ABORTS,
    PROVIDER_NEEDS_CHILD, Port, Provider, SYMBOL, Sent, Unread, read_marked,
};
use crate::frame::{Frame, FrameError, Kind, Takes, check};
use crate::message::{check_range, error_code, read_error, write_error};
use crate::wire::locked;
use alpine_provider_api::{ErrorKind, ProviderError};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tracing::level_filters::LevelFilter;

/// How long a provider gets to answer what still runs when it is closed.
const CLOSE_MS: u32 = 500;
/// `RTLD_NODELETE` of Linux: the library stays, whoever closes it.
const RTLD_NODELETE: i32 = 0x1000;

/// Who is asked when the process ends by `exit`.
static ASKED: OnceLock<fn() -> Option<i32>> = OnceLock::new();

/// What a library offers, checked.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) name: String,
    pub(super) version: String,
    flags: u32,
    abi: u32,
    open: OpenFn,
}

fn incompatible(message: impl Into<String>) -> ProviderError {
    ProviderError::new(ErrorKind::Unsupported, message)
}

impl crate::PortProvider {
    /// Has this asked once the process ends by `exit`, which a library in it may have called. A status that it gives is the
    /// process's, which then ends at once; without one it ends as it would have. The first that is given stays.
    #[expect(unsafe_code, reason = "the C library has no other way to hear of it")]
    pub fn at_exit(ask: fn() -> Option<i32>) {
        if ASKED.set(ask).is_ok() {
            // SAFETY: the function is this program's own, which is never unloaded. Where the C library has no room for it, the
            // process ends as it would have.
            unsafe { libc::atexit(exits) };
        }
    }
}

#[expect(
    unsafe_code,
    reason = "`exit` has begun: only this ends it differently"
)]
extern "C" fn exits() {
    if let Some(status) = ASKED.get().and_then(|ask| ask()) {
        // SAFETY: it runs nothing more of this process.
        unsafe { libc::_exit(status) };
    }
}

/// The level of LOG that somebody here wants to see.
pub(super) fn log_level() -> u32 {
    match LevelFilter::current().into_level() {
        Some(tracing::Level::TRACE) => 5,
        Some(tracing::Level::DEBUG) => 4,
        Some(tracing::Level::INFO) => 3,
        Some(tracing::Level::WARN) => 2,
        Some(tracing::Level::ERROR) | None => 1,
    }
}

/// Loads the library behind this descriptor, for good, and reads what it offers.
#[expect(unsafe_code, reason = "loading a library runs it")]
pub(super) fn load(
    file: BorrowedFd<'_>,
    in_child: bool,
    level: u32,
) -> Result<Loaded, ProviderError> {
    // The dynamic linker knows a library that is loaded by the path it came by. This number is never another file's: where
    // the library stays, so does the descriptor.
    let kept = rustix::io::fcntl_dupfd_cloexec(file, 0)
        .map_err(|error| ProviderError::io("the library can't be held open", &error.into()))?;
    let path = format!("/proc/self/fd/{}", kept.as_raw_fd());
    let flags = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE;
    // SAFETY: its initialisers are trusted code, as the whole provider is: the file was checked, and a user configured it.
    let library = unsafe { Library::open(Some(path), flags) };
    let library = library
        .map_err(|error| incompatible(format!("the library can't be loaded: {}", chain(&error))))?;
    std::mem::forget(kept);
    // SAFETY: the symbol's name carries the version of its type.
    let entry = unsafe { library.get::<EntryFn>(SYMBOL) }
        .map_err(|_| incompatible("the library does not export `alpine_provider_v1`"))?;
    let host = Host {
        magic: MAGIC,
        struct_size: size_of::<Host>() as u32,
        abi_min: ABI_MIN,
        abi_max: ABI_MAX,
        flags: (u32::from(in_child) * HOST_CHILD) | (level << HOST_LOG_SHIFT),
        host_version: concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast(),
    };
    // SAFETY: the boundary says what it takes, and that it is cheap; `host` stays until it returns.
    let provider = unsafe { entry(&raw const host) };
    // The library is never unloaded: its threads and statics may still be in use.
    std::mem::forget(library);
    if provider.is_null() {
        return Err(incompatible(
            "the library refuses this host: `alpine_provider_v1` returned NULL",
        ));
    }
    // SAFETY: the boundary says that it is null, or a static that is as large as it says.
    checked(unsafe { read_marked(provider) })
}

fn checked(provider: Result<Provider, Unread>) -> Result<Loaded, ProviderError> {
    let provider = provider.map_err(|why| {
        incompatible(match why {
            Unread::Magic(magic) => {
                format!("the provider's magic is {magic:#018x}, where {MAGIC:#018x} is expected")
            }
            Unread::Size(size) => format!(
                "the provider's struct takes {size} bytes, where at least {} are expected",
                size_of::<Provider>()
            ),
        })
    })?;
    let abi = check_range(provider.abi_min, provider.abi_max)?;
    Ok(Loaded {
        name: text(provider.name),
        version: text(provider.version),
        flags: provider.flags,
        abi,
        open: provider
            .open
            .ok_or_else(|| incompatible("the provider's `open` is NULL"))?,
    })
}

#[expect(unsafe_code, reason = "texts are pointers on the boundary")]
fn text(at: *const c_char) -> String {
    if at.is_null() {
        return String::new();
    }
    // SAFETY: the boundary says that it is a text that ends with a zero byte, and a static.
    let text = unsafe { CStr::from_ptr(at) };
    text.to_string_lossy().chars().take(256).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Whether `open` filled the port that it was asked for.
fn fits(port: &Port, abi: u32) -> Result<(), ProviderError> {
    let (size, expected) = (port.struct_size as usize, size_of::<Port>());
    if size < expected {
        return Err(incompatible(format!(
            "`open` filled a port of {size} bytes, where at least {expected} are expected"
        )));
    }
    if port.abi != abi {
        return Err(incompatible(format!(
            "`open` filled a port of version {} of the boundary, where it was asked for {abi}",
            port.abi
        )));
    }
    Ok(())
}

/// Who a library speaks to.
pub(super) trait Hosts: Takes {
    /// It has closed its port, or says that it is closed: nothing more comes of it.
    fn over(&self, why: ProviderError);
}

/// What the provider's pointer to us points to. It is never freed: a provider that is late finds it closed.
struct Receiver {
    to: Arc<dyn Hosts>,
    /// Why it did not open, in its own words.
    refusal: Mutex<Option<ProviderError>>,
    opened: AtomicBool,
    closed: AtomicBool,
}

/// An opened provider.
pub(super) struct Opened {
    port: Port,
    receiver: &'static Receiver,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened")
    }
}

#[expect(unsafe_code, reason = "the boundary's second rule")]
// SAFETY: a port's `send` and `close` may be called from any thread, at once.
unsafe impl Send for Opened {}
#[expect(unsafe_code, reason = "the boundary's second rule")]
// SAFETY: as above.
unsafe impl Sync for Opened {}

impl Loaded {
    /// Opens an instance, whose frames go to `to`.
    #[expect(unsafe_code, reason = "the provider is reached by a C function")]
    pub(super) fn open(&self, json: &[u8], to: Arc<dyn Hosts>) -> Result<Opened, ProviderError> {
        let receiver: &'static Receiver = Box::leak(Box::new(Receiver {
            to,
            refusal: Mutex::default(),
            opened: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }));
        let host = Port {
            struct_size: size_of::<Port>() as u32,
            abi: self.abi,
            ctx: std::ptr::from_ref(receiver).cast_mut().cast(),
            send: Some(send),
            close: Some(close),
        };
        let mut port = Port {
            struct_size: size_of::<Port>() as u32,
            abi: 0,
            ctx: std::ptr::null_mut(),
            send: None,
            close: None,
        };
        let (data, len) = (json.as_ptr(), json.len());
        // SAFETY: all three pointers stay until it returns, and the receiver for ever.
        let opened = unsafe { (self.open)(self.abi, &raw const host, data, len, &raw mut port) };
        if opened != Sent::Ok.number() {
            receiver.closed.store(true, Ordering::Release);
            let said = locked(&receiver.refusal).take();
            let silent = || incompatible(format!("`open` returned {opened} and said no more"));
            return Err(said.unwrap_or_else(silent));
        }
        if port.send.is_none() {
            return Err(incompatible("`open` left the port's `send` NULL"));
        }
        fits(&port, self.abi)?;
        receiver.opened.store(true, Ordering::Release);
        Ok(Opened { port, receiver })
    }

    /// Refuses what would take this process down with it.
    pub(super) fn fits_in_process(&self) -> Result<(), ProviderError> {
        let why = if self.flags & PROVIDER_ABORTS != 0 {
            "was built with `panic=abort`"
        } else if self.flags & PROVIDER_NEEDS_CHILD != 0 {
            "needs a process of its own"
        } else {
            return Ok(());
        };
        Err(incompatible(format!(
            "the provider {why}, so it can't run in this process: set `isolation = \"process\"`, or leave it out"
        )))
    }
}

impl Opened {
    /// Ends the instance; what is sent to it or by it later finds it closed.
    #[expect(unsafe_code, reason = "the provider is reached by a C function")]
    pub(super) fn close(&self) {
        if let Some(close) = self.port.close {
            // SAFETY: the provider keeps its end for as long as the process lives.
            unsafe { close(self.port.ctx, CLOSE_MS) };
        }
        self.receiver.closed.store(true, Ordering::Release);
    }
}

impl Takes for Opened {
    #[expect(unsafe_code, reason = "the provider is reached by a C function")]
    fn take(&self, frame: &Frame<'_>) -> Sent {
        let Some(send) = self.port.send else {
            return Sent::Closed;
        };
        if self.receiver.closed.load(Ordering::Acquire) {
            return Sent::Closed;
        }
        let (data, len) = (frame.payload.as_ptr(), frame.payload.len());
        let (id, kind, code) = (frame.call_id, frame.kind.number(), frame.code);
        // SAFETY: the provider keeps its end for as long as the process lives, and borrows the payload until it returns.
        let sent = Sent::of(unsafe { send(self.port.ctx, id, kind, code, data, len) });
        if sent == Sent::Closed {
            self.receiver.over("it says that it is closed");
        }
        sent
    }
}

#[expect(unsafe_code, reason = "the provider's pointers")]
unsafe extern "C" fn send(
    ctx: *mut c_void,
    call_id: u64,
    kind: u32,
    code: u32,
    data: *const u8,
    len: usize,
) -> i32 {
    // SAFETY: `ctx` is what `open` was given, and that is never freed.
    let Some(receiver) = (unsafe { ctx.cast::<Receiver>().as_ref() }) else {
        return Sent::Bad.number();
    };
    if receiver.closed.load(Ordering::Acquire) {
        return Sent::Closed.number();
    }
    // A length over its limit is refused before anything is read.
    let kind = match check(kind, code, len) {
        Ok(kind) => kind,
        Err(error) => {
            receiver.broken(call_id, error);
            return error.sent().number();
        }
    };
    let payload = if len == 0 {
        &[][..]
    } else if data.is_null() {
        return Sent::Bad.number();
    } else {
        // SAFETY: the provider lends `len` bytes until this returns.
        unsafe { std::slice::from_raw_parts(data, len) }
    };
    let frame = Frame {
        call_id,
        kind,
        code,
        payload,
    };
    receiver.take(&frame).number()
}

/// A provider that closes our end says no more.
#[expect(unsafe_code, reason = "the provider's pointer")]
unsafe extern "C" fn close(ctx: *mut c_void, _deadline_ms: u32) -> i32 {
    // SAFETY: `ctx` is what `open` was given, and that is never freed.
    let Some(receiver) = (unsafe { ctx.cast::<Receiver>().as_ref() }) else {
        return Sent::Bad.number();
    };
    receiver.over("it closed its port");
    Sent::Ok.number()
}

impl Receiver {
    /// Ends what nobody here has ended.
    fn over(&self, why: &str) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.to
                .over(ProviderError::transient(ErrorKind::Crashed, why));
        }
    }

    /// Ends the call of a frame that nobody can take: it may have been the answer.
    fn broken(&self, call_id: u64, error: FrameError) {
        let message = format!("it does not keep to the protocol: it sent {error}");
        let error = ProviderError::new(ErrorKind::Unsupported, message);
        if call_id > 0 {
            self.to.take(&Frame {
                call_id,
                kind: Kind::Err,
                code: error_code(error.kind),
                payload: &write_error(&error),
            });
        }
    }

    fn take(&self, frame: &Frame<'_>) -> Sent {
        let opening = !self.opened.load(Ordering::Acquire);
        match frame.kind {
            Kind::Err if frame.call_id == 0 && opening => {
                *locked(&self.refusal) = Some(read_error(frame.code, frame.payload));
                Sent::Ok
            }
            Kind::Ok | Kind::Err if frame.call_id == 0 => Sent::Gone,
            Kind::Hello | Kind::Open | Kind::Ready => Sent::Unsupported,
            Kind::Call
            | Kind::Cancel
            | Kind::Grant
            | Kind::Input
            | Kind::Ping
            | Kind::Pong
            | Kind::Ok
            | Kind::Err
            | Kind::Event
            | Kind::Log => self.to.take(frame),
        }
    }
}
