//! Which of the caller's variables go on: to sandboxes, and to git. None of them is secret.

use super::{Variables, is_secret};
use alpine_lifecycle::Failure;
use std::collections::BTreeMap;

/// Variables of the user's account, language and tools.
const PLAIN: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TERM",
    "COLORTERM",
    "TZ",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "NVM_DIR",
    "VOLTA_HOME",
    "FNM_DIR",
    "npm_config_cache",
    "npm_config_registry",
    "NPM_CONFIG_CACHE",
    "NPM_CONFIG_REGISTRY",
    "PNPM_HOME",
    "YARN_CACHE_FOLDER",
    "BUN_INSTALL",
    "GOPATH",
    "GOMODCACHE",
    "GOCACHE",
    "GOPROXY",
    "GOROOT",
    "PYENV_ROOT",
    "UV_CACHE_DIR",
    "UV_INDEX_URL",
    "UV_PYTHON",
    "PIP_CACHE_DIR",
    "PIP_INDEX_URL",
    "PIP_CERT",
    "GEM_HOME",
    "BUNDLE_PATH",
    "JAVA_HOME",
    "COMPOSER_HOME",
];

/// Variables that say which certificates are trusted.
const CERTIFICATES: &[&str] = &[
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
];

/// Variables that say how the network is reached.
const PROXIES: &[&str] = &[
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// What the install step, the agent and commands start with: an allow-list, and what the configuration adds.
pub(crate) fn for_sandboxes(
    variables: &Variables,
    pass: &[String],
) -> Result<BTreeMap<String, String>, Failure> {
    let allowed = |name: &str| {
        [PLAIN, CERTIFICATES, PROXIES]
            .iter()
            .any(|list| list.contains(&name))
            || name.starts_with("LC_")
    };
    let mut found = chosen(variables, allowed);
    found.extend(super::passed(variables, pass)?);
    Ok(found)
}

/// What git starts with beside its own.
pub(crate) fn for_git(variables: &Variables) -> BTreeMap<String, String> {
    let own = ["GIT_SSL_CAINFO", "GIT_SSL_CAPATH"];
    chosen(variables, |name| {
        [CERTIFICATES, PROXIES]
            .iter()
            .any(|list| list.contains(&name))
            || own.contains(&name)
    })
}

fn chosen(variables: &Variables, allowed: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let fits =
        |(name, value): &(&str, &str)| allowed(name) && !is_secret(name) && !holds_user_info(value);
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    variables.all().filter(fits).map(owned).collect()
}

/// Whether a value is an address with a user or a password in it.
fn holds_user_info(value: &str) -> bool {
    let authority = value
        .split_once("://")
        .map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    authority.is_some_and(|authority| authority.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::{for_git, for_sandboxes};
    use crate::config::Variables;

    #[test]
    fn only_what_is_listed_and_nothing_secret() {
        let variables = Variables::of(&[
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("GITHUB_TOKEN", "t"),
            ("HTTPS_PROXY", "http://u:p@proxy:1"),
            ("NO_PROXY", "localhost"),
            ("TMPDIR", "/t"),
            ("EDITOR", "vi"),
            ("GIT_SSL_CAINFO", "/ca"),
        ]);
        let names = |found: std::collections::BTreeMap<String, String>| {
            found.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(
            names(for_sandboxes(&variables, &[]).unwrap()),
            ["LC_ALL", "NO_PROXY", "PATH"]
        );
        assert_eq!(
            names(for_sandboxes(&variables, &["EDITOR".to_owned()]).unwrap()),
            ["EDITOR", "LC_ALL", "NO_PROXY", "PATH"]
        );
        assert_eq!(names(for_git(&variables)), ["GIT_SSL_CAINFO", "NO_PROXY"]);
    }
}
