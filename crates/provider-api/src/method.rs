//! The table of methods: their names, and their numbers in frames.

use std::fmt;

/// A method of [`SandboxProvider`](crate::SandboxProvider). Numbers are only ever added, never changed or used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Method {
    /// `describe`
    Describe = 1,
    /// `provision`
    Provision = 2,
    /// `sync_repo`
    SyncRepo = 3,
    /// `install`
    Install = 4,
    /// `start_agent`
    StartAgent = 5,
    /// `open_agent`
    OpenAgent = 6,
    /// `inspect`
    Inspect = 7,
    /// `list`
    List = 8,
    /// `exec`
    Exec = 9,
    /// `logs`
    Logs = 10,
    /// `stop`
    Stop = 11,
    /// `capture`
    Capture = 12,
    /// `persist`
    Persist = 13,
    /// `read_object`
    ReadObject = 14,
    /// `restore`
    Restore = 15,
    /// `destroy`
    Destroy = 16,
}

impl Method {
    /// Every method, in the order of their numbers.
    pub const ALL: [Method; 16] = [
        Method::Describe,
        Method::Provision,
        Method::SyncRepo,
        Method::Install,
        Method::StartAgent,
        Method::OpenAgent,
        Method::Inspect,
        Method::List,
        Method::Exec,
        Method::Logs,
        Method::Stop,
        Method::Capture,
        Method::Persist,
        Method::ReadObject,
        Method::Restore,
        Method::Destroy,
    ];

    /// The number in frames.
    #[must_use]
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The method of that number, if this version knows it.
    #[must_use]
    pub fn of(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.id() == id)
    }

    /// The name of the trait's method.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Describe => "describe",
            Method::Provision => "provision",
            Method::SyncRepo => "sync_repo",
            Method::Install => "install",
            Method::StartAgent => "start_agent",
            Method::OpenAgent => "open_agent",
            Method::Inspect => "inspect",
            Method::List => "list",
            Method::Exec => "exec",
            Method::Logs => "logs",
            Method::Stop => "stop",
            Method::Capture => "capture",
            Method::Persist => "persist",
            Method::ReadObject => "read_object",
            Method::Restore => "restore",
            Method::Destroy => "destroy",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Method;

    /// The methods of the trait, read from its source.
    fn in_the_trait() -> Vec<&'static str> {
        include_str!("provider.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("    async fn "))
            .filter_map(|rest| rest.split_once('('))
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn the_table_and_the_trait_agree() {
        let table: Vec<_> = Method::ALL.iter().map(|method| method.as_str()).collect();
        assert_eq!(table, in_the_trait());
    }

    #[test]
    fn numbers_are_as_they_were() {
        let ids: Vec<_> = Method::ALL.iter().map(|method| method.id()).collect();
        assert_eq!(ids, (1..=16).collect::<Vec<_>>());
        for method in Method::ALL {
            assert_eq!(Method::of(method.id()), Some(method));
        }
        assert_eq!((Method::of(0), Method::of(17)), (None, None));
    }
}
