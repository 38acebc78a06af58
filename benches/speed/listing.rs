//! `list`, in a process of its own each time.

use crate::world::{alpine, argument, document};
use alpine_benches::measure::{Samples, in_turns, peak_kib, proc_kib, run, run_and_read};
use alpine_benches::records;
use alpine_benches::report::{Bar, Report, mib, ms, ratio};
use alpine_testkit::TestEnv;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The word that makes this program fill a ledger. It is a process of its own, so that its memory does not count.
pub(crate) const FILL: &str = "fill-a-ledger";

const TURNS: usize = 200;
const SHOWN: &str = "1000";
/// As many sessions that ended days ago as make 100 000 in all.
const OLDER: u64 = 100_000 - records::ACTIVE - records::RECENT;

/// Fills a ledger, and writes the same sessions to files of the predecessor's shape.
pub(crate) fn fill(ledger: &Path, older: &str, files: &[String]) {
    records::fill(ledger, older.parse().expect("a number"));
    if let [whole, alone] = files {
        records::convert(ledger, Path::new(whole), Path::new(alone));
    }
}

/// A home with a ledger in it, and the files.
pub(crate) struct Filled {
    pub(crate) env: TestEnv,
    pub(crate) whole: PathBuf,
    alone: PathBuf,
}

impl Filled {
    pub(crate) fn new(older: u64) -> Self {
        let env = TestEnv::new();
        let (whole, alone) = (env.root().join("whole.json"), env.root().join("alone.json"));
        let mut command = env.command(&std::env::current_exe().expect("this program"));
        command
            .arg(FILL)
            .arg(env.alpine_home().join("ledger.redb"))
            .arg(older.to_string());
        if older == 0 {
            command.args([&whole, &alone]);
        }
        run(&mut command);
        Self { env, whole, alone }
    }

    pub(crate) fn list(&self, more: &[&str]) -> Command {
        let arguments = [&["list", "--limit", SHOWN], more].concat();
        alpine(&self.env, &arguments)
    }

    fn baseline(&self, file: &Path, more: &[&str]) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_json-baseline"));
        let mut command = self.env.command(program);
        command
            .args([argument(file), records::OWNER, SHOWN])
            .args(more);
        command
    }

    /// Whether both programs say the same.
    fn check(&self) {
        let read = |mut command: Command| run_and_read(&mut command).1;
        let ours = read(self.list(&["--json"]));
        let theirs = read(self.baseline(&self.whole, &["--json"]));
        assert_eq!(document(&ours), document(&theirs), "the same sessions");
        let shown = document(&ours)["sessions"].as_array().map_or(0, Vec::len);
        assert_eq!(shown as u64, records::ACTIVE + records::RECENT);
        let lines = |text: &str| text.lines().count();
        let ours = read(self.list(&[]));
        let theirs = read(self.baseline(&self.whole, &[]));
        assert_eq!(lines(&ours), lines(&theirs), "the same rows");
    }
}

pub(crate) fn list(report: &mut Report) {
    let small = Filled::new(0);
    small.check();
    memory(report, &small);
    let [ours, whole, alone, people, their_table] = in_turns(
        TURNS,
        [
            &mut || run(&mut small.list(&["--json"])),
            &mut || run(&mut small.baseline(&small.whole, &["--json"])),
            &mut || run(&mut small.baseline(&small.alone, &["--json"])),
            &mut || run(&mut small.list(&[])),
            &mut || run(&mut small.baseline(&small.whole, &[])),
        ],
    );
    let what = "`list --json`, 200 active and 500 recent sessions";
    within(report, what, &ours);
    against(report, &format!("{what} / one JSON file"), &ours, &whole);
    let value = ratio(ours.median(), alone.median());
    report.fact(
        "  … / a JSON file of the sessions alone, without requests and payloads",
        ms(ours.median()),
        ms(alone.median()),
        Some(value),
    );
    let what = "`list` for people, the same sessions";
    within(report, what, &people);
    against(
        report,
        &format!("{what} / one JSON file"),
        &people,
        &their_table,
    );
    sizes(report, &small);
    large(report, &small);
}

fn within(report: &mut Report, what: &str, ours: &Samples) {
    let p95 = ours.p95();
    let bar = Bar {
        value: p95.as_secs_f64() * 1000.0,
        most: 25.0,
        unit: "ms",
    };
    report.bar(&format!("{what}: p95"), ms(p95), "–".to_owned(), bar);
}

fn against(report: &mut Report, what: &str, ours: &Samples, theirs: &Samples) {
    let (ours, theirs) = (ours.median(), theirs.median());
    let bar = Bar {
        value: ratio(ours, theirs),
        most: 0.6,
        unit: "×",
    };
    report.bar(what, ms(ours), ms(theirs), bar);
}

fn large(report: &mut Report, small: &Filled) {
    let large = Filled::new(OLDER);
    let [at_700, at_100_000] = in_turns(
        TURNS,
        [&mut || run(&mut small.list(&["--json"])), &mut || {
            run(&mut large.list(&["--json"]))
        }],
    );
    let (ours, theirs) = (at_100_000.median(), at_700.median());
    let bar = Bar {
        value: ratio(ours, theirs),
        most: 1.3,
        unit: "×",
    };
    let what = "`list --json` of the same 700, of 100 000 sessions in all / of 700";
    report.bar(what, ms(ours), ms(theirs), bar);
    memory(report, &large);
}

fn memory(report: &mut Report, filled: &Filled) {
    let peak = peak_kib(&mut filled.list(&["--json"])).max(peak_kib(&mut filled.list(&[])));
    let theirs = filled
        .whole
        .exists()
        .then(|| peak_kib(&mut filled.baseline(&filled.whole, &["--json"])));
    let own = proc_kib(std::process::id(), "status", "VmHWM");
    let in_all = if filled.whole.exists() {
        "700"
    } else {
        "100 000"
    };
    let bar = Bar {
        value: mib(peak),
        most: 32.0,
        unit: "MiB",
    };
    report.bar(
        &format!("`list`, peak memory, {in_all} sessions in all"),
        format!("{:.1} MiB", mib(peak)),
        theirs.map_or_else(|| "–".to_owned(), |kib| format!("{:.1} MiB", mib(kib))),
        bar,
    );
    let floor = format!(
        "peak memory: the least that could be seen is {:.1} MiB, this bench's own",
        mib(own)
    );
    report.note(floor);
}

fn sizes(report: &mut Report, filled: &Filled) {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len() / 1024);
    report.note(format!(
        "the ledger of 700 sessions is {} KiB; the JSON file {} KiB, {} KiB of them sessions",
        size(&filled.env.alpine_home().join("ledger.redb")),
        size(&filled.whole),
        size(&filled.alone),
    ));
}
