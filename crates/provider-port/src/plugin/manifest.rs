//! The manifest of a library: JSON in the section `.alpine.provider`, put together when the library is compiled.

use std::ffi::CStr;

/// How many bytes the parts take.
#[must_use]
pub const fn joined_len(parts: &[&str]) -> usize {
    let (mut len, mut at) = (0, 0);
    while at < parts.len() {
        len += parts[at].len();
        at += 1;
    }
    len
}

/// The parts, one after the other.
#[must_use]
pub const fn joined<const N: usize>(parts: &[&str]) -> [u8; N] {
    let (mut bytes, mut to, mut part) = ([0; N], 0, 0);
    while part < parts.len() {
        let from = parts[part].as_bytes();
        let mut at = 0;
        while at < from.len() {
            bytes[to] = from[at];
            to += 1;
            at += 1;
        }
        part += 1;
    }
    bytes
}

/// A text that ends with its only zero byte, as C has it; any other does not compile.
#[must_use]
pub const fn c_text(text: &'static str) -> &'static CStr {
    let read = CStr::from_bytes_with_nul(text.as_bytes());
    assert!(
        read.is_ok(),
        "a zero byte stands within a text, or not at its end"
    );
    match read {
        Ok(text) => text,
        Err(_) => c"",
    }
}

/// Exports a [`SandboxProvider`](alpine_provider_api::SandboxProvider) from a library (`crate-type = ["cdylib"]`).
///
/// It takes what makes the provider: a function of its configuration, which is any type that is read from the user's table
/// `[providers.NAME.config]`, or the whole [`OpenRequest`](alpine_provider_api::OpenRequest). The provider's name is the
/// package's, or a text before the function.
///
/// ```text
/// export_provider!("acme", |config: Config| Ok(Acme::new(config)));
/// ```
#[macro_export]
macro_rules! export_provider {
    ($make:expr $(,)?) => {
        $crate::export_provider!(@named env!("CARGO_PKG_NAME"), $make);
    };
    ($name:literal, $make:expr $(,)?) => {
        $crate::export_provider!(@named $name, $make);
    };
    (@named $name:expr, $make:expr) => {
        #[expect(
            unsafe_code,
            reason = "the one symbol of a provider is called from C"
        )]
        const _: () = {
            const PARTS: &[&str] = &[
                concat!(
                    r#"{"name":""#,
                    $name,
                    r#"","version":""#,
                    env!("CARGO_PKG_VERSION"),
                    r#"","abi_min":1,"abi_max":1,"sdk":"alpine-provider-port "#
                ),
                $crate::plugin::SDK,
                r#"","compiler":""#,
                $crate::plugin::COMPILER,
                r#"","panic":""#,
                if cfg!(panic = "abort") {
                    "abort"
                } else {
                    "unwind"
                },
                r#""}"#,
            ];
            const LEN: usize = $crate::plugin::joined_len(PARTS);
            const _: () = assert!(LEN <= 4096, "a manifest takes at most 4 KiB");
            const _: () = assert!($crate::abi::ABI_MIN == 1 && $crate::abi::ABI_MAX == 1);
            #[used]
            #[unsafe(link_section = ".alpine.provider")]
            static MANIFEST: [u8; LEN] = $crate::plugin::joined(PARTS);

            // What is defined here hides what the maker may name: hence the prefix.
            unsafe extern "C" fn __alpine_open(
                abi: u32,
                host: *const $crate::abi::Port,
                config: *const u8,
                len: usize,
                out: *mut $crate::abi::Port,
            ) -> i32 {
                // SAFETY: the host's promises are handed on as they are.
                unsafe { $crate::plugin::opened(abi, host, config, len, out, $make) }
            }

            static EXPORT: $crate::plugin::Export = $crate::plugin::Export::new(
                $crate::plugin::c_text(concat!($name, "\0")),
                $crate::plugin::c_text(concat!(env!("CARGO_PKG_VERSION"), "\0")),
                c"alpine-provider-port",
                cfg!(panic = "abort"),
                __alpine_open,
            );

            #[unsafe(no_mangle)]
            unsafe extern "C" fn alpine_provider_v1(
                host: *const $crate::abi::Host,
            ) -> *const $crate::abi::Provider {
                // What nothing refers to may be left out by the linker.
                ::std::hint::black_box(&MANIFEST);
                // SAFETY: the host's promise is handed on as it is.
                unsafe { EXPORT.shown_to(host) }
            }
        };
    };
}
