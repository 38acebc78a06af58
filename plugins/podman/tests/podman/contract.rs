//! The contract, sentence by sentence, by the conformance kit.

use crate::world::world;
use alpine_conformance::{CompiledIn, Options, check};
use std::sync::Arc;

/// A fresh instance before every call: nothing is kept in memory either way, so that the other way would show no more.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    let world = world(&[]);
    let (config, place) = (world.config(), world.place.clone());
    let objects = place.objects.clone();
    let make = move || Arc::new(alpine_plugin_podman::open(config.clone(), &place)) as Arc<_>;
    let subject = CompiledIn::new(make).with_objects(objects);
    let options = Options {
        fresh: true,
        points: 2,
        ..Options::default()
    };
    let report = check(&subject, &options).await.unwrap();
    assert!(report.is_success(), "{}", report.text());
}
