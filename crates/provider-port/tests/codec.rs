//! The codec: every frame comes back, garbage never panics, and this version still reads what it once wrote.

use alpine_provider_api::{ErrorKind, Meta, ProviderError};
use alpine_provider_port::frame::*;
use alpine_provider_port::message::*;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

proptest! {
    #[test]
    fn a_frame_comes_back(call_id: u64, kind in 0..Kind::ALL.len(), code: u32, payload: Vec<u8>, rest: Vec<u8>) {
        let kind = Kind::ALL[kind].number();
        let frame = Frame::checked(call_id, kind, code, &payload).unwrap();
        let mut bytes = frame.header().to_vec();
        bytes.extend_from_slice(&payload);
        let whole = bytes.len();
        for cut in [0, 1, HEADER - 1, whole - 1] {
            if cut < whole {
                prop_assert_eq!(Frame::parse(&bytes[..cut]).unwrap(), None);
            }
        }
        bytes.extend_from_slice(&rest);
        prop_assert_eq!(Frame::parse(&bytes).unwrap(), Some((frame, whole)));
    }

    #[test]
    fn garbage_is_a_frame_or_an_error(mut bytes: Vec<u8>, kind in 0_u32..40, len in 0_u32..100) {
        let _ = Frame::parse(&bytes);
        // The same with a header that is nearly right.
        if bytes.len() >= HEADER {
            bytes[8..12].copy_from_slice(&kind.to_le_bytes());
            bytes[16..20].copy_from_slice(&len.to_le_bytes());
            let _ = Frame::parse(&bytes);
        }
        let _ = read_error(kind, &bytes);
        let _ = serde_json::from_slice::<Hello>(&bytes);
        let _ = serde_json::from_slice::<OnlyMeta>(&bytes);
        let _ = serde_json::from_slice::<LogPayload>(&bytes);
    }

    #[test]
    fn an_error_comes_back(message in ".{1,200}", code in 0_usize..23, hint in proptest::option::of(".{0,50}")) {
        let mut error = ProviderError::transient(ERROR_KINDS[code].1, message);
        error.hint = hint;
        let json = write_error(&error);
        prop_assert_eq!(read_error(error_code(error.kind), &json), error);
    }
}

#[test]
fn limits_are_kept_by_kind() {
    let size = |kind: Kind, code, len: usize| {
        Frame::checked(1, kind.number(), code, &vec![0; len]).is_ok()
    };
    for (kind, code, most) in [
        (Kind::Call, 9, MAX_CONTROL),
        (Kind::Ok, 0, MAX_CONTROL),
        (Kind::Event, EVENT_PROGRESS, MAX_CONTROL),
        (Kind::Event, EVENT_STDOUT, MAX_CHUNK),
        (Kind::Event, EVENT_STDERR, MAX_CHUNK),
        (Kind::Input, INPUT_DATA, MAX_CHUNK),
        (Kind::Log, 3, MAX_LOG),
    ] {
        assert!(size(kind, code, most), "{kind:?}");
        assert!(!size(kind, code, most + 1), "{kind:?}");
    }
    let mut header = [0; HEADER];
    header[8] = 99;
    assert_eq!(Frame::parse(&header), Err(FrameError::Kind(99)));
    // A length over the limit is refused before a byte of it has come.
    header[8] = 19;
    header[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = Frame::parse(&header).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a frame LOG of 4294967295 bytes, of at most 8192"
    );
}

#[test]
fn errors_are_tolerated_in_any_form() {
    let io = error_code(ErrorKind::Io);
    for (code, payload, kind, message) in [
        (io, "disk on fire", ErrorKind::Io, "disk on fire"),
        (io, r#"{"message":"m"}"#, ErrorKind::Io, "m"),
        (
            io,
            r#"{"kind":"no_space","message":"m"}"#,
            ErrorKind::NoSpace,
            "m",
        ),
        (
            io,
            r#"{"kind":"on_fire","message":"m","later":[1]}"#,
            ErrorKind::Unknown,
            "m",
        ),
        (
            0,
            "",
            ErrorKind::Unknown,
            "it answered `unknown` and said no more",
        ),
        (99, "[]", ErrorKind::Unknown, "[]"),
    ] {
        let error = read_error(code, payload.as_bytes());
        assert_eq!(
            (error.kind, error.message.as_str()),
            (kind, message),
            "{payload}"
        );
    }
}

#[test]
fn every_kind_of_failure_has_a_number_of_its_own() {
    for kind in ErrorKind::ALL {
        let code = error_code(kind);
        assert_eq!(code == 0, kind == ErrorKind::Unknown, "{kind:?}");
        assert_eq!(read_error(code, b"m").kind, kind);
    }
}

/// A call, a kind, a code, a payload.
type Parts = (u64, Kind, u32, Vec<u8>);

/// The frames of this version, by name.
fn golden() -> Vec<(&'static str, Parts)> {
    let meta = Meta {
        operation_id: "op_1".to_owned(),
        fence: 7,
        attempt: 2,
        deadline_ms: 90_000,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    };
    let request = serde_json::json!({ "sandbox_id": "sbx_1", "probe": true });
    let call = CallPayload {
        meta: &meta,
        request: &request,
    };
    let error = ProviderError::transient(ErrorKind::NoSpace, "no room").hint("make some");
    let progress = ProgressPayload {
        what: "bytes".to_owned(),
        done: 5,
        total: Some(9),
    };
    let log = LogPayload {
        target: "acme::net".to_owned(),
        message: "connected".to_owned(),
        fields: serde_json::Map::from_iter([("port".to_owned(), 443.into())]),
    };
    let open = serde_json::json!({ "config": { "region": "eu-1" }, "place": { "name": "acme" } });
    let json = |value: &dyn erased::Json| value.json();
    vec![
        (
            "hello",
            (0, Kind::Hello, 0, json(&Hello::new("acme", "1.2.3"))),
        ),
        ("open", (0, Kind::Open, 0, json(&open))),
        ("ready", (0, Kind::Ready, 0, vec![])),
        ("call", (1, Kind::Call, 7, json(&call))),
        ("cancel", (1, Kind::Cancel, CANCEL_DEADLINE, vec![])),
        ("grant", (1, Kind::Grant, 65536, vec![])),
        ("input", (1, Kind::Input, INPUT_DATA, b"typed\n".to_vec())),
        ("input-eof", (1, Kind::Input, INPUT_EOF, vec![])),
        (
            "input-signal",
            (
                1,
                Kind::Input,
                INPUT_SIGNAL,
                json(&SignalPayload { signal: 2 }),
            ),
        ),
        ("ping", (0, Kind::Ping, 3, vec![])),
        ("pong", (0, Kind::Pong, 3, vec![])),
        ("ok", (1, Kind::Ok, 0, br#"{"state":"running"}"#.to_vec())),
        (
            "err",
            (1, Kind::Err, error_code(error.kind), write_error(&error)),
        ),
        ("err-text", (1, Kind::Err, 22, b"disk on fire".to_vec())),
        (
            "progress",
            (1, Kind::Event, EVENT_PROGRESS, json(&progress)),
        ),
        (
            "stdout",
            (1, Kind::Event, EVENT_STDOUT, vec![0, 255, b'\n']),
        ),
        ("stderr", (1, Kind::Event, EVENT_STDERR, b"oh".to_vec())),
        ("warning", (1, Kind::Event, EVENT_WARNING, b"slow".to_vec())),
        ("log", (1, Kind::Log, 3, json(&log))),
    ]
}

mod erased {
    /// Anything that is written as JSON.
    pub(crate) trait Json {
        fn json(&self) -> Vec<u8>;
    }

    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> Vec<u8> {
            serde_json::to_vec(self).expect("JSON")
        }
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/frames/v1")
}

/// The bytes of the frame, and what they mean.
fn shown(frame: &Frame<'_>) -> String {
    let mut text = format!(
        "call {} {} code {}\n{}\n",
        frame.call_id,
        frame.kind.as_str(),
        frame.code,
        String::from_utf8_lossy(frame.payload).escape_default()
    );
    for chunk in [&frame.header()[..], frame.payload].concat().chunks(16) {
        let words: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&words.join(" "));
        text.push('\n');
    }
    text
}

/// A frame that is added is kept by hand: this prints what is to be kept, and none is ever changed.
#[test]
fn golden_frames_are_written_as_they_were() {
    for (name, (call_id, kind, code, payload)) in golden() {
        let frame = Frame::checked(call_id, kind.number(), code, &payload).unwrap();
        let path = fixtures().join(format!("{name}.txt"));
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(shown(&frame), kept, "{}", path.display());
    }
    let kept = std::fs::read_dir(fixtures()).unwrap().count();
    assert_eq!(kept, golden().len());
}

#[test]
fn golden_frames_are_read_as_they_were_meant() {
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut lines = text.lines();
        let (meaning, payload) = (lines.next().unwrap(), lines.next().unwrap());
        let bytes: Vec<u8> = lines
            .flat_map(str::split_whitespace)
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        let (frame, taken) = Frame::parse(&bytes).unwrap().unwrap();
        assert_eq!(taken, bytes.len());
        let (id, kind, code) = (frame.call_id, frame.kind.as_str(), frame.code);
        assert_eq!(format!("call {id} {kind} code {code}"), meaning);
        let shown = String::from_utf8_lossy(frame.payload);
        assert_eq!(shown.escape_default().to_string(), payload);
        if frame.kind == Kind::Hello {
            let hello: Hello = serde_json::from_slice(frame.payload).unwrap();
            hello.check().unwrap();
        }
        if frame.kind == Kind::Call {
            let meta = serde_json::from_slice::<OnlyMeta>(frame.payload)
                .unwrap()
                .meta;
            assert_eq!((meta.fence, meta.attempt), (7, 2));
        }
        if frame.kind == Kind::Err {
            let error = read_error(frame.code, frame.payload);
            assert_ne!(error.kind, ErrorKind::Unknown);
        }
    }
}
