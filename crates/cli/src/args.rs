//! The commands and their flags.

mod ledger;
mod provider;

pub(crate) use ledger::{LedgerArgs, LedgerCommand};
pub(crate) use provider::{CheckArgs, ProviderArgs, ProviderCommand};

use crate::config::duration;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::time::Duration;

/// Sandboxed sessions for a coding agent on a git branch: brought up in one command, brought down without losing a byte.
#[derive(Debug, Parser)]
#[command(
    name = "alpine",
    version,
    subcommand_required = true,
    after_help = "Examples:\n  alpine up . --branch main\n  alpine list\n  alpine down <session>\n\nA session is named by its id, by the start of its id, or by its --name."
)]
pub(crate) struct Cli {
    /// Print JSON: exactly one document on standard output; events and followed logs one a line, exec none
    #[arg(long, global = true, overrides_with = "json")]
    pub(crate) json: bool,
    /// How long to wait for others that write the ledger, for example 2s [default: 5s, or as configured]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, overrides_with = "lock_timeout")]
    pub(crate) lock_timeout: Option<Duration>,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring a session up on a branch of a repository, and wait until it is ready
    Up(UpArgs),
    /// Bring a session down: stop it, store its work, verify that, then clean up
    Down(DownArgs),
    /// List sessions: the active ones, those that wait for you, and those of the last 24 hours
    List(ListArgs),
    /// Show everything that is known of a session
    Status(StatusArgs),
    /// Run a command in a session
    Exec(ExecArgs),
    /// Show what the install step or the agent printed
    Logs(LogsArgs),
    /// Make a fresh one-time link to a session's agent, and open it
    Open(OpenArgs),
    /// Finish what was interrupted, and make the ledger and the providers agree
    Reconcile(ReconcileArgs),
    /// Show what happened, event by event
    Events(EventsArgs),
    /// Show a session's operations, with their steps
    Ops(OpsArgs),
    /// Show what admins did to others' sessions (admins)
    Audit(AuditArgs),
    /// Count how operations went, over a window that ends now
    Stats(StatsArgs),
    /// Look after the ledger: check, repair, back up, export, import, compact
    Ledger(LedgerArgs),
    /// Look after the providers: list, inspect, add, check, remove
    Provider(ProviderArgs),
    /// Show what is configured, and where each value comes from
    #[command(after_help = "Examples:\n  alpine config\n  alpine config --json")]
    Config,
    /// Print a shell's completions
    Completions(CompletionsArgs),
}

/// The flags of `up`.
#[derive(Debug, Args)]
#[command(
    override_usage = "alpine up [OPTIONS] --branch <BRANCH> <GIT-REPO>",
    after_help = "Examples:
  alpine up . --branch main
  alpine up https://github.com/octocat/hello --branch main --name hello
  alpine up git@github.com:octocat/hello --branch fix --agent none --json
  alpine up . --branch main --env OPENAI_API_KEY --client-request-id build-17

The same --client-request-id again answers the same request again: it never makes a second session."
)]
pub(crate) struct UpArgs {
    /// The repository: https://…, ssh://…, git@host:path, file:///… or a path
    #[arg(value_name = "GIT-REPO")]
    pub(crate) repo: String,
    /// The branch to work on (required)
    #[arg(long, value_name = "BRANCH", allow_hyphen_values = true)]
    pub(crate) branch: Option<String>,
    /// Your id of this request; repeating it is safe [default: a random one]
    #[arg(long, value_name = "ID")]
    pub(crate) client_request_id: Option<String>,
    /// The repository is public: do without a credential
    #[arg(long)]
    pub(crate) public: bool,
    /// Do not open a browser
    #[arg(long, overrides_with = "no_browser")]
    pub(crate) no_browser: bool,
    /// A name for the session: up to 64 of a-z, 0-9 and -
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// What makes the sandbox [default: local]
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) provider: Option<String>,
    /// What serves the session's page [default: opencode where `local` finds it, else page]
    #[arg(long, value_name = "AGENT")]
    pub(crate) agent: Option<String>,
    /// A variable for the agent alone; without a value, yours is passed on (repeatable)
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Leave the install step out
    #[arg(long)]
    pub(crate) no_install: bool,
    /// Accept weak isolation
    #[arg(long)]
    pub(crate) allow_unsandboxed: bool,
    /// The time limit in all, for example 5m [default: 12m]
    #[arg(long, value_name = "DURATION", overrides_with = "timeout")]
    pub(crate) timeout: Option<String>,
}

/// The flags of `down`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine down ses_4f2a
  alpine down my-session --json
  alpine down ses_4f2a --cancel
  alpine down ses_4f2a --retry-persist

Nothing of a workspace is deleted before its durable object has been read back and verified. What it holds is in
objects/OBJECT/workspace.tar.zst of ALPINE_HOME, where OBJECT is what `down` and `status` print as `object`:
  mkdir restored && tar --zstd -xf ~/.alpine/objects/OBJECT/workspace.tar.zst -C restored")]
pub(crate) struct DownArgs {
    /// The session: its id, the start of it, or its name
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
    /// Try again to store a workspace that could not be stored
    #[arg(long)]
    pub(crate) retry_persist: bool,
    /// Abort an `up` that is still running
    #[arg(long)]
    pub(crate) cancel: bool,
    /// Give a workspace up that can't be stored; its digest is printed where this applies
    #[arg(long, value_name = "DIGEST")]
    pub(crate) discard: Option<String>,
    /// Why; required when an admin acts on another's session
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// The time limit in all, for example 5m [default: 3m, and the time in which bytes move]
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
}

/// The flags of `reconcile`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine reconcile
  alpine reconcile --dry-run --json
  alpine reconcile ses_4f2a

An `up` that was interrupted is left to its own request for 15 minutes. A sandbox that no session owns is saved as a
durable object first, and destroyed when it is found again an hour later.")]
pub(crate) struct ReconcileArgs {
    /// The one session [default: all of yours]
    #[arg(value_name = "SESSION", conflicts_with = "all")]
    pub(crate) session: Option<String>,
    /// Every owner's sessions (admins)
    #[arg(long)]
    pub(crate) all: bool,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The flags of `list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine list
  alpine list --state ready,stopping
  alpine list --all --limit 1000 --json")]
pub(crate) struct ListArgs {
    /// Everybody's sessions (admins only)
    #[arg(long)]
    pub(crate) all_owners: bool,
    /// Only sessions in these states (repeatable, or separated by commas)
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub(crate) state: Vec<String>,
    /// Ended sessions too, however old
    #[arg(long)]
    pub(crate) all: bool,
    /// The most sessions to list [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
}

/// The flags of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine status ses_4f2a
  alpine status my-session --json")]
pub(crate) struct StatusArgs {
    /// The session: its id, the start of it, or its name
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
}

/// The flags of `exec`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine exec ses_4f2a -- git status
  alpine exec my-session -- sh -c 'make test' < input.txt

Standard input, output and error are the command's, and so is the exit status; 125 says that alpine itself failed.")]
pub(crate) struct ExecArgs {
    /// The session: its id, the start of it, or its name
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
    /// The program and its arguments
    #[arg(value_name = "ARGV", last = true, required = true)]
    pub(crate) argv: Vec<String>,
}

/// The flags of `logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine logs ses_4f2a
  alpine logs my-session -f
  alpine logs ses_4f2a --step install --json")]
pub(crate) struct LogsArgs {
    /// The session: its id, the start of it, or its name
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
    /// Go on as it grows
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Whose log [default: agent once one was started, else install]
    #[arg(long, value_name = "STEP", value_enum)]
    pub(crate) step: Option<LogStep>,
}

/// Whose log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogStep {
    /// The install step's.
    Install,
    /// The agent's.
    Agent,
}

/// The flags of `open`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine open ses_4f2a
  alpine open my-session --print
  alpine open ses_4f2a --credentials --json")]
pub(crate) struct OpenArgs {
    /// The session: its id, the start of it, or its name
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
    /// Print the address, the user name and the password instead of a link
    #[arg(long)]
    pub(crate) credentials: bool,
    /// Print the link and open nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// The same as --print
    #[arg(long)]
    pub(crate) no_browser: bool,
}

/// The flags of `events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine events
  alpine events --follow --session ses_4f2a
  alpine events --follow --after 1207 --json

The number of an event is a cursor: --after it gives what came later, once each. A `gap` says which events are no longer
kept. You see the events of your sessions; an admin sees all.")]
pub(crate) struct EventsArgs {
    /// Go on with what happens next
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what came after the event of that number
    #[arg(long, value_name = "SEQ")]
    pub(crate) after: Option<u64>,
    /// Only one session's: its id, the start of it, or its name
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
}

/// The flags of `ops`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine ops ses_4f2a
  alpine ops my-session --json")]
pub(crate) struct OpsArgs {
    /// The session: its id, the start of it, or its name
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
}

/// The flags of `audit`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ALPINE_ADMIN=1 alpine audit
  ALPINE_ADMIN=1 alpine audit --limit 1000 --json")]
pub(crate) struct AuditArgs {
    /// The most records to show, newest first [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
}

/// The flags of `stats`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine stats
  alpine stats --since 24h --json
  ALPINE_ADMIN=1 alpine stats --all-owners --prometheus > /var/lib/node_exporter/alpine.prom

Operations count that were admitted in the window. A success rate is of those that have ended; a session that was
interrupted counts the time until it was ready after all.")]
pub(crate) struct StatsArgs {
    /// How long the window is [default: 7d]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// As text for Prometheus' textfile collector
    #[arg(long)]
    pub(crate) prometheus: bool,
    /// Everybody's sessions (admins only)
    #[arg(long)]
    pub(crate) all_owners: bool,
}

/// The flags of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine completions bash > ~/.local/share/bash-completion/completions/alpine
  alpine completions zsh > \"${fpath[1]}/_alpine\"
  alpine completions fish > ~/.config/fish/completions/alpine.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: Shell,
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed_and_have_examples() {
        let mut cli = Cli::command();
        cli.clone().debug_assert();
        for command in cli.get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }
}
