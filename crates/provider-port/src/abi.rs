//! The C boundary: three structs, one symbol, and the numbers that both sides know. `include/alpine_provider.h` says the
//! same in C; a test compares the two.

use std::ffi::{c_char, c_void};
use std::mem::{offset_of, size_of};

/// The first field of [`Host`] and [`Provider`]: "ALPNPRV1".
pub const MAGIC: u64 = 0x3156_5250_4e50_4c41;
/// The same as text, in HELLO.
pub const MAGIC_TEXT: &str = "ALPNPRV1";
/// The one symbol that a library exports, with the zero byte that ends it.
pub const SYMBOL: &[u8] = b"alpine_provider_v1\0";
/// The oldest version of the boundary that this version speaks.
pub const ABI_MIN: u32 = 1;
/// The newest.
pub const ABI_MAX: u32 = 1;

/// [`Host::flags`]: the provider runs in a child process of its own.
pub const HOST_CHILD: u32 = 1;
/// [`Host::flags`]: where the most verbose level of LOG that is wanted stands (three bits, 1 to 5; 0 stands for 3).
pub const HOST_LOG_SHIFT: u32 = 8;
/// [`Provider::flags`]: it was built with `panic=abort`, and is refused in process.
pub const PROVIDER_ABORTS: u32 = 1;
/// [`Provider::flags`]: it needs a process of its own, and is refused in process.
pub const PROVIDER_NEEDS_CHILD: u32 = 2;

/// What `send` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Sent {
    /// Taken.
    Ok = 0,
    /// The call's credit is used up: wait for GRANT.
    WouldBlock = 1,
    /// There is no such call, or it was answered.
    Gone = 2,
    /// The port is closed.
    Closed = 3,
    /// This version has no such kind or method.
    Unsupported = 4,
    /// It panicked.
    Panic = 5,
    /// Over the limit of its kind.
    TooBig = 6,
    /// Malformed.
    Bad = 7,
}

impl Sent {
    /// Every answer, in the order of their numbers.
    pub const ALL: [Sent; 8] = [
        Sent::Ok,
        Sent::WouldBlock,
        Sent::Gone,
        Sent::Closed,
        Sent::Unsupported,
        Sent::Panic,
        Sent::TooBig,
        Sent::Bad,
    ];

    /// The number on the boundary.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The answer of that number; an unknown one is `Bad`.
    #[must_use]
    pub fn of(number: i32) -> Self {
        Self::ALL
            .into_iter()
            .find(|sent| sent.number() == number)
            .unwrap_or(Sent::Bad)
    }
}

/// `alpine_host_info`: who loads.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Host {
    /// [`MAGIC`].
    pub magic: u64,
    /// The size of this struct where it was made: later versions only add fields.
    pub struct_size: u32,
    /// The oldest version of the boundary that the host speaks.
    pub abi_min: u32,
    /// The newest.
    pub abi_max: u32,
    /// [`HOST_CHILD`], and the level of logs.
    pub flags: u32,
    /// Its version, for people.
    pub host_version: *const c_char,
}

/// `send` of [`Port`].
pub type SendFn = unsafe extern "C" fn(*mut c_void, u64, u32, u32, *const u8, usize) -> i32;
/// `close` of [`Port`].
pub type CloseFn = unsafe extern "C" fn(*mut c_void, u32) -> i32;
/// `open` of [`Provider`].
pub type OpenFn = unsafe extern "C" fn(u32, *const Port, *const u8, usize, *mut Port) -> i32;
/// [`SYMBOL`].
pub type EntryFn = unsafe extern "C" fn(*const Host) -> *const Provider;

/// `alpine_port`: one end of the port, the same both ways.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Port {
    /// The size of this struct where it was made.
    pub struct_size: u32,
    /// The version of the boundary that both agreed on.
    pub abi: u32,
    /// Handed back to `send` and `close`.
    pub ctx: *mut c_void,
    /// Takes a frame. From any thread; never blocks; borrows the bytes until it returns.
    pub send: Option<SendFn>,
    /// No more frames: what still runs is cancelled and answered.
    pub close: Option<CloseFn>,
}

/// `alpine_provider`: what a library has to offer.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Provider {
    /// [`MAGIC`].
    pub magic: u64,
    /// The size of this struct where it was made.
    pub struct_size: u32,
    /// The oldest version of the boundary that it speaks.
    pub abi_min: u32,
    /// The newest.
    pub abi_max: u32,
    /// [`PROVIDER_ABORTS`], [`PROVIDER_NEEDS_CHILD`].
    pub flags: u32,
    /// Its name.
    pub name: *const c_char,
    /// Its version.
    pub version: *const c_char,
    /// How it was built, for people.
    pub build: *const c_char,
    /// Makes an instance: `config_json` is an [`OpenRequest`](alpine_provider_api::OpenRequest).
    pub open: Option<OpenFn>,
}

/// Why a struct of the other side is not read.
#[cfg(any(feature = "plugin", feature = "host"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It begins with this, instead of [`MAGIC`].
    Magic(u64),
    /// It takes so many bytes only.
    Size(usize),
}

/// Copies a struct of the other side that begins with [`MAGIC`] and its size. It may stand anywhere, and be smaller than
/// ours: nothing behind its size is read before that is known to be there.
///
/// # Safety
/// There are 12 bytes at `at`, and as many as they say, and nobody writes them.
#[cfg(any(feature = "plugin", feature = "host"))]
#[expect(unsafe_code, reason = "the other side's pointer")]
pub(crate) unsafe fn read_marked<T: Copy>(at: *const T) -> Result<T, Unread> {
    // SAFETY: the caller's promise.
    let magic = unsafe { at.cast::<u64>().read_unaligned() };
    if magic != MAGIC {
        return Err(Unread::Magic(magic));
    }
    // SAFETY: the caller's promise.
    unsafe { read_sized(at, size_of::<u64>()) }
}

/// The same of one that says its size at this place, without a magic.
///
/// # Safety
/// There are 4 bytes at `size_at`, and as many as they say at `at`, and nobody writes them.
#[cfg(any(feature = "plugin", feature = "host"))]
#[expect(unsafe_code, reason = "the other side's pointer")]
pub(crate) unsafe fn read_sized<T: Copy>(at: *const T, size_at: usize) -> Result<T, Unread> {
    // SAFETY: the caller's promise.
    let size = unsafe { at.byte_add(size_at).cast::<u32>().read_unaligned() } as usize;
    if size < size_of::<T>() {
        return Err(Unread::Size(size));
    }
    // SAFETY: the caller's promise, for that size.
    Ok(unsafe { at.read_unaligned() })
}

const _: () = {
    assert!(size_of::<Host>() == 32);
    assert!(offset_of!(Host, magic) == 0);
    assert!(offset_of!(Host, struct_size) == 8);
    assert!(offset_of!(Host, abi_min) == 12);
    assert!(offset_of!(Host, abi_max) == 16);
    assert!(offset_of!(Host, flags) == 20);
    assert!(offset_of!(Host, host_version) == 24);
    assert!(size_of::<Port>() == 32);
    assert!(offset_of!(Port, struct_size) == 0);
    assert!(offset_of!(Port, abi) == 4);
    assert!(offset_of!(Port, ctx) == 8);
    assert!(offset_of!(Port, send) == 16);
    assert!(offset_of!(Port, close) == 24);
    assert!(size_of::<Provider>() == 56);
    assert!(offset_of!(Provider, magic) == 0);
    assert!(offset_of!(Provider, struct_size) == 8);
    assert!(offset_of!(Provider, abi_min) == 12);
    assert!(offset_of!(Provider, abi_max) == 16);
    assert!(offset_of!(Provider, flags) == 20);
    assert!(offset_of!(Provider, name) == 24);
    assert!(offset_of!(Provider, version) == 32);
    assert!(offset_of!(Provider, build) == 40);
    assert!(offset_of!(Provider, open) == 48);
};

#[cfg(all(test, feature = "plugin"))]
mod tests {
    use super::*;

    /// The first bytes of a provider, at an odd place, and nothing behind them.
    #[expect(unsafe_code, reason = "a struct is read as bytes")]
    fn read(magic: u64, size: u32, bytes: usize) -> Result<Provider, Unread> {
        let mut there = vec![0_u8; 1 + bytes].into_boxed_slice();
        let place = there.as_ptr().addr() % 2;
        let from = usize::from(place == 0);
        let bytes = &mut there[from..];
        bytes[..8].copy_from_slice(&magic.to_ne_bytes());
        bytes[8..12].copy_from_slice(&size.to_ne_bytes());
        bytes[12..16].copy_from_slice(&7_u32.to_ne_bytes());
        // SAFETY: it is as large as it says.
        unsafe { read_marked(bytes.as_ptr().cast()) }
    }

    #[test]
    fn no_more_of_a_struct_is_read_than_there_is() {
        assert_eq!(read(1, 56, 56).unwrap_err(), Unread::Magic(1));
        assert_eq!(read(MAGIC, 48, 48).unwrap_err(), Unread::Size(48));
        assert_eq!(read(MAGIC, 16, 16).unwrap_err(), Unread::Size(16));
        assert_eq!(read(MAGIC, 56, 56).unwrap().abi_min, 7);
        assert_eq!(read(MAGIC, 64, 64).unwrap().abi_min, 7);
    }
}
