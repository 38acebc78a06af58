//! The checks of `up` that need no network and leave nothing behind.

use crate::agents::{AgentTable, Agents};
use crate::args::UpArgs;
use crate::config::{Config, LOCAL, Variables, duration, is_variable, passed};
use crate::parse::usage;
use crate::work::Work;
use alpine_ledger::State;
use alpine_lifecycle::{ErrorCode, Failure, UNKEPT, UpRequest, preflight, quoted};
use alpine_provider_api::{BranchName, RepoUrl, RepoUrlError, Secret};
use rustix::fs::Access;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The agent that is taken where it is found.
const PREFERRED: &str = "opencode";

/// What the engine is asked for, or what is wrong with it.
pub(super) fn request(
    work: &mut Work,
    config: &Config,
    args: UpArgs,
) -> Result<UpRequest, Failure> {
    let caller = config.caller()?;
    let repo = repo(&args.repo)?;
    if let Err(missing) = present(&repo) {
        let id = args.client_request_id.as_deref();
        if !id.is_some_and(|id| is_answered(work, config, &caller.principal, id)) {
            return Err(missing);
        }
    }
    let branch = branch(args.branch.as_deref().unwrap_or_default())?;
    args.name.as_deref().map_or(Ok(()), name)?;
    let client_request_id = match args.client_request_id {
        Some(id) => request_id(id)?,
        None => uuid::Builder::from_random_bytes((work.setup.env().random)().to_be_bytes())
            .into_uuid()
            .to_string(),
    };
    holds_no_secret(
        work,
        &repo,
        &branch,
        args.name.as_deref(),
        &client_request_id,
    )?;
    let timeout = args
        .timeout
        .as_deref()
        .map(|text| timeout(text, "up"))
        .transpose()?;
    let spelled = args
        .env
        .iter()
        .filter_map(|text| Some(text.split_once('=')?.0.to_owned()))
        .collect();
    let given = args
        .env
        .iter()
        .map(|text| variable(text, &work.variables))
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let credential = preflight(&repo, args.public, &config.credentials)?;
    let provider = args
        .provider
        .unwrap_or_else(|| config.provider.value.clone());
    let (agent, warning) = choose(config, &work.variables, &provider, args.agent);
    let table = config.agents.check(&agent)?;
    let unused = (!given.is_empty() && table.serves() != "process")
        .then(|| format!("`--env` has no effect: the agent `{agent}` runs no program"));
    let env = variables(work, table, given)?;
    Ok(UpRequest {
        caller,
        client_request_id,
        repo,
        branch,
        public: args.public,
        credential,
        provider,
        agent,
        name: args.name,
        env,
        spelled,
        no_install: args.no_install,
        allow_unsandboxed: args.allow_unsandboxed,
        no_browser: args.no_browser,
        timeout,
        warnings: warning.into_iter().chain(unused).collect(),
    })
}

/// A repository's address.
fn repo(given: &str) -> Result<RepoUrl, Failure> {
    let invalid =
        |cause: String| Failure::new(ErrorCode::InvalidRepoUrl, cause).next("alpine up --help");
    // Only a relative path needs it.
    let directory = std::env::current_dir();
    let parsed = RepoUrl::parse(given, directory.as_deref().unwrap_or(Path::new("")));
    parsed.map_err(|error| match error {
        RepoUrlError::Relative => {
            let why = directory.err().map(|error| error.to_string());
            let why = why.unwrap_or_else(|| error.to_string());
            invalid(format!("the current directory can't be found: {why}")).next("cd /")
        }
        RepoUrlError::Credentials if given.to_ascii_lowercase().starts_with("ssh:") => {
            invalid(error.to_string()).next("ssh-add -l  # and leave the password out of the URL")
        }
        RepoUrlError::Credentials => invalid(error.to_string())
            .next("export GITHUB_TOKEN=…  # and leave user and password out of the URL"),
        RepoUrlError::Query => invalid(error.to_string())
            .next("export GITHUB_TOKEN=…  # and leave the query out of the URL"),
        RepoUrlError::Empty
        | RepoUrlError::Character
        | RepoUrlError::Option
        | RepoUrlError::Transport(_)
        | RepoUrlError::PlainHttp
        | RepoUrlError::Part(_) => invalid(error.to_string()),
    })
}

/// A repository on this machine has to be there.
fn present(repo: &RepoUrl) -> Result<(), Failure> {
    let Some(path) = repo.local_path() else {
        return Ok(());
    };
    let shown = path.to_string_lossy();
    let (cause, next) = if !path.is_dir() {
        let cause = format!("there is no directory `{shown}`");
        (cause, format!("ls -ld {}", quoted(&shown)))
    } else if !is_repository(path) {
        let cause = format!("`{shown}` is not the top of a git repository");
        let next = format!("git -C {} rev-parse --show-toplevel", quoted(&shown));
        (cause, next)
    } else {
        return Ok(());
    };
    Err(Failure::new(ErrorCode::InvalidRepoUrl, cause).next(next))
}

/// Whether the ledger answers the request, and nothing of the repository is needed any more.
fn is_answered(work: &Work, config: &Config, owner: &str, id: &str) -> bool {
    let state = work.ledger_to_read(config).and_then(|ledger| {
        let state = ledger.read(|snapshot| {
            let session = snapshot.request(owner, id)?;
            let session = session.map(|id| snapshot.session(&id)).transpose()?;
            Ok(session.flatten().map(|session| session.state))
        });
        Ok(state?)
    });
    let needs_it = |state| {
        use State::{Installing, Provisioning, RepoSyncing, Requested};
        matches!(state, Requested | Provisioning | RepoSyncing | Installing)
    };
    // What is wrong with the ledger is told by who needs it.
    state.is_ok_and(|state| state.is_some_and(|state| !needs_it(state)))
}

/// Whether a directory looks like a repository: with a working tree, or bare. git itself is not asked, since it would
/// read the repository's configuration.
fn is_repository(path: &Path) -> bool {
    path.join(".git").exists() || path.join("HEAD").is_file() && path.join("objects").is_dir()
}

fn branch(given: &str) -> Result<BranchName, Failure> {
    if given.is_empty() {
        return Err(
            Failure::new(ErrorCode::BranchRequired, "`--branch` is empty").next("alpine up --help"),
        );
    }
    BranchName::new(given).ok_or_else(|| {
        let shown: String = given.escape_debug().take(100).collect();
        // As `--branch`, git takes this one for `HEAD`.
        let check = match given {
            "@" => "git check-ref-format --allow-onelevel @".to_owned(),
            _ => format!("git check-ref-format --branch {}", quoted(given)),
        };
        Failure::new(
            ErrorCode::InvalidBranch,
            format!("git would not take `{shown}` as a branch's name"),
        )
        .next(check)
    })
}

/// What is recorded for good may not hold the value of a secret variable: it could not be taken out again.
fn holds_no_secret(
    work: &Work,
    repo: &RepoUrl,
    branch: &BranchName,
    name: Option<&str>,
    request_id: &str,
) -> Result<(), Failure> {
    let checked = [
        (ErrorCode::InvalidRepoUrl, "the repository", repo.as_str()),
        (ErrorCode::InvalidBranch, "the branch", branch.as_str()),
        (ErrorCode::Usage, "`--name`", name.unwrap_or_default()),
        (ErrorCode::Usage, "`--client-request-id`", request_id),
    ];
    match checked
        .iter()
        .find(|(_, _, text)| work.redactor().finds(text))
    {
        None => Ok(()),
        Some((code, what, text)) => {
            let variable = work.variables.secret_in(text);
            let variable = variable.map_or_else(
                || "a secret variable of your environment".to_owned(),
                |name| format!("your environment's secret variable `{name}`"),
            );
            let cause = format!("{what} holds the value of {variable}");
            Err(Failure::new(*code, cause).next("alpine up --help"))
        }
    }
}

fn name(given: &str) -> Result<(), Failure> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=64).contains(&given.len()) && given.bytes().all(fits) {
        Ok(())
    } else {
        Err(usage(
            "`--name` has to be 1 to 64 characters of a-z, 0-9 and `-`",
            "alpine up --help",
        ))
    }
}

fn request_id(given: String) -> Result<String, Failure> {
    if (1..=256).contains(&given.len())
        && !given.trim().is_empty()
        && !given.chars().any(char::is_control)
    {
        Ok(given)
    } else {
        Err(usage(
            "`--client-request-id` has to be 1 to 256 bytes without control characters, and not blank",
            "alpine up --help",
        ))
    }
}

/// `--timeout`.
pub(crate) fn timeout(given: &str, command: &str) -> Result<Duration, Failure> {
    duration(given).map_err(|why| {
        usage(
            format!("`--timeout` has to be a duration such as `90s` or `5m`: {why}"),
            &format!("alpine {command} --help"),
        )
    })
}

/// `--env KEY=VALUE`, or `--env KEY` with the caller's own value.
fn variable(given: &str, variables: &Variables) -> Result<(String, Secret<String>), Failure> {
    let (name, value) = match given.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (given, None),
    };
    if !is_variable(name) {
        // What was given may be a secret that was put in the wrong place: it is not repeated.
        return Err(usage(
            "`--env` takes `KEY` or `KEY=VALUE`, where KEY is letters, digits and `_`, not a digit first",
            "alpine up --help",
        ));
    }
    let value = match value {
        // A command that was pasted as it was told.
        Some(UNKEPT) => {
            return Err(usage(
                format!(
                    "`--env {name}={UNKEPT}`: the values of variables are never kept; give it again in the place of `{UNKEPT}`"
                ),
                "alpine up --help",
            ));
        }
        Some(value) => value,
        None => variables.get(name)?.ok_or_else(|| {
            usage(
                format!("`--env {name}`: your environment has no `{name}`"),
                &format!("export {name}=…"),
            )
        })?,
    };
    Ok((name.to_owned(), Secret::new(value.to_owned())))
}

/// What the agent alone gets: its `env_pass`, then `--env`. The redactor looks for all of it from now on.
fn variables(
    work: &mut Work,
    agent: &AgentTable,
    given: BTreeMap<String, Secret<String>>,
) -> Result<BTreeMap<String, Secret<String>>, Failure> {
    let mut env: BTreeMap<_, _> = passed(&work.variables, &agent.env_pass)?
        .into_iter()
        .map(|(name, value)| (name, Secret::new(value)))
        .collect();
    env.extend(given);
    for value in env.values() {
        work.learn(value);
    }
    Ok(env)
}

/// The agent, and what the user should know about the choice.
fn choose(
    config: &Config,
    variables: &Variables,
    provider: &str,
    asked: Option<String>,
) -> (String, Option<String>) {
    match asked.or_else(|| config.agent.value.clone()) {
        Some(agent) => (agent, None),
        None if config.providers.get(provider).is_some() => elsewhere(provider),
        None => here(&config.agents, variables),
    }
}

/// This machine's programs are those of a sandbox that is made here.
fn here(agents: &Agents, variables: &Variables) -> (String, Option<String>) {
    let preferred = agents.get(PREFERRED);
    if preferred
        .and_then(AgentTable::program)
        .is_some_and(|program| is_found(program, variables))
    {
        return (PREFERRED.to_owned(), None);
    }
    let install = preferred
        .and_then(AgentTable::install)
        .unwrap_or("see its documentation");
    let warning = format!(
        "`{PREFERRED}` was not found, so the agent is the built-in page; to install it: {install}"
    );
    ("page".to_owned(), Some(warning))
}

/// An agent that its user has to install is there before there is a session that needs it. What a sandbox of another
/// provider has is not known here.
pub(super) fn startable(
    config: &Config,
    variables: &Variables,
    request: &UpRequest,
) -> Result<(), Failure> {
    if request.provider != LOCAL || request.env.contains_key("PATH") {
        return Ok(());
    }
    let table = config.agents.check(&request.agent)?;
    not_installed(&request.agent, table, variables).map_or(Ok(()), Err)
}

/// A program in the workspace, and one that nobody says how to install, may be brought by the repository's install step.
fn not_installed(name: &str, table: &AgentTable, variables: &Variables) -> Option<Failure> {
    let (program, install) = (table.program()?, table.install()?);
    let in_workspace = program.contains('/') && !program.starts_with('/');
    if in_workspace || table.serves() != "process" || is_found(program, variables) {
        return None;
    }
    let cause = format!("the agent `{name}` can't be started: `{program}` was not found");
    Some(Failure::new(ErrorCode::AgentNotReady, cause).next(install))
}

/// What a sandbox of another provider has is known when there is one, and the agent is chosen before: the page needs nothing.
fn elsewhere(provider: &str) -> (String, Option<String>) {
    let warning = format!(
        "the agent is the built-in page, since it is not known which programs the sandboxes of provider `{provider}` have; \
         where `{PREFERRED}` is one: `--agent {PREFERRED}`, or `default` in `[agent]` of `config.toml`"
    );
    ("page".to_owned(), Some(warning))
}

/// Whether a program can be started.
fn is_found(program: &str, variables: &Variables) -> bool {
    let runs = |path: &Path| path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok();
    if program.contains('/') {
        return runs(Path::new(program));
    }
    let path = variables.lenient("PATH").unwrap_or_default();
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .any(|directory| runs(&Path::new(directory).join(program)))
}

#[cfg(test)]
mod tests {
    use super::{
        branch, elsewhere, here, is_found, name, not_installed, present, repo, request_id, timeout,
        variable,
    };
    use crate::agents::Agents;
    use crate::config::Variables;
    use proptest::prelude::*;

    fn code<T>(result: Result<T, alpine_lifecycle::Failure>) -> &'static str {
        result.err().map_or("ok", |failure| failure.code.as_str())
    }

    #[test]
    fn repositories_on_this_machine_have_to_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let there = |given: &str| code(repo(given).and_then(|repo| present(&repo)));
        assert_eq!(there(path), "ERR_INVALID_REPO_URL");
        assert_eq!(there(&format!("{path}/nowhere")), "ERR_INVALID_REPO_URL");
        std::fs::create_dir(directory.path().join(".git")).unwrap();
        assert_eq!(there(path), "ok");
        assert_eq!(there("https://github.com/o/r"), "ok");
    }

    #[test]
    fn hostile_input_is_refused_and_its_secrets_are_not_repeated() {
        for given in [
            "",
            "-x",
            "ext::sh -c x",
            "a\u{1b}b",
            "http://example.org/x",
            "--upload-pack=x",
        ] {
            assert_eq!(code(repo(given)), "ERR_INVALID_REPO_URL", "{given}");
        }
        let failure = repo("https://user:hunter2hunter2@host/x").unwrap_err();
        assert!(!failure.cause.contains("hunter2"), "{failure}");
        let failure = variable("sk-hunter2hunter2", &Variables::default()).unwrap_err();
        assert!(!failure.cause.contains("hunter2"), "{failure}");
        for given in ["-x", "a..b", "a b", "HEAD", "x.lock", "a\u{7}"] {
            assert_eq!(code(branch(given)), "ERR_INVALID_BRANCH", "{given:?}");
        }
        assert_eq!(code(branch("")), "ERR_BRANCH_REQUIRED");
    }

    #[test]
    fn what_to_do_next_fits_what_was_given() {
        for (url, next) in [
            ("ssh://git:hunter2hunter2@host/x", "ssh-add -l"),
            ("https://hunter2hunter2@host/x", "export GITHUB_TOKEN=…"),
        ] {
            let failure = repo(url).unwrap_err();
            assert!(failure.next_step.starts_with(next), "{failure:?}");
        }
        // What git is asked refuses it, too.
        for given in ["@", "a..b"] {
            let failure = branch(given).unwrap_err();
            let git = std::process::Command::new("sh")
                .args(["-c", &failure.next_step])
                .output();
            assert!(!git.unwrap().status.success(), "{failure:?}");
        }
    }

    #[test]
    fn names_ids_times_and_variables() {
        assert_eq!(code(name("a-1")), "ok");
        for wrong in ["", "A", "a_b", &"a".repeat(65)] {
            assert_eq!(code(name(wrong)), "ERR_USAGE", "{wrong}");
        }
        assert_eq!(code(request_id("build 17".to_owned())), "ok");
        for wrong in ["", " ", "a\nb", &"a".repeat(257)] {
            assert_eq!(code(request_id(wrong.to_owned())), "ERR_USAGE", "{wrong}");
        }
        assert_eq!(code(timeout("0s", "up")), "ERR_USAGE");
        let variables = Variables::of(&[("MINE", "m")]);
        assert_eq!(variable("MINE", &variables).unwrap().1.expose(), "m");
        assert_eq!(variable("MINE=", &variables).unwrap().1.expose(), "");
        assert_eq!(variable("A=b=c", &variables).unwrap().1.expose(), "b=c");
        assert_eq!(code(variable("THEIRS", &variables)), "ERR_USAGE");
        assert_eq!(code(variable("=x", &variables)), "ERR_USAGE");
        let unkept = variable("A=…", &variables).unwrap_err();
        assert!(unkept.cause.contains("never kept"), "{unkept}");
    }

    #[test]
    fn programs_are_looked_for_where_they_would_be_found() {
        let variables = Variables::of(&[("PATH", "/nonexistent:/bin")]);
        assert!(is_found("sh", &variables) && is_found("/bin/sh", &variables));
        assert!(!is_found("no-such-program", &variables) && !is_found("/bin", &variables));
    }

    #[test]
    fn the_agent_that_is_taken_is_one_that_the_sandbox_has() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let (agents, variables) = (
            Agents::built_in().unwrap(),
            Variables::of(&[("PATH", path)]),
        );
        let (agent, warning) = here(&agents, &variables);
        assert!(agent == "page" && warning.unwrap().contains("was not found"));
        std::os::unix::fs::symlink("/bin/sh", directory.path().join("opencode")).unwrap();
        assert_eq!(here(&agents, &variables), ("opencode".to_owned(), None));
        let opencode = |variables| {
            let table = agents.get("opencode").unwrap();
            not_installed("opencode", table, variables)
        };
        assert!(opencode(&variables).is_none());
        let failure = opencode(&Variables::default()).unwrap();
        assert_eq!(failure.code.as_str(), "ERR_AGENT_NOT_READY");
        assert_eq!(failure.next_step, "npm install -g opencode-ai");
        let command = agents.get("command").unwrap();
        assert!(not_installed("command", command, &variables).is_none());
        // What is installed here says nothing of containers.
        let (agent, warning) = elsewhere("podman");
        let warning = warning.unwrap();
        assert!(
            agent == "page" && warning.contains("`podman`") && warning.contains("--agent opencode")
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = (repo(&text), branch(&text), name(&text), request_id(text.clone()), timeout(&text, "up"));
            let _ = variable(&text, &Variables::default());
        }
    }
}
