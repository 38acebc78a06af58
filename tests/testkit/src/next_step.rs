//! What a next step has to be: a command to paste.

/// Programs that a next step may begin with.
const PROGRAMS: [&str; 29] = [
    "${EDITOR:-vi}",
    "alpine",
    "cd",
    "chmod",
    "cp",
    "curl",
    "df",
    "eval",
    "export",
    "file",
    "findmnt",
    "gh",
    "git",
    "ldd",
    "ls",
    "mkdir",
    "mv",
    "nm",
    "npm",
    "ps",
    "readelf",
    "realpath",
    "rm",
    "ssh",
    "ssh-add",
    "strip",
    "sudo",
    "ulimit",
    "unset",
];

/// What may be said instead, and why there is no command for it.
const EXCEPTIONS: [(&str, &str); 1] = [(
    "report this with the output of",
    "a bug is told to whoever built the program, which the program does not know",
)];

/// Whether a next step begins with a program, after variables that are set for it, or is one of the exceptions.
#[must_use]
pub fn is_command(next_step: &str) -> bool {
    let program = next_step.split_whitespace().find(|word| {
        !word
            .split_once('=')
            .is_some_and(|(name, _)| is_variable(name))
    });
    program.is_some_and(|word| PROGRAMS.contains(&word))
        || EXCEPTIONS
            .iter()
            .any(|(text, _)| next_step.starts_with(text))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::is_command;

    #[test]
    fn prose_is_no_command() {
        for command in [
            "alpine list",
            "A_B=c alpine up",
            "export A=b  # or else",
            "chmod 600 /x",
        ] {
            assert!(is_command(command), "{command}");
        }
        for prose in [
            "",
            "run alpine list",
            "try `alpine list`",
            "A=b",
            "Alpine list",
        ] {
            assert!(!is_command(prose), "{prose}");
        }
    }
}
