//! A configuration that can't be meant is refused.

use super::support::ported;
use alpine_plugin_tests::{By, Ported, build, library, python};
use alpine_provider_api::{ErrorKind, SandboxProvider};
use serde_json::json;

/// Where sandboxes would be depends on where a process happens to be started.
async fn refuses_a_relative_root(subject: Ported) {
    let config = json!({"root": "sandboxes"});
    let refused = subject.config(config).port().describe().await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::ConfigInvalid, "{refused:?}");
    assert!(refused.message.contains("absolute path"), "{refused:?}");
}

#[tokio::test]
async fn a_relative_root_is_refused_by_the_template() {
    let (_directory, subject) = ported(By::Hosted, |_| library("alpine-plugin-template"));
    refuses_a_relative_root(subject).await;
}

#[tokio::test]
async fn a_relative_root_is_refused_in_c() {
    let (_directory, subject) = ported(By::Hosted, |into| build(into, "c/provider.c", &[]));
    refuses_a_relative_root(subject).await;
}

#[tokio::test]
async fn a_relative_root_is_refused_in_python() {
    let (_directory, subject) = ported(By::Exec, |_| python());
    refuses_a_relative_root(subject).await;
}
