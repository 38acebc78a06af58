//! The bars on speed and memory, each measured against a baseline of the same run. It prints, and fails nothing.

mod contention;
mod listing;
mod port;
mod repository;
mod small;
mod world;

use alpine_benches::report::Report;
use std::path::Path;
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, ledger, older, files @ ..] = arguments.as_slice()
        && command == listing::FILL
    {
        return listing::fill(Path::new(ledger), older, files);
    }
    if let [command, arguments @ ..] = arguments.as_slice()
        && contention::is_one_of_many(command, arguments)
    {
        return;
    }
    let chosen = arguments.iter().find(|argument| !argument.starts_with('-'));
    let mut report = Report::default();
    for (name, measure) in PARTS {
        if chosen.is_some_and(|chosen| !name.contains(chosen.as_str())) {
            continue;
        }
        let start = Instant::now();
        eprintln!("measuring: {name}");
        measure(&mut report);
        eprintln!("  done in {:.0} s", start.elapsed().as_secs_f64());
    }
    println!("{}", report.text());
}

/// A part, which adds to the report.
type Part = fn(&mut Report);

/// What is measured; a word on the command line chooses the parts whose name holds it.
const PARTS: [(&str, Part); 8] = [
    ("version", small::version),
    ("list", listing::list),
    ("up with the fake provider", small::up),
    ("repository up and down", repository::up_and_down),
    ("supervisor", small::supervisor),
    ("port", port::port),
    ("contention: cold processes", contention::cold_processes),
    (
        "contention: a reader among writers",
        contention::reader_among_writers,
    ),
];
