//! Which of the caller's variables go on: to sandboxes, and to git. None of them is secret, but that git gets a proxy's
//! password, which it can't do without.

use super::{Variables, is_secret};
use alpine_lifecycle::Failure;
use alpine_provider_api::Secret;
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
    let mut found = chosen(variables, |name, value| {
        allowed(name) && user_infos(name, value).next().is_none()
    });
    found.extend(super::passed(variables, pass)?);
    Ok(found)
}

/// What git starts with beside its own.
pub(crate) fn for_git(variables: &Variables) -> BTreeMap<String, String> {
    let own = ["GIT_SSL_CAINFO", "GIT_SSL_CAPATH"];
    chosen(variables, |name, _| {
        [CERTIFICATES, PROXIES]
            .iter()
            .any(|list| list.contains(&name))
            || own.contains(&name)
    })
}

/// What the addresses of proxies hold of users and passwords, in every form in which it may show in a text.
pub(crate) fn proxy_secrets(variables: &Variables) -> Vec<Secret<String>> {
    let proxies = variables
        .all()
        .filter(|(name, _)| PROXIES.contains(name))
        .flat_map(|(name, value)| user_infos(name, value));
    proxies.flat_map(forms).map(Secret::new).collect()
}

fn chosen(variables: &Variables, allowed: impl Fn(&str, &str) -> bool) -> BTreeMap<String, String> {
    let fits = |(name, value): &(&str, &str)| allowed(name, value) && !is_secret(name);
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    variables.all().filter(fits).map(owned).collect()
}

/// The users and passwords in the addresses that a value holds. That of a proxy may be without a scheme.
fn user_infos<'a>(name: &str, value: &'a str) -> impl Iterator<Item = &'a str> {
    let bare = PROXIES.contains(&name) && !value.contains("://");
    let skipped = usize::from(!bare);
    value.split("://").skip(skipped).filter_map(|rest| {
        let authority = rest.split('/').next().unwrap_or_default();
        authority.rsplit_once('@').map(|(user_info, _)| user_info)
    })
}

/// The whole, and the password (or the user where there is none), as written and as meant.
fn forms(user_info: &str) -> Vec<String> {
    let password = match user_info.split_once(':') {
        Some((_, password)) => password,
        None => user_info,
    };
    let decode = |text: &str| {
        percent_decoded(text).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    [user_info, password]
        .into_iter()
        .flat_map(|text| [Some(text.to_owned()), decode(text)])
        .flatten()
        .filter(|text| !text.is_empty())
        .collect()
}

/// None where nothing is encoded.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut found = parts.next()?.as_bytes().to_vec();
    let mut decoded = false;
    for part in parts {
        let byte = part
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                decoded = true;
                found.push(byte);
                found.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => {
                found.push(b'%');
                found.extend_from_slice(part.as_bytes());
            }
        }
    }
    decoded.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::{for_git, for_sandboxes, proxy_secrets};
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
        assert_eq!(
            names(for_git(&variables)),
            ["GIT_SSL_CAINFO", "HTTPS_PROXY", "NO_PROXY"]
        );
    }

    #[test]
    fn a_proxys_password_goes_to_git_alone() {
        for proxy in [
            "http://u:p@proxy:1",
            "u:p@proxy:1",
            "http://token@proxy:1/",
            "socks5h://u:p%40@proxy",
        ] {
            let variables = Variables::of(&[("https_proxy", proxy), ("LANG", "de_DE@euro")]);
            assert_eq!(for_git(&variables)["https_proxy"], proxy);
            let sandbox = for_sandboxes(&variables, &[]).unwrap();
            assert_eq!(sandbox.into_keys().collect::<Vec<_>>(), ["LANG"], "{proxy}");
        }
        let lists = Variables::of(&[("GOPROXY", "https://a,https://u:p@b/x,direct")]);
        assert!(for_sandboxes(&lists, &[]).unwrap().is_empty());
    }

    #[test]
    fn a_proxys_password_is_known_in_all_its_forms() {
        let of = |proxy: &str| {
            let variables = Variables::of(&[("ALL_PROXY", proxy), ("NO_PROXY", "localhost")]);
            let secrets = variables.secrets();
            let found = secrets.iter().map(|secret| secret.expose().clone());
            found.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("http://proxy:1"), "");
        assert_eq!(of("http://someone:pass@proxy:1"), "someone:pass pass");
        assert_eq!(of("http://token@proxy:1"), "token token");
        assert_eq!(of("u:p%40%zz@proxy"), "u:p%40%zz u:p@%zz p%40%zz p@%zz");
        assert!(proxy_secrets(&Variables::of(&[("GOPROXY", "https://u:p@b")])).is_empty());
    }
}
