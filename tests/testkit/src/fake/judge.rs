//! What a caller must never do, whatever the method: writes down what was broken.

use super::store::{Locked, Sandbox};
use super::tree;
use super::types::{Violation, ViolationKind};
use alpine_provider_api::{Call, ErrorKind, Meta, ProviderError, SandboxId};
use serde::Serialize;
use serde_json::Value;

const LONGEST_TEXT: usize = 1024;

/// Judges one call.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    pub(super) method: &'static str,
    pub(super) meta: &'a Meta,
    pub(super) sandbox_id: Option<&'a str>,
}

impl Judge<'_> {
    /// Writes a broken promise down; gives what to answer.
    pub(super) fn violation(
        &self,
        store: &Locked,
        kind: ViolationKind,
        text: impl Into<String>,
    ) -> ProviderError {
        let text = text.into();
        store.append_violation(&Violation {
            kind,
            method: self.method.to_owned(),
            operation_id: self.meta.operation_id.clone(),
            sandbox_id: self.sandbox_id.map(str::to_owned),
            text: text.clone(),
        });
        ProviderError::new(ErrorKind::InvalidArgument, text)
    }

    pub(super) fn broken(&self, store: &Locked, text: &str) -> ProviderError {
        self.violation(store, ViolationKind::Contract, text)
    }

    pub(super) fn lost_work(&self, store: &Locked, text: &str) -> ProviderError {
        self.violation(store, ViolationKind::LostWork, text)
    }

    /// What holds for every call: who asks is said where it matters, and no secret is where none may be.
    pub(super) fn check_call(&self, store: &Locked, public: &Value) -> Result<(), ProviderError> {
        if is_guarded(self.method) {
            let missing = [
                (self.meta.operation_id.is_empty(), "operation id"),
                (self.meta.fence == 0, "fence"),
                (self.meta.attempt == 0, "attempt"),
            ];
            if let Some((_, what)) = missing.iter().find(|(is_missing, _)| *is_missing) {
                return Err(self.broken(store, &format!("the call bears no {what}")));
            }
        }
        let meta = serde_json::to_value(self.meta).expect("plain data");
        for secret in store.secrets() {
            if holds(public, &secret) || holds(&meta, &secret) {
                // The secret itself is not repeated.
                let text = "a field that is no secret holds a planted one";
                return Err(self.violation(store, ViolationKind::Secret, text));
            }
        }
        Ok(())
    }

    /// Keeps the sandbox, and compares the reply with an earlier one to the same request.
    pub(super) fn answered(
        &self,
        store: &Locked,
        sandbox: &mut Sandbox,
        request: &impl Serialize,
        reply: &impl Serialize,
    ) {
        let asked = format!("{} {}", self.method, public(request));
        let said = serde_json::to_string(reply).expect("plain data");
        let (asked, said) = (
            tree::digest(asked.as_bytes()),
            tree::digest(said.as_bytes()),
        );
        let earlier = sandbox.replies.insert(asked, said.clone());
        if earlier.is_some_and(|earlier| earlier != said) {
            self.violation(
                store,
                ViolationKind::Again,
                "the same request got another reply",
            );
        }
        store.keep_sandbox(sandbox);
    }
}

/// Whether the method changes what a lease guards.
fn is_guarded(method: &str) -> bool {
    matches!(
        method,
        "provision"
            | "sync_repo"
            | "install"
            | "start_agent"
            | "stop"
            | "capture"
            | "persist"
            | "restore"
            | "destroy"
    )
}

/// The request without its secret fields.
pub(super) fn public(request: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(request).expect("plain data");
    if let Some(token) = value.pointer_mut("/credential/token") {
        *token = Value::Null;
    }
    if let Some(Value::Object(env)) = value.get_mut("env") {
        env.values_mut().for_each(|value| *value = Value::Null);
    }
    value
}

/// The same with long texts cut.
pub(super) fn shortened(mut value: Value) -> Value {
    match &mut value {
        Value::String(text) if text.len() > LONGEST_TEXT => {
            let end = (0..=LONGEST_TEXT)
                .rev()
                .find(|&end| text.is_char_boundary(end));
            text.truncate(end.unwrap_or(0));
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| *item = shortened(item.take())),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|field| *field = shortened(field.take())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    value
}

fn holds(value: &Value, secret: &str) -> bool {
    match value {
        Value::String(text) => {
            let escaped = Value::from(secret).to_string();
            text.contains(secret) || text.contains(escaped.trim_matches('"'))
        }
        Value::Array(items) => items.iter().any(|item| holds(item, secret)),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, field)| name.contains(secret) || holds(field, secret)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A call of a method, to be judged.
pub(super) fn judge<'a>(
    method: &'static str,
    call: &'a Call,
    id: Option<&'a SandboxId>,
) -> Judge<'a> {
    Judge {
        method,
        meta: &call.meta,
        sandbox_id: id.map(SandboxId::as_str),
    }
}

/// A call that says nothing of who asks.
pub(super) fn nobodys_call() -> Call {
    Call::quiet(Meta {
        operation_id: String::new(),
        fence: 0,
        attempt: 0,
        deadline_ms: 0,
        traceparent: None,
    })
}
