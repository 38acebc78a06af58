//! The tables of the guide are printed from the code: `UPDATE_EXPECT=1` rewrites them.

use alpine_provider_api::{Feature, Method};
use alpine_provider_port::abi::Sent;
use alpine_provider_port::frame::*;
use alpine_provider_port::message::ERROR_KINDS;
use std::path::Path;

fn kinds() -> String {
    let says = |kind| match kind {
        Kind::Call => ("host", "a call; code is the method"),
        Kind::Cancel => (
            "host",
            "the caller gave up (1) or its deadline has passed (2); answer once all the same",
        ),
        Kind::Grant => ("both", "code is how many bytes more may be sent"),
        Kind::Input => (
            "host",
            "to a command: 0 data, 1 end of data, 2 the terminal's size, 3 a signal `{\"signal\"}`",
        ),
        Kind::Ping => ("both", "are you there?"),
        Kind::Pong => ("both", "yes; code is the ping's"),
        Kind::Ok => ("provider", "the reply, JSON"),
        Kind::Err => ("provider", "the failure; of call 0: why it can't be opened"),
        Kind::Event => (
            "provider",
            "1 progress `{\"what\",\"done\",\"total\"}`, 2 output, 3 error output, 4 a warning",
        ),
        Kind::Log => (
            "provider",
            "code is the level, 1 (error) to 5 (trace); `{\"target\",\"message\",\"fields\"}`",
        ),
        Kind::Hello => (
            "both, on a wire",
            "`{\"magic\":\"ALPNPRV1\",\"abi_min\",\"abi_max\",\"name\",\"version\",\"features\"}`",
        ),
        Kind::Open => ("host, on a wire", "`{\"config\":{…},\"place\":{…}}`"),
        Kind::Ready => ("provider, on a wire", "calls may come"),
    };
    let rows = Kind::ALL.map(|kind| {
        let (who, what) = says(kind);
        format!(
            "| {} | {} | {who} | {what} |\n",
            kind.number(),
            kind.as_str()
        )
    });
    "| kind | | who sends it | what |\n|---|---|---|---|\n".to_owned() + &rows.concat()
}

fn limits() -> String {
    format!(
        "| limit | |\n|---|---|\n| a control payload | {MAX_CONTROL} |\n| a chunk of a stream | {MAX_CHUNK} |\n\
         | a LOG | {MAX_LOG} |\n| LOGs a second; more are dropped and counted | {LOGS_PER_SECOND} |\n\
         | credit of a call's stream at first | {CREDIT} |\n| the least charge of a chunk | {MIN_CHARGE} |\n"
    )
}

fn sent() -> String {
    let rows = Sent::ALL.map(|sent| {
        let what = match sent {
            Sent::Ok => "taken",
            Sent::WouldBlock => "no credit: wait for GRANT, and send the chunk again",
            Sent::Gone => "there is no such call, or it was answered",
            Sent::Closed => "the port is closed",
            Sent::Unsupported => "no such kind or method",
            Sent::Panic => "it panicked",
            Sent::TooBig => "over the limit of its kind",
            Sent::Bad => "malformed",
        };
        format!("| {} | {what} |\n", sent.number())
    });
    "| | |\n|---|---|\n".to_owned() + &rows.concat()
}

fn methods() -> String {
    let names = Method::ALL.map(|method| format!("{} `{method}`", method.id()));
    names.join(" · ") + "\n"
}

fn errors() -> String {
    let names: Vec<_> = ERROR_KINDS
        .iter()
        .map(|(code, kind)| format!("{code} `{}`", kind.as_str()))
        .collect();
    names.join(" · ") + "\n"
}

fn features() -> String {
    let names = Feature::ALL.map(|feature| format!("`{}`", feature.as_str()));
    format!("Features: {}.\n", names.join(", "))
}

#[test]
fn the_guides_tables_are_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/providers.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut printed = text.clone();
    for (name, table) in [
        ("kinds", kinds()),
        ("limits", limits()),
        ("sent", sent()),
        ("methods", methods()),
        ("errors", errors()),
        ("features", features()),
    ] {
        let mark = format!("<!-- printed: {name} -->\n");
        let (before, rest) = printed.split_once(&mark).expect("a table's beginning");
        let (_, after) = rest.split_once("<!-- end -->").expect("a table's end");
        printed = format!("{before}{mark}{table}<!-- end -->{after}");
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &printed).unwrap();
    } else {
        assert!(
            text == printed,
            "`docs/providers.md` is not up to date: UPDATE_EXPECT=1"
        );
    }
}
