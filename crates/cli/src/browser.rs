//! Opens a link in the user's browser, where there is one.

use crate::config::{Config, Variables};
use alpine_provider_api::Secret;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often an opener is looked at.
const POLL: Duration = Duration::from_millis(10);

/// The program that would open a link.
///
/// # Errors
/// Says why none is opened.
pub(crate) fn opener(config: &Config, variables: &Variables) -> Result<Vec<String>, String> {
    if !config.browser_open.value {
        return Err("`[browser] open` is `false` in `config.toml`".to_owned());
    }
    if variables
        .lenient("CI")
        .is_some_and(|ci| ci != "false" && ci != "0")
    {
        return Err("this is a CI job (`CI` is set)".to_owned());
    }
    let display =
        variables.has("DISPLAY") || variables.has("WAYLAND_DISPLAY") || cfg!(target_os = "macos");
    let remote = variables.has("SSH_CONNECTION");
    match &config.browser_command.value {
        Some(command) => return Ok(split(command)),
        None if display => {}
        None if remote => return Err("this is a connection over SSH without a display".to_owned()),
        None => {
            return Err(
                "there is no display (neither `DISPLAY` nor `WAYLAND_DISPLAY` is set)".to_owned(),
            );
        }
    }
    let named = variables
        .lenient("BROWSER")
        .and_then(|list| list.split(':').find(|one| !one.trim().is_empty()));
    Ok(match named {
        Some(browser) => split(browser),
        None if cfg!(target_os = "macos") => vec!["open".to_owned()],
        None => vec!["xdg-open".to_owned()],
    })
}

/// Opens a link, and waits no longer than `limit`. The opener's exit status alone says that it worked.
///
/// # Errors
/// Says why it did not open.
pub(crate) fn open(
    opener: &[String],
    link: &Secret<String>,
    limit: Duration,
) -> Result<(), String> {
    let Some((program, arguments)) = opener.split_first() else {
        return Err("the browser's command is empty".to_owned());
    };
    let placed = arguments.iter().any(|argument| argument.contains("%s"));
    let mut command = Command::new(program);
    command.args(
        arguments
            .iter()
            .map(|argument| argument.replace("%s", link.expose())),
    );
    if !placed {
        command.arg(link.expose());
    }
    // In a group of its own, so that Ctrl-C in this terminal does not end the user's browser.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|error| format!("`{program}` can't be started: {error}"))?;
    let until = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("`{program}` failed: {status}")),
            Ok(None) if Instant::now() >= until => {
                return Err(format!(
                    "`{program}` did not answer within {} s",
                    limit.as_secs_f32()
                ));
            }
            Ok(None) => std::thread::sleep(POLL),
            Err(error) => return Err(format!("`{program}` can't be waited for: {error}")),
        }
    }
}

fn split(command: &str) -> Vec<String> {
    command.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::open;
    use alpine_provider_api::Secret;
    use std::time::Duration;

    #[test]
    fn only_the_exit_status_counts() {
        let link = Secret::new("http://x/".to_owned());
        let run = |script: &str| {
            let opener = ["sh", "-c", script, "--"].map(str::to_owned);
            open(&opener, &link, Duration::from_secs(3))
        };
        assert_eq!(run("test \"$1\" = http://x/"), Ok(()));
        assert!(run("exit 3").unwrap_err().contains("exit status: 3"));
        assert!(
            open(
                &["/nonexistent/browser".to_owned()],
                &link,
                Duration::from_secs(3)
            )
            .is_err()
        );
        assert_eq!(
            open(
                &[
                    "test".to_owned(),
                    "%s".to_owned(),
                    "=".to_owned(),
                    "http://x/".to_owned()
                ],
                &link,
                Duration::from_secs(3)
            ),
            Ok(())
        );
    }

    #[test]
    fn an_opener_that_hangs_is_not_waited_for() {
        let link = Secret::new("1".to_owned());
        let why = open(&["sleep".to_owned()], &link, Duration::from_millis(20)).unwrap_err();
        assert!(why.contains("did not answer"), "{why}");
    }
}
