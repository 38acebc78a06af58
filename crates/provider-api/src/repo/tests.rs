use super::{BranchName, CommitId, RepoUrl, RepoUrlError, Transport};
use proptest::prelude::*;
use std::path::Path;

fn parse(text: &str) -> Result<RepoUrl, RepoUrlError> {
    RepoUrl::parse(text, Path::new("/home/me/work"))
}

#[test]
fn addresses_are_normalised() {
    for (given, text, transport, host) in [
        (
            "https://GitHub.com/o/r.git",
            "https://github.com/o/r.git",
            Transport::Https,
            Some("github.com"),
        ),
        (
            "HTTPS://github.com:8443/o/r",
            "https://github.com:8443/o/r",
            Transport::Https,
            Some("github.com:8443"),
        ),
        (
            "ssh://git@host:22/o/r",
            "ssh://git@host:22/o/r",
            Transport::Ssh,
            Some("host:22"),
        ),
        (
            "git@github.com:o/r.git",
            "git@github.com:o/r.git",
            Transport::Ssh,
            Some("github.com"),
        ),
        (
            "http://127.0.0.1:3000/r",
            "http://127.0.0.1:3000/r",
            Transport::Http,
            Some("127.0.0.1:3000"),
        ),
        (
            "http://[::1]:3000/r",
            "http://[::1]:3000/r",
            Transport::Http,
            Some("[::1]:3000"),
        ),
        ("file:///srv/r", "/srv/r", Transport::File, None),
        (
            "file:///srv/a%20b%2Fc%zz%",
            "/srv/a b/c%zz%",
            Transport::File,
            None,
        ),
        ("/srv/a%20b", "/srv/a%20b", Transport::File, None),
        (".", "/home/me/work", Transport::File, None),
        ("../r", "/home/me/r", Transport::File, None),
        ("a dir/r", "/home/me/work/a dir/r", Transport::File, None),
        ("file:///srv/a?b#c", "/srv/a?b#c", Transport::File, None),
        ("./a:b", "/home/me/work/a:b", Transport::File, None),
    ] {
        let url = parse(given).unwrap();
        assert_eq!(
            (url.as_str(), url.transport(), url.host()),
            (text, transport, host),
            "{given}"
        );
        assert_eq!(
            RepoUrl::try_from(url.as_str().to_owned()).unwrap(),
            url,
            "{given}"
        );
    }
}

#[test]
fn hostile_addresses_are_refused() {
    for given in [
        "",
        "-",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c id",
        "fd::7",
        "https://user:secret@github.com/o/r",
        "https://token@github.com/o/r",
        "ssh://git:pw@host/r",
        "ssh://-oProxyCommand=id/r",
        "ssh://git@-host/r",
        "-o@host:r",
        "git@-oProxyCommand=id:r",
        "git@host:-r",
        "git@host:",
        "host:path",
        "http://example.com/r",
        "git://example.com/r",
        "ftp://example.com/r",
        "https://",
        "https:///r",
        "https://github.com",
        "https://github.com/",
        "https://github.com/a b",
        "https://github.com/o/r?private_token=x",
        "https://github.com?private_token=x",
        "https://github.com/o/r#x",
        "http://127.0.0.1/r?x",
        "ssh://git@host/r?x",
        "https://git hub.com/r",
        "https://host:99999/r",
        "https://[::1/r",
        "a\nb",
        "a\u{0}b",
        "https://github.com/o/r\u{1b}[2J",
        "file://host/r",
        "file:///a%00b",
        "file:///a%0Ab",
        "file:///a%ff",
        "file:///a%E2%80%A8b",
    ] {
        assert!(
            parse(given).is_err(),
            "{given:?} was accepted: {:?}",
            parse(given)
        );
    }
}

#[test]
fn only_a_relative_path_needs_a_directory() {
    let nowhere = Path::new("");
    let absolute = RepoUrl::parse("/srv/r", nowhere).unwrap();
    assert_eq!(absolute.as_str(), "/srv/r");
    assert_eq!(RepoUrl::parse("r", nowhere), Err(RepoUrlError::Relative));
}

#[test]
fn branches_follow_git() {
    for name in [
        "main",
        "feature/x",
        "a.b",
        "ünï",
        "x@y",
        "a-b_c",
        "1",
        "x/y/z",
        "@x",
    ] {
        assert!(BranchName::new(name).is_some(), "{name}");
    }
    for name in [
        "", "-x", "@", "HEAD", ".a", "a.", "a/.b", "a..b", "a b", "a~b", "a^b", "a:b", "a?b",
        "a*b", "a[b", "a\\b", "/a", "a/", "a//b", "a.lock", "a.lock/b", "a@{b", "a\u{7f}b", "a\nb",
    ] {
        assert!(BranchName::new(name).is_none(), "{name:?}");
    }
}

#[test]
fn commits_are_full_ids() {
    assert!(CommitId::new(&"a".repeat(40)).is_some());
    assert!(CommitId::new(&"0".repeat(64)).is_some());
    for id in ["", "abc", &"A".repeat(40), &"g".repeat(40), &"a".repeat(41)] {
        assert!(CommitId::new(id).is_none(), "{id}");
    }
}

/// Whether git would run a program for it (`transport_get` of its `transport.c`): `NAME::` is where it begins.
fn names_a_helper(url: &str) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    url.trim_start_matches(name).starts_with("::")
}

#[test]
fn two_colons_further_on_are_a_part_of_the_path() {
    assert!(names_a_helper("ext::sh") && !names_a_helper("a@a:a::"));
    assert!(parse("ext::sh").is_err());
    assert_eq!(parse("a@a:a::").unwrap().host(), Some("a"));
}

proptest! {
    #[test]
    fn whatever_is_accepted_is_safe_for_git(text in "\\PC{0,40}|[-a-z@:/.\\[\\]]{0,40}") {
        if let Ok(url) = parse(&text) {
            prop_assert!(!url.as_str().starts_with('-'));
            prop_assert!(!names_a_helper(url.as_str()));
            prop_assert!(!url.as_str().chars().any(char::is_control));
            prop_assert_eq!(RepoUrl::try_from(url.as_str().to_owned()), Ok(url.clone()));
        }
    }

    #[test]
    fn branch_names_never_panic(text in any::<String>()) {
        if let Some(name) = BranchName::new(&text) {
            prop_assert!(!name.as_str().starts_with('-') && !name.as_str().contains(".."));
        }
    }
}
