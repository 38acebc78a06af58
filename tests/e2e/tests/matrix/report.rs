//! The tables: how many points there are, and what came of those that were played.

use super::Part;
use super::hosted::Fake;
use super::plan::{Blow, Operation, Point};
use super::play::Played;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// A row for each operation, where nothing else goes wrong and where some call fails anyway; a column for each blow.
fn table(blows: &[Blow], cell: impl Fn(Row, Option<Blow>) -> Option<String>) -> String {
    let names = blows.iter().map(|blow| match blow {
        Blow::Commit(_) => format!("commit: {}", blow.name()),
        Blow::Error
        | Blow::Transient
        | Blow::Hang
        | Blow::LostReply
        | Blow::Killed(_)
        | Blow::NoSpace
        | Blow::Jump(_) => format!("call: {}", blow.name()),
    });
    let names: Vec<String> = names.collect();
    let mut table = format!("| operation | {} | all |\n", names.join(" | "));
    table.push_str(&format!("|---|{}\n", "---|".repeat(names.len() + 1)));
    let rows = Operation::ALL.map(|operation| [false, true].map(|fails| (operation, fails)));
    for row in rows.into_iter().flatten() {
        let Some(all) = cell(row, None) else {
            continue;
        };
        let cells = blows.iter().map(|blow| cell(row, Some(*blow)));
        let cells: Vec<String> = cells.map(Option::unwrap_or_default).collect();
        let (name, fails) = (row.0.name(), if row.1 { ", a call fails" } else { "" });
        writeln!(table, "| {name}{fails} | {} | {all} |", cells.join(" | ")).expect("a text");
    }
    table
}

/// An operation, and whether some call in it fails whatever strikes.
type Row = (Operation, bool);

fn is_in(point: &Point, (operation, fails): Row, blow: Option<Blow>) -> bool {
    let scene = &point.scene;
    scene.operation == operation
        && scene.troubles.is_empty() != fails
        && blow.is_none_or(|blow| point.blow == blow)
}

/// Prints what came of the points, and what was measured; `docs/reliability.md` has what a run of all of them printed.
pub(super) fn tell(fake: &Fake, played: &[Played], took: Duration) {
    let (place, text) = match fake {
        Fake::CompiledIn => ("the crash matrix", told(&Blow::ALL, played, took)),
        Fake::Hosted(_) => (
            "the crash matrix of a hosted provider",
            told_of_hosted(played, took),
        ),
    };
    println!("{text}");
    if Part::asked() != Part::All || std::env::var_os("UPDATE_EXPECT").is_none() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reliability.md");
    let page = std::fs::read_to_string(&path).expect("docs/reliability.md");
    let begin = format!("<!-- printed by a test: {place} -->\n");
    let start = page.find(&begin).expect("a place for the crash matrix") + begin.len();
    let end = start + page[start..].find("<!-- end -->").expect("its end");
    let page = format!("{}{text}{}", &page[..start], &page[end..]);
    std::fs::write(&path, page).expect("docs/reliability.md");
}

/// The same; and how often the command was done in spite of all.
fn told_of_hosted(played: &[Played], took: Duration) -> String {
    let mut text = told(&Blow::KILLS, played, took);
    let went_on = played.iter().filter(|played| played.went_on).count();
    writeln!(
        text,
        "\nIn {went_on} of them the command itself was done; in the others it ended `ERR_PROVIDER_CRASHED`.",
    )
    .expect("a text");
    text
}

fn told(blows: &[Blow], played: &[Played], took: Duration) -> String {
    let is_sound = |played: &&Played| played.broken().is_none();
    let mut text = table(blows, |row, blow| {
        let of = || {
            let all = played.iter();
            all.filter(|played| is_in(&played.point, row, blow))
        };
        let all = of().count();
        (all > 0).then(|| format!("{}/{all}", of().filter(is_sound).count()))
    });
    let recovery = played.iter().map(|played| played.recovery).max();
    let mut reads: Vec<Duration> = played
        .iter()
        .flat_map(|played| played.reads.clone())
        .collect();
    reads.sort();
    let median = reads.get(reads.len() / 2).copied().unwrap_or_default();
    writeln!(
        text,
        "\n{} of {} points are sound, played in {took:.0?}. Longest recovery {:.0?}, counted from the lease's end. {} reads \
         meanwhile: median {median:.0?}, longest {:.0?}.",
        played.iter().filter(is_sound).count(),
        played.len(),
        recovery.unwrap_or_default(),
        reads.len(),
        reads.last().copied().unwrap_or_default(),
    )
    .expect("a text");
    text
}
