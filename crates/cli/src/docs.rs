//! The reference pages that are printed from the code: errors, commands, agents and configuration.

use crate::agents::Agents;
use crate::args::Cli;
use crate::time;
use alpine_lifecycle::{ErrorCode, Limits};
use clap::{Arg, Command, CommandFactory};
use std::fmt::Write as _;

/// `docs/errors.md`.
#[must_use]
pub fn errors() -> String {
    let mut page = "# Errors\n\nEvery failure has a code. With `--json` it is one document on standard output: `error_code`, `cause`, `next_step`, `retryable`, `operation_id`, `exit_code`.\n\
        Without it the same is told on standard error. Exit status 0: done. 1: you have to change something. 2: the system, a provider or the network failed.\n\
        130 and 143: interrupted by SIGINT or SIGTERM, after the state was recorded. `exec` passes its command's status on; there 125 is alpine's own failure.\n\n\
        Exit status and retry are the usual ones of a code; a failure that differs says so itself.\n\n\
        | code | exit | retry may help | when |\n|---|---|---|---|\n".to_owned();
    for (_, name, exit, retry, when) in ErrorCode::TABLE {
        row(
            &mut page,
            &[
                name,
                &exit.to_string(),
                if retry { "yes" } else { "no" },
                when,
            ],
        );
    }
    page
}

/// `docs/cli.md`.
#[must_use]
pub fn commands() -> String {
    let mut cli = Cli::command().term_width(100);
    cli.build();
    let mut page = "# Commands\n\nEvery command takes `--json`: then standard output carries exactly one JSON document, on success and on failure.\n\
        `events` and `logs -f` write one a line; `exec` passes its command's streams on, and only its own failures are JSON, on standard error.\n\n\
        Every command takes `--lock-timeout DURATION` as well (`2s`): for so long it waits for others that write the ledger; over `[ledger] lock_timeout`.\n".to_owned();
    let own = |command: &&Command| command.get_name() != "help";
    for command in cli.get_subcommands().filter(own) {
        describe(&mut page, command);
        for part in command.get_subcommands().filter(own) {
            describe(&mut page, part);
        }
    }
    page.push_str(&configuration());
    page.push_str(&repository());
    page
}

/// `docs/agents.md`.
#[must_use]
pub fn agents() -> String {
    let mut page = "# Agents\n\nAn agent is what answers at a session's address. `alpine up --agent NAME` picks one; `[agent] default` in `config.toml` picks it for good.\n\
        Without either it is `opencode` where its program is found (on `PATH`, at `[agents.opencode] path`, or at `ALPINE_OPENCODE`), else `page`.\n\
        For a provider that is not compiled in it is `page`, with a warning that says how to choose: what is installed here says nothing of\n\
        what its sandboxes have.\n\n\
        | agent | serves | program | asked whether it is ready | to install it |\n|---|---|---|---|---|\n".to_owned();
    let built_in = Agents::built_in().unwrap_or_default();
    for name in built_in.names() {
        let Some(agent) = built_in.get(name) else {
            continue;
        };
        let ready = agent.spec(name).ok().and_then(|spec| match spec.serve {
            alpine_provider_api::Serve::Process(server) => {
                Some(format!("`GET {}`", server.ready.path))
            }
            alpine_provider_api::Serve::None | alpine_provider_api::Serve::Page => None,
        });
        let code = |text: &str| format!("`{text}`");
        let program = agent.program().map_or("-".to_owned(), code);
        let install = agent.install().map_or("-".to_owned(), code);
        row(
            &mut page,
            &[
                &code(name),
                agent.serves(),
                &program,
                &ready.unwrap_or("-".to_owned()),
                &install,
            ],
        );
    }
    page.push_str("\n`command` is for a server of your own: it has no program until `[agents.command] argv` names one. Any other name makes another agent.\n\n\
        ## The built-in tables\n\nA table `[agents.NAME]` in `config.toml` has the same keys as these and changes a built-in agent key by key. `{port}` is the port to listen on, `{host}` the address,\n\
        `{id}` a transcript's id. Beside these: `path` (replaces the program), `port_env` (a variable that holds the port), `env_pass` (your variables that the agent gets; never recorded).\n\n```toml\n");
    page.push_str(crate::agents::BUILT_IN);
    page.push_str("```\n\n## What is kept of an agent\n\n`down` asks it for its transcripts: they are in the workspace snapshot as `transcript/agent/`. Where not all of them could be had\n\
        (the agent or its supervisor was killed, or does not answer), the local provider keeps the agent's own data as `agent-data/`\n\
        beside them; `down` warns of it, and `left_out` names `transcript`.\n");
    page
}

/// The defaults of `config.toml`, for `docs/cli.md`.
#[must_use]
pub fn configuration() -> String {
    let mut page = "\n## Configuration\n\n`config.toml` in `ALPINE_HOME` (default `~/.alpine`). Every key may be left out; `alpine config` shows what is in force. A key that this\n\
        version does not know is an error, and so is a file that others may write.\n\n| key | default | what it is |\n|---|---|---|\n".to_owned();
    for [key, default, what] in KEYS {
        row(&mut page, &[&format!("`{key}`"), default, what]);
    }
    let mut limits = Limits::default();
    for (name, place) in Limits::CONFIGURABLE {
        row(
            &mut page,
            &[
                &format!("`[limits] {name}`"),
                &time::span(*place(&mut limits)),
                "a time limit",
            ],
        );
    }
    row(
        &mut page,
        &[
            "`[limits] tries`",
            &limits.tries.to_string(),
            "how often a step is tried when its failures are transient",
        ],
    );
    page.push_str("\n### Variables\n\n| variable | what it is |\n|---|---|\n");
    for [name, what] in VARIABLES {
        row(&mut page, &[&format!("`{name}`"), what]);
    }
    page
}

/// What a repository may say, for `docs/cli.md`.
fn repository() -> String {
    let name = alpine_install_step::NAME;
    let mut page = format!(
        "\n## A repository's `{name}`\n\nA file at the top of the repository, on the branch that is worked on. All that it may say is how the repository's dependencies are\n\
        installed; isolation, network, mounts, variables, agent and provider are yours to choose and never a repository's. Anything else in it is `ERR_CONFIG_INVALID`.\n\n\
        ```toml\n{}```\n\nWithout `setup.install`, the first of these files that is there says what is run; without any of them nothing is. `--no-install` leaves the step out.\n\n\
        | file | what is run |\n|---|---|\n",
        alpine_install_step::EXAMPLE
    );
    for (file, command) in alpine_install_step::LOCK_FILES {
        row(&mut page, &[&format!("`{file}`"), &format!("`{command}`")]);
    }
    page
}

/// The keys of `config.toml`, but for the limits.
const KEYS: [[&str; 3]; 16] = [
    [
        "principal",
        "none",
        "who is calling, where no variable says so",
    ],
    [
        "[ledger] lock_timeout",
        "5 s",
        "how long a transaction waits for another process, without `--lock-timeout`",
    ],
    [
        "[ledger] allow_network_fs",
        "false",
        "accept a ledger on a file system over the network",
    ],
    [
        "[provider] default",
        "local",
        "the provider without `--provider`",
    ],
    [
        "[providers.NAME] kind",
        "-",
        "a provider that is not compiled in: \"dylib\" or \"exec\"; only this file and `alpine provider add` name one",
    ],
    [
        "[providers.NAME] path",
        "-",
        "its absolute path, without links; nothing on it may be writable by others",
    ],
    [
        "[providers.NAME] sha256",
        "-",
        "the digest that it is pinned to; a program (\"exec\") may be without",
    ],
    [
        "[providers.NAME] isolation",
        "process",
        "\"in-process\" loads a library into alpine itself: its crash is alpine's",
    ],
    [
        "[providers.NAME] env_allow",
        "none",
        "your variables that it gets; their values are secrets",
    ],
    [
        "[providers.NAME.config]",
        "none",
        "whatever the provider itself understands",
    ],
    ["[agent] default", "none", "the agent without `--agent`"],
    ["[agents.NAME]", "-", "an agent: see [agents](agents.md)"],
    [
        "[env] pass",
        "none",
        "more of your variables for the install step, the agent and `exec`",
    ],
    [
        "[git] token_hosts",
        "none",
        "hosts that may see the token, beside `github.com` and `GH_HOST`",
    ],
    [
        "[browser] open",
        "true",
        "whether a browser is opened at all",
    ],
    [
        "[browser] command",
        "`$BROWSER`, else `xdg-open`",
        "what opens it; `%s` stands for the link",
    ],
];

/// The variables that are read.
const VARIABLES: [[&str; 2]; 15] = [
    [
        "ALPINE_HOME",
        "where everything is kept; `~/.alpine` without it",
    ],
    [
        "ALPINE_LEDGER_PATH",
        "the ledger's file, if it is not `ledger.redb` in the home",
    ],
    ["ALPINE_PRINCIPAL_ID", "who is calling"],
    ["CF_ACCESS_SUB", "who is calling, without the former"],
    ["ALPINE_ADMIN", "`1` for an admin"],
    ["ALPINE_ROLES", "an admin's holds `alpine.admin`"],
    ["ALPINE_OPENCODE", "the path of OpenCode's program"],
    [
        "ALPINE_LOG",
        "what is logged to standard error: a filter such as `info` or `alpine_lifecycle=debug`",
    ],
    ["ALPINE_LOG_FORMAT", "`text` or `json`"],
    [
        "GITHUB_TOKEN, GH_TOKEN",
        "the token for repositories over HTTPS",
    ],
    ["GH_HOST", "one more host that may see it"],
    ["SSH_AUTH_SOCK", "the agent for repositories over SSH"],
    [
        "XDG_RUNTIME_DIR",
        "where sockets are; `run` in the home without it",
    ],
    [
        "TRACEPARENT",
        "the W3C trace that providers which are not compiled in are told of with every call",
    ],
    [
        "NO_COLOR, CI, BROWSER, DISPLAY, WAYLAND_DISPLAY, SSH_CONNECTION",
        "as usual",
    ],
];

fn describe(page: &mut String, command: &Command) {
    let text =
        |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    // Strings take every write.
    let _ = write!(
        page,
        "\n## {}\n\n{}.\n\n```text\n{usage}\n```\n\n",
        command.get_bin_name().unwrap_or_default(),
        text(command.get_about())
    );
    let arguments: Vec<_> = command
        .get_arguments()
        .filter(|argument| !["help", "json", "lock_timeout"].contains(&argument.get_id().as_str()))
        .collect();
    if !arguments.is_empty() {
        page.push_str("| argument | what it is |\n|---|---|\n");
        for argument in arguments {
            row(
                page,
                &[&format!("`{}`", name(argument)), &text(argument.get_help())],
            );
        }
        page.push('\n');
    }
    let after = text(command.get_after_help());
    if !after.is_empty() {
        let _ = writeln!(page, "```text\n{after}\n```");
    }
}

fn name(argument: &Arg) -> String {
    let values = argument.get_value_names().unwrap_or_default().join(" ");
    let takes = argument.get_action().takes_values();
    match (argument.get_long(), argument.get_short()) {
        (None, _) => values,
        (Some(long), Some(short)) if !takes => format!("-{short}, --{long}"),
        (Some(long), _) if takes => format!("--{long} {values}"),
        (Some(long), _) => format!("--{long}"),
    }
}

fn row(page: &mut String, cells: &[&str]) {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}
