//! What a provider makes of arguments.

use crate::bench::Bench;
use crate::called::{Checking, same};
use crate::catalogue::{Check, check};
use crate::repository::ODD_FILE;
use crate::sandbox::no_input;
use alpine_provider_api::{ExecReply, Secret};

pub(crate) const CHECKS: &[Check] = &[
    check!(
        Arguments,
        "arguments.missing_field",
        "a request that lacks a field is `invalid_argument`, and the provider goes on",
        crate::groups::boundary::calls::missing_field
    ),
    check!(
        Arguments,
        "arguments.unknown_field",
        "fields that this version does not know are ignored",
        crate::groups::boundary::calls::unknown_field
    ),
    check!(
        Arguments,
        "arguments.hostile_words",
        "words and variables reach a command byte for byte; nothing in them is interpreted",
        hostile_words,
        Exec
    ),
    check!(
        Arguments,
        "arguments.hostile_names",
        "names of branches, files and sessions that hold quotes, `$(…)` and `;` are names",
        hostile_names,
        SyncRepo
    ),
];

/// Each of them does harm where somebody puts it into a command line, a path or a format.
const WORDS: [&str; 12] = [
    "",
    " ",
    "two words",
    "it's \"quoted\"",
    "$(touch harm)",
    "`touch harm`",
    "; touch harm",
    "line\nbreak\ttab\r",
    "--help",
    "../../etc/passwd",
    "%s%n{}\\x00\\",
    "é 漢 \u{1f3d4} \u{202e}",
];

async fn hostile_words(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    let mut argv = vec![
        "sh",
        "-c",
        "printf '<%s>' \"$@\"; printf '[%s]' \"$WORD\"",
        "sh",
    ];
    argv.extend(WORDS);
    let expected: String = WORDS.iter().map(|word| format!("<{word}>")).collect();
    for word in WORDS {
        let mut request = sandbox.exec_request(&argv);
        let value = Secret::new(word.to_owned());
        request.env.insert("WORD".to_owned(), value);
        let told = sandbox.exec_as(request, no_input()).await?;
        let found = String::from_utf8_lossy(&told.stdout).into_owned();
        let reply = told.ok("exec runs `sh`")?;
        same("how it ends", &ExecReply::Exited(0), &reply)?;
        same("what arrives", &format!("{expected}[{word}]"), &found)?;
    }
    let found = sandbox.sh("ls -A").await?;
    same("what the words did", &String::new(), &found)
}

async fn hostile_names(bench: &Bench<'_>) -> Checking {
    let mut sandbox = bench.sandbox()?;
    sandbox.session = "ses_'\"$(touch harm);\n../../x".to_owned();
    let sandbox = sandbox.filled(&bench.repository().odd).await?;
    same("how often it is listed", &1, &sandbox.times_listed().await?)?;
    let branch = bench.repository().odd.branch.as_str();
    let found = sandbox.sh("cat .git/HEAD").await?;
    same("the branch", &format!("ref: refs/heads/{branch}\n"), &found)?;
    let found = sandbox.sh("ls -A | LC_ALL=C sort").await?;
    let expected =
        format!(".git\n.gitignore\nREADME.md\nbin\ndangling\n{ODD_FILE}\nsrc\nversion\n");
    same("the workspace", &expected, &found)
}
