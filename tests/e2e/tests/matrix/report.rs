//! The tables: how many points there are, and what came of those that were played.

use super::plan::{Blow, Operation, Point};
use super::play::Played;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// A row for each operation, a column for each blow.
fn table(cell: impl Fn(Operation, Option<Blow>) -> String) -> String {
    let names = Blow::ALL.map(|blow| match blow {
        Blow::Commit(_) => format!("commit: {}", blow.name()),
        Blow::Error
        | Blow::Transient
        | Blow::Hang
        | Blow::LostReply
        | Blow::Killed(_)
        | Blow::NoSpace
        | Blow::Jump(_) => format!("call: {}", blow.name()),
    });
    let mut table = format!("| operation | {} | all |\n", names.join(" | "));
    table.push_str(&format!("|---|{}\n", "---|".repeat(names.len() + 1)));
    for operation in Operation::ALL {
        let cells = Blow::ALL.map(|blow| cell(operation, Some(blow)));
        let (name, all) = (operation.name(), cell(operation, None));
        writeln!(table, "| {name} | {} | {all} |", cells.join(" | ")).expect("a text");
    }
    table
}

fn is_in(point: &Point, operation: Operation, blow: Option<Blow>) -> bool {
    point.operation == operation && blow.is_none_or(|blow| point.blow == blow)
}

/// Compares the number of points with what `docs/reliability.md` says, or puts it there.
pub(super) fn check_plan(points: &[Point]) {
    let counts = table(|operation, blow| {
        let points = points.iter().filter(|point| is_in(point, operation, blow));
        points.count().to_string()
    });
    let text = format!("{counts}\n{} points in all.\n", points.len());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reliability.md");
    let page = std::fs::read_to_string(&path).expect("docs/reliability.md");
    let begin = "<!-- printed by a test: the crash matrix -->\n";
    let start = page.find(begin).expect("a place for the crash matrix") + begin.len();
    let end = start + page[start..].find("<!-- end -->").expect("its end");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let page = format!("{}{text}{}", &page[..start], &page[end..]);
        std::fs::write(&path, page).expect("docs/reliability.md");
    } else {
        assert_eq!(
            &page[start..end],
            text,
            "`UPDATE_EXPECT=1 cargo test` rewrites it"
        );
    }
}

/// Prints what came of the points, and what was measured.
pub(super) fn tell(played: &[Played], took: Duration) {
    let results = table(|operation, blow| {
        let of: Vec<_> = played
            .iter()
            .filter(|played| is_in(&played.point, operation, blow))
            .collect();
        let sound = of.iter().filter(|played| played.broken().is_none()).count();
        format!("{sound}/{}", of.len())
    });
    let longest = |times: &mut dyn Iterator<Item = Duration>| times.max().unwrap_or_default();
    let recovery = longest(&mut played.iter().map(|played| played.recovery));
    let mut reads: Vec<_> = played
        .iter()
        .flat_map(|played| played.reads.clone())
        .collect();
    reads.sort();
    let sound = played
        .iter()
        .filter(|played| played.broken().is_none())
        .count();
    println!("{results}");
    println!(
        "{sound} of {} points are sound, played in {took:.0?}",
        played.len()
    );
    println!("longest recovery {recovery:.0?}, counted from the lease's end");
    let median = reads.get(reads.len() / 2).copied().unwrap_or_default();
    let worst = reads.last().copied().unwrap_or_default();
    println!(
        "{} reads meanwhile: median {median:.0?}, longest {worst:.0?}",
        reads.len()
    );
}
