//! The command that mends, or shows, what keeps the ledger from being used.

use crate::caller::quoted;
use alpine_ledger::{Hindrance, LedgerError};
use std::path::{Path, PathBuf};

/// What mends a ledger that can't be used, or shows what is in the way.
pub(crate) fn unavailable(hindrance: Hindrance, path: &Path) -> String {
    let file = word(path);
    let dir = word(path.parent().unwrap_or(path));
    match hindrance {
        Hindrance::Exposed | Hindrance::ReadOnly => format!("chmod 600 {file}"),
        Hindrance::DirectoryExposed => format!("chmod go-w {dir}"),
        // It is everybody's: the ledger goes elsewhere.
        Hindrance::DirectoryShared => {
            let own = "\"$HOME\"/.alpine";
            format!("mkdir -p -m 700 {own} && export ALPINE_LEDGER_PATH={own}/ledger.redb")
        }
        Hindrance::SymbolicLink => format!("export ALPINE_LEDGER_PATH=\"$(realpath -m {file})\""),
        Hindrance::HardLinks => {
            let copy = word(&suffixed(path, ".copy"));
            format!("cp -p {file} {copy} && mv {copy} {file}")
        }
        Hindrance::KeptId => move_aside(&suffixed(path, ".id"), "damaged"),
        Hindrance::NoSpace => format!("df -h {dir}"),
        Hindrance::FileLimit => "ulimit -f".to_owned(),
        Hindrance::ReadOnlyFileSystem => format!("findmnt -T {dir}"),
        Hindrance::Permissions | Hindrance::Other => format!("ls -ld {dir} {file}"),
    }
}

/// What mends what kept a change from being written, where it is known what did.
pub(crate) fn known(error: &LedgerError) -> Option<String> {
    if let LedgerError::Unavailable {
        path, hindrance, ..
    } = error
        && *hindrance != Hindrance::Other
    {
        return Some(unavailable(*hindrance, path));
    }
    None
}

/// Who keeps the ledger busy.
pub(crate) fn busy(pids: &[u32]) -> String {
    if pids.is_empty() {
        // Reading waits for nobody.
        return "alpine list".to_owned();
    }
    let pids: Vec<_> = pids.iter().take(10).map(u32::to_string).collect();
    format!("ps -o pid,stat,etime,args -p {}", pids.join(","))
}

/// The command that gives a file another name, which is free.
#[must_use]
pub fn move_aside(path: &Path, suffix: &str) -> String {
    let named = |number: u32| match number {
        1 => suffixed(path, &format!(".{suffix}")),
        number => suffixed(path, &format!(".{suffix}-{number}")),
    };
    let free = (1..).map(named).find(|name| !name.exists());
    let name = word(&free.unwrap_or_else(|| named(1)));
    format!("mv -n {} {name}", word(path))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn word(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::{busy, unavailable};
    use crate::Failure;
    use alpine_ledger::{Hindrance, LedgerError};
    use std::path::Path;

    #[test]
    fn the_command_fits_the_hindrance() {
        for (hindrance, command) in [
            (Hindrance::Exposed, "chmod 600 '/h o/l'"),
            (Hindrance::DirectoryExposed, "chmod go-w '/h o'"),
            (Hindrance::KeptId, "mv -n '/h o/l.id' '/h o/l.id.damaged'"),
            (Hindrance::NoSpace, "df -h '/h o'"),
            (Hindrance::Other, "ls -ld '/h o' '/h o/l'"),
        ] {
            assert_eq!(unavailable(hindrance, Path::new("/h o/l")), command);
        }
        assert_eq!(busy(&[7, 8]), "ps -o pid,stat,etime,args -p 7,8");
        assert_eq!(busy(&[]), "alpine list");
    }

    #[test]
    fn a_full_disk_is_the_thing_to_look_at_when_a_commit_fails() {
        for (hindrance, command) in [
            (Hindrance::NoSpace, "df -h /h"),
            (Hindrance::Other, "alpine list"),
        ] {
            let source = Box::new(LedgerError::Unavailable {
                path: "/h/l".into(),
                reason: "why".to_owned(),
                hindrance,
                source: None,
            });
            let failure = Failure::from(LedgerError::OutcomeUnknown { source });
            assert_eq!(failure.next_step, command);
        }
    }
}
