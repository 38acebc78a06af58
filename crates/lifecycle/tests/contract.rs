//! The tables of `docs/contract.md` are printed here; `UPDATE_EXPECT=1` rewrites them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by a panic"
)]

use alpine_ledger::State;
use alpine_lifecycle::{DownFlags, Limits, plan_down};
use std::path::Path;

/// Compares what stands between the markers with `table`, or puts it there.
fn check(name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/contract.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let begin = format!("<!-- printed by a test: {name} -->\n");
    let start = text
        .find(&begin)
        .unwrap_or_else(|| panic!("docs/contract.md has no place for `{name}`"))
        + begin.len();
    let end = start + text[start..].find("<!-- end -->").unwrap();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, format!("{}{table}{}", &text[..start], &text[end..])).unwrap();
    } else {
        assert_eq!(
            &text[start..end],
            table,
            "`UPDATE_EXPECT=1 cargo test` rewrites it"
        );
    }
}

/// One test, since each part rewrites the same file.
#[test]
fn the_contract_has_the_tables_of_the_code() {
    let mut transitions = String::from("| from | may go to |\n|---|---|\n");
    for state in State::ALL {
        let next: Vec<_> = state
            .successors()
            .iter()
            .map(|next| next.as_str())
            .collect();
        let next = if next.is_empty() {
            "(none)".to_owned()
        } else {
            next.join(", ")
        };
        transitions.push_str(&format!("| {state} | {next} |\n"));
    }
    check("transitions", &transitions);

    let mut limits = String::from("| limit | default |\n|---|---|\n");
    let mut defaults = Limits::default();
    for (name, limit) in Limits::CONFIGURABLE {
        limits.push_str(&format!(
            "| {name} | {} s |\n",
            limit(&mut defaults).as_secs_f32()
        ));
    }
    check("limits", &format!("{limits}\n"));

    let mut down = String::from(
        "| state | `down` | `--retry-persist` | `--discard`, its digest | destroy pending |\n|---|---|---|---|---|\n",
    );
    for state in State::ALL {
        let plan = |pending, retry_persist, discard| {
            format!(
                "{:?}",
                plan_down(
                    state,
                    pending,
                    DownFlags {
                        retry_persist,
                        discard
                    }
                )
            )
        };
        let cells = [
            plan(false, false, false),
            plan(false, true, false),
            plan(false, false, true),
            plan(true, false, false),
        ];
        down.push_str(&format!("| {state} | {} |\n", cells.join(" | ")));
    }
    check("down", &down);
}
