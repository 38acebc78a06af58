//! `alpine provider`: what was added is kept, pinned, shown and removed.

use super::*;
use crate::support::{World, text};
use expect_test::expect;

#[test]
fn a_library_of_a_later_boundary_is_told_to_be_one_and_by_its_own_path() {
    let world = World::new();
    let later = MANIFEST.replace(r#""abi_min":1,"abi_max":1"#, r#""abi_min":2,"abi_max":3"#);
    let path = library(&world, &later);
    let inspected = world.done(&["provider", "inspect", shown(&path)]);
    let unfit = text(&inspected, "unfit");
    assert!(unfit.contains("found version 2 to 3"), "{unfit}");
    let failure = world.fails(
        &["provider", "add", shown(&path)],
        "ERR_PROVIDER_INCOMPATIBLE",
        1,
    );
    let cause = text(&failure, "cause");
    assert!(cause.contains(&unfit), "{cause}");
}

#[test]
fn a_library_is_looked_at_added_listed_and_removed() {
    let world = World::new();
    let path = library(&world, MANIFEST);
    let inspected = world.done(&["provider", "inspect", shown(&path)]);
    assert_eq!(
        inspected["manifest"],
        serde_json::from_str::<serde_json::Value>(MANIFEST).unwrap()
    );
    assert_eq!(text(&inspected, "kind"), "dylib");
    let added = world.done(&["provider", "add", shown(&path)]);
    assert_eq!(
        (
            text(&added, "name"),
            text(&added, "version"),
            text(&added, "kind")
        ),
        ("acme".to_owned(), "1.2.3".to_owned(), "dylib".to_owned())
    );
    assert_eq!(text(&added, "sha256"), sha256(&world, &path));
    let kept = text(&added, "path");
    assert_eq!(fs::read(&kept).unwrap(), fs::read(&path).unwrap());
    world.check(
        &["provider", "list"],
        &expect![[r#"
        status 0
        --- stdout
        NAME   KIND         ISOLATION  VERSION  SOURCE       STATE  PATH
        local  compiled_in  -          0.1.0    compiled_in  ok     -
        fake   compiled_in  -          -        compiled_in  ok     -
        acme   dylib        process    1.2.3    added        ok     $ROOT/alpine/plugins/$DIGEST
        --- stderr
    "#]],
    );
    // The same again changes nothing; another file takes its place.
    let again = world.done(&["provider", "add", shown(&path)]);
    assert_eq!(
        (&again["path"], again["replaced"].as_str()),
        (&added["path"], None)
    );
    let newer = library(&world, &MANIFEST.replace("1.2.3", "1.2.4"));
    let newer = world.done(&["provider", "add", shown(&newer)]);
    assert_eq!(newer["replaced"], added["sha256"]);
    assert!(!Path::new(&kept).exists(), "nothing pins it any more");
    world.done(&["provider", "remove", "acme"]);
    let failure = world.fails(&["provider", "remove", "acme"], "ERR_PROVIDER_NOT_FOUND", 1);
    assert_eq!(text(&failure, "next_step"), "alpine provider list");
    assert!(!Path::new(&text(&newer, "path")).exists());
}

#[test]
fn what_was_added_and_then_changed_is_refused() {
    let world = World::new();
    let path = library(&world, MANIFEST);
    let kept = text(&world.done(&["provider", "add", shown(&path)]), "path");
    protect(Path::new(&kept), 0o644);
    fs::write(
        &kept,
        fs::read(library(&world, &MANIFEST.replace("1.2.3", "6.6.6"))).unwrap(),
    )
    .unwrap();
    let with = [&world.up("one")[..], &["--provider", "acme"]].concat();
    let failure = world.fails(&with, "ERR_PROVIDER_INCOMPATIBLE", 1);
    assert!(
        text(&failure, "cause").contains("the pinned sha256"),
        "{failure:#}"
    );
    assert_eq!(
        text(&failure, "next_step"),
        "alpine provider add FILE --name acme"
    );
    fs::remove_file(&kept).unwrap();
    let failure = world.fails(&with, "ERR_PROVIDER_NOT_FOUND", 1);
    assert_eq!(
        text(&failure, "next_step"),
        "alpine provider add FILE --name acme"
    );
}

#[test]
fn names() {
    let world = World::new();
    let path = library(&world, &MANIFEST.replace("acme", "Acme & Sons"));
    let failure = world.fails(&["provider", "add", shown(&path)], "ERR_USAGE", 1);
    assert!(
        text(&failure, "next_step").ends_with(" --name my-provider"),
        "{failure:#}"
    );
    for (name, wanted) in [
        ("local", "is compiled in"),
        ("fake", "is compiled in"),
        ("A", "is no name"),
        ("../x", "is no name"),
        ("", "is no name"),
    ] {
        let arguments = ["provider", "add", shown(&path), "--name", name];
        let failure = world.fails(&arguments, "ERR_USAGE", 1);
        assert!(text(&failure, "cause").contains(wanted), "{failure:#}");
    }
    let arguments = ["provider", "add", shown(&path), "--name=-a"];
    let failure = world.fails(&arguments, "ERR_USAGE", 1);
    let cause = text(&failure, "cause");
    assert!(cause.contains("the first is not `-`"), "{cause}");
    world.fails(&["provider", "remove", "local"], "ERR_USAGE", 1);
    let left = fs::read_dir(world.env.alpine_home().join("plugins")).unwrap();
    assert_eq!(left.count(), 0, "what was refused is not kept");
    // What the user wrote is the user's to change.
    let digest = sha256(&world, &path);
    configured(
        &world,
        &format!(
            "kind = 'dylib'\npath = '{}'\nsha256 = '{digest}'",
            shown(&path)
        ),
    );
    for arguments in [
        &["provider", "add", shown(&path), "--name", "acme"][..],
        &["provider", "remove", "acme"],
    ] {
        let failure = world.fails(arguments, "ERR_USAGE", 1);
        assert!(
            text(&failure, "next_step").starts_with("${EDITOR:-vi} "),
            "{failure:#}"
        );
    }
}

#[test]
fn the_configuration_says_where_each_key_comes_from_and_hides_what_is_secret() {
    let world = World::new();
    world.done(&["provider", "add", shown(&library(&world, MANIFEST))]);
    configured(
        &world,
        "isolation = 'in-process'\nenv_allow = ['ACME_AUTH']\n[providers.acme.config]\nregion = 'eu-1'\napi_key = 'short'\nnote = 'has hunter2hunter2 in it'",
    );
    let mut command = world.command(&["config", "--json"]);
    let output = world.env.run(command.env("ACME_AUTH", "hunter2hunter2"));
    let document = crate::support::document(&output);
    let of = |key: &str| {
        let settings = document["settings"].as_array().unwrap();
        let key = format!("providers.acme.{key}");
        let found = settings
            .iter()
            .find(|setting| setting["key"] == *key)
            .unwrap();
        let source = text(found, "source");
        (
            found["value"].clone(),
            source.rsplit('/').next().unwrap().to_owned(),
        )
    };
    assert_eq!(of("kind"), ("dylib".into(), "providers.toml".to_owned()));
    assert_eq!(of("sha256").1, "providers.toml");
    assert_eq!(
        of("isolation"),
        ("in-process".into(), "config.toml".to_owned())
    );
    let config =
        serde_json::json!({"api_key": "set", "note": "has [redacted] in it", "region": "eu-1"});
    assert_eq!(of("config"), (config, "config.toml".to_owned()));
}

#[test]
fn many_at_once_are_all_kept() {
    let world = World::new();
    let path = library(&world, MANIFEST);
    let names: Vec<_> = (0..8).map(|number| format!("acme-{number}")).collect();
    let adding = names
        .iter()
        .map(|name| world.start(&["provider", "add", shown(&path), "--name", name]));
    for added in adding.collect::<Vec<_>>() {
        assert_eq!(added.wait().code(), Some(0));
    }
    let listed = world.done(&["provider", "list"]);
    let listed: Vec<_> = listed["providers"]
        .as_array()
        .unwrap()
        .iter()
        .skip(2)
        .map(|one| text(one, "name"))
        .collect();
    assert_eq!(listed, names);
}

#[test]
fn a_signal_while_another_process_has_the_store_is_told_as_any_other() {
    let world = World::new();
    let path = library(&world, MANIFEST);
    world.done(&["provider", "add", shown(&path)]);
    let plugins = world.env.alpine_home().join("plugins");
    let lock = fs::File::open(&plugins).unwrap();
    lock.lock().unwrap();
    for words in [
        &["provider", "add", shown(&path)][..],
        &["provider", "remove", "acme"],
    ] {
        let running = world.start(&crate::support::with_json(words));
        let descriptors = format!("/proc/{}/fd", running.pid());
        let has_it = || {
            let all = fs::read_dir(&descriptors).into_iter().flatten().flatten();
            let mut leads = all.filter_map(|one| fs::read_link(one.path()).ok());
            leads.any(|path| path == plugins)
        };
        crate::support::wait_until("it to wait for the store", has_it);
        running.signal(rustix::process::Signal::TERM);
        let failure = crate::support::failed(&running.wait(), "ERR_INTERRUPTED", 143);
        let next = text(&failure, "next_step");
        assert!(next.starts_with("alpine provider "), "{failure:#}");
    }
    lock.unlock().unwrap();
    world.done(&["provider", "remove", "acme"]);
}

#[test]
fn a_bare_provider_is_a_mistake() {
    World::new().check(
        &["provider"],
        &expect![[r#"
        status 1
        --- stdout
        --- stderr
        error: `alpine provider` needs to be told what to do (ERR_USAGE)
        hint: alpine provider --help
    "#]],
    );
}

#[test]
fn pins_that_are_broken_keep_nobody_from_reading_and_say_how_they_are_mended() {
    let world = World::new();
    let path = library(&world, MANIFEST);
    world.done(&["provider", "add", shown(&path)]);
    let id = world.ready("one");
    let pins = world.env.alpine_home().join("plugins/providers.toml");
    for broken in ["garbage [", "[providers.acme]\nkind = 'other'\n"] {
        fs::write(&pins, broken).unwrap();
        for words in [
            &["list"][..],
            &["status", &id],
            &["config"],
            &["provider", "list"],
            &["stats"],
        ] {
            let output = world.run(&crate::support::with_json(words));
            assert_eq!(output.code(), Some(0), "{words:?}: {output:#?}");
            let warned = output.stderr.lines().count();
            assert!(
                warned == 1 && output.stderr.contains(shown(&pins)),
                "{words:?}: {output:#?}"
            );
        }
        let mut words = world.up("two");
        words.extend(["--provider", "acme"]);
        let failure = world.fails(&words, "ERR_PROVIDER_NOT_FOUND", 1);
        let next = text(&failure, "next_step");
        for (words, code) in [
            (&["provider", "add", shown(&path)][..], "ERR_CONFIG_INVALID"),
            (&["provider", "remove", "acme"], "ERR_CONFIG_INVALID"),
        ] {
            let failure = world.fails(words, code, 1);
            assert_eq!(text(&failure, "next_step"), next);
            assert!(
                text(&failure, "cause").contains("alpine provider add FILE"),
                "{failure:#}"
            );
        }
        let pasted = Command::new("sh").args(["-c", &next]).status();
        assert!(pasted.unwrap().success(), "{next}");
        assert_eq!(world.run(&["list"]).stderr, "");
        let added = world.done(&["provider", "add", shown(&path)]);
        assert_eq!(added["name"], "acme");
    }
    // What others could have written is not believed either.
    protect(&pins, 0o666);
    let output = world.run(&["list"]);
    assert!(
        output.code() == Some(0) && output.stderr.contains("may be written by others"),
        "{output:#?}"
    );
    fs::write(&pins, "garbage [").unwrap();
    protect(&pins, 0o600);
    let down = world.run(&["down", &id]);
    assert_eq!(down.code(), Some(0), "{down:#?}");
}
