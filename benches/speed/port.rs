//! What the boundary to a provider costs: a small call, a start, a stream, a slow reader.

use crate::world::ALPINE;
use alpine_benches::measure::{Samples, in_turns, proc_kib};
use alpine_benches::report::{Bar, Report, mib, ms};
use alpine_provider_api::*;
use alpine_provider_port::{PortConfig, PortProvider, Source, Timings};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const CALLS: usize = 3000;
const STARTS: usize = 50;
const STREAMS: usize = 3;
const GIB: &str = "1024";
/// How long the slow reader takes over each chunk.
const SLOW: Duration = Duration::from_micros(200);

fn library() -> OwnedFd {
    let file = std::fs::File::open(alpine_fake_plugin::library()).expect("the library");
    file.into()
}

fn provider(source: Source) -> PortProvider {
    PortProvider::new(PortConfig {
        name: "fake".to_owned(),
        source,
        open: OpenRequest {
            config: serde_json::json!({ "state": "/nonexistent" }),
            place: Place::default(),
        },
        env: BTreeMap::new(),
        traceparent: None,
        redactor: Redactor::default(),
        timings: Timings::default(),
    })
}

fn hosted() -> PortProvider {
    provider(Source::Hosted {
        library: library(),
        program: ALPINE.into(),
    })
}

fn meta() -> Meta {
    Meta {
        operation_id: "op_1".to_owned(),
        fence: 1,
        attempt: 1,
        deadline_ms: 60_000,
        traceparent: None,
    }
}

fn odd(words: &[&str]) -> ExecRequest {
    let words = std::iter::once(&"odd").chain(words);
    ExecRequest {
        sandbox_id: SandboxId::new("sbx_1").expect("an id"),
        argv: words.map(|&word| word.to_owned()).collect(),
        env: BTreeMap::new(),
    }
}

fn small(runtime: &Runtime, to: &dyn SandboxProvider) -> Duration {
    let start = Instant::now();
    let call = Call::quiet(meta());
    let asked = to.exec(&call, odd(&["nothing"]), mpsc::channel(1).1);
    runtime.block_on(asked).expect("a reply");
    start.elapsed()
}

/// A stream, read by one who takes `slow` over each chunk; how long it took, and the most memory that it took.
fn stream(runtime: &Runtime, to: &dyn SandboxProvider, slow: Duration) -> (Duration, u64) {
    let (events, mut said) = mpsc::channel(64);
    let call = Call::new(meta(), events);
    let (start, before) = (Instant::now(), resident());
    let (mut bytes, mut most) = (0, before);
    runtime.block_on(async {
        let ask = async {
            let reply = to.exec(&call, odd(&["stream", GIB]), mpsc::channel(1).1);
            let reply = reply.await;
            drop(call);
            reply.expect("a reply");
        };
        let read = async {
            let mut chunks = 0_u64;
            while let Some(event) = said.recv().await {
                if let CallEvent::Stdout(chunk) = event {
                    bytes += chunk.len();
                }
                if !slow.is_zero() {
                    tokio::time::sleep(slow).await;
                    chunks += 1;
                    if chunks.is_multiple_of(64) {
                        most = most.max(resident());
                    }
                }
            }
        };
        tokio::join!(ask, read);
    });
    assert_eq!(bytes, 1 << 30, "a whole stream");
    (start.elapsed(), most - before)
}

fn resident() -> u64 {
    proc_kib(std::process::id(), "status", "VmRSS")
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn port(report: &mut Report) {
    let runtime = Runtime::new().expect("a runtime");
    let compiled_in = alpine_fake_plugin::FakePlugin::new("/nonexistent".into(), false);
    let here = provider(Source::InProcess { library: library() });
    let child = hosted();
    calls(report, &runtime, [&compiled_in, &here, &child]);
    starts(report, &runtime);
    let mut fast = Samples::default();
    for _ in 0..STREAMS {
        fast.add(stream(&runtime, &child, Duration::ZERO).0);
    }
    let bar = Bar {
        value: fast.median().as_secs_f64(),
        most: 2.0,
        unit: "s",
    };
    let rate = format!("{:.2} GiB/s", 1.0 / fast.median().as_secs_f64());
    report.bar("hosted: a stream of 1 GiB", rate, "–".to_owned(), bar);
    let (took, grown) = stream(&runtime, &child, SLOW);
    let bar = Bar {
        value: mib(grown),
        most: 8.0,
        unit: "MiB",
    };
    let ours = format!("{:.1} MiB in {}", mib(grown), ms(took));
    let what = "hosted: growth of the host by a slow reader of 1 GiB";
    report.bar(what, ours, "–".to_owned(), bar);
}

fn calls(report: &mut Report, runtime: &Runtime, to: [&dyn SandboxProvider; 3]) {
    let [baseline, here, child] = in_turns(
        CALLS,
        [
            &mut || small(runtime, to[0]),
            &mut || small(runtime, to[1]),
            &mut || small(runtime, to[2]),
        ],
    );
    let baseline = micros(baseline.median());
    for (what, samples, most) in [
        (
            "a small call, in process, beside the compiled-in one",
            here,
            40.0,
        ),
        (
            "a small call, hosted, beside the compiled-in one",
            child,
            120.0,
        ),
    ] {
        let median = micros(samples.median());
        let bar = Bar {
            value: median - baseline,
            most,
            unit: "µs",
        };
        let ours = format!("{median:.1} µs (p95 {:.1})", micros(samples.p95()));
        report.bar(what, ours, format!("{baseline:.1} µs"), bar);
    }
}

fn starts(report: &mut Report, runtime: &Runtime) {
    let [start] = in_turns(
        STARTS,
        [&mut || {
            let start = Instant::now();
            let provider = hosted();
            small(runtime, &provider);
            start.elapsed()
        }],
    );
    let bar = Bar {
        value: start.median().as_secs_f64() * 1000.0,
        most: 6.0,
        unit: "ms",
    };
    let ours = format!("{} (p95 {})", ms(start.median()), ms(start.p95()));
    report.bar("hosted: start and first call", ours, "–".to_owned(), bar);
}
