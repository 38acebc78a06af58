//! The template keeps the contract, with one instance for all calls and with a fresh one before each.

use alpine_conformance::{CompiledIn, Options, check};
use alpine_plugin_template::{Config, open};
use alpine_provider_api::Place;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

fn template(at: &Path) -> CompiledIn {
    let path = ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
    let place = Place {
        name: "template".to_owned(),
        state: at.join("state"),
        objects: at.join("objects"),
        cache: at.join("cache"),
        run: at.join("run"),
        executable: "/bin/false".into(),
        env: BTreeMap::from([path, ("HOME".to_owned(), at.display().to_string())]),
    };
    let objects = place.objects.clone();
    let make = move || Arc::new(open(Config::default(), &place)) as Arc<_>;
    CompiledIn::new(make).with_objects(objects)
}

async fn keeps_the_contract(options: Options) {
    let directory = tempfile::tempdir().expect("a directory");
    let report = check(&template(directory.path()), &options).await;
    let report = report.expect("a kit that can work");
    assert!(report.is_success(), "{}", report.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_keeps_the_contract() {
    keeps_the_contract(Options::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_instance_before_every_call_keeps_the_contract() {
    let options = Options {
        fresh: true,
        points: 11,
        ..Options::default()
    };
    keeps_the_contract(options).await;
}
