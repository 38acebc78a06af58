//! What a provider says in words: it is recorded and printed, and so it enters without secrets, short, and on one line. Ids
//! stay as they are.

use crate::clean;
use alpine_provider_api::*;
use std::collections::BTreeMap;

/// The most characters of a text, of an address, and of a path.
const MOST_TEXT: usize = 500;
const MOST_URL: usize = 2000;
const MOST_PATH: usize = 4096;
/// The most entries of a list of texts.
const MOST_ENTRIES: usize = 64;

/// Cleans the replies of a provider of that name.
#[derive(Debug)]
pub(super) struct Replies<'a> {
    pub(super) name: &'a str,
    pub(super) redactor: &'a Redactor,
}

impl Replies<'_> {
    fn text(&self, text: &str) -> String {
        clean::short(&self.redactor.redact(text), MOST_TEXT)
    }

    fn url(&self, url: &str) -> String {
        clean::short(&self.redactor.redact(url), MOST_URL)
    }

    pub(super) fn described(&self, reply: DescribeReply) -> DescribeReply {
        DescribeReply {
            name: self.text(&reply.name),
            version: self.text(&reply.version),
            isolation: self.isolation(&reply.isolation),
            ..reply
        }
    }

    fn isolation(&self, isolation: &Isolation) -> Isolation {
        let layers = isolation.layers.iter().take(MOST_ENTRIES);
        let limits = isolation.limits.iter().take(MOST_ENTRIES);
        let missing = isolation.missing.iter().take(MOST_ENTRIES);
        Isolation {
            tier: self.text(&isolation.tier),
            layers: layers.map(|layer| self.text(layer)).collect(),
            limits: limits
                .map(|(limit, how)| (self.text(limit), self.text(how)))
                .collect::<BTreeMap<_, _>>(),
            missing: missing
                .map(|layer| MissingLayer {
                    what: self.text(&layer.what),
                    why: self.text(&layer.why),
                    fix: self.text(&layer.fix),
                })
                .collect(),
        }
    }

    /// A path that can't be shown as it is would lead elsewhere: it is left out.
    pub(super) fn provisioned(&self, call: &Call, reply: ProvisionReply) -> ProvisionReply {
        let workspace_path = reply.workspace_path.filter(|path| {
            let fits = path.to_str().is_some_and(|path| {
                clean::short(&self.redactor.redact(path), MOST_PATH) == path
            });
            if !fits {
                call.warn(format!(
                    "provider `{}` names a path of the workspace that is too long or holds a secret or a control character: it is left out",
                    self.name
                ));
            }
            fits
        });
        ProvisionReply {
            workspace_path,
            isolation: self.isolation(&reply.isolation),
        }
    }

    pub(super) fn started(&self, reply: &StartAgentReply) -> StartAgentReply {
        StartAgentReply {
            url: reply.url.as_deref().map(|url| self.url(url)),
        }
    }

    pub(super) fn opened(&self, reply: OpenAgentReply) -> OpenAgentReply {
        OpenAgentReply {
            url: self.url(&reply.url),
            username: self.text(&reply.username),
            ..reply
        }
    }

    pub(super) fn captured(
        &self,
        mut reply: StagedSnapshot,
    ) -> Result<StagedSnapshot, ProviderError> {
        self.id("staged workspace", &reply.staging_id)?;
        self.id("workspace's digest", &reply.digest)?;
        for one in &mut reply.left_out {
            one.path = clean::short(&self.redactor.redact(&one.path), MOST_PATH);
            one.reason = self.text(&one.reason);
        }
        Ok(reply)
    }

    pub(super) fn persisted(&self, reply: PersistReply) -> Result<PersistReply, ProviderError> {
        self.id("durable object", &reply.durable_object_id)?;
        Ok(reply)
    }

    /// An id goes back to the provider as it came.
    fn id(&self, of: &str, id: &str) -> Result<(), ProviderError> {
        if clean::short(id, MOST_TEXT) == id {
            return Ok(());
        }
        let message = format!(
            "provider `{}`: the id of its {of} is longer than {MOST_TEXT} characters, or holds a control character",
            self.name
        );
        Err(ProviderError::new(ErrorKind::Unknown, message))
    }
}

#[cfg(test)]
mod tests {
    use super::Replies;
    use alpine_provider_api::*;

    const SECRET: &str = "hunter2hunter2";

    fn with<T>(check: impl FnOnce(Replies<'_>) -> T) -> T {
        let redactor = Redactor::new([&Secret::new(SECRET.to_owned())]);
        check(Replies {
            name: "acme",
            redactor: &redactor,
        })
    }

    /// A text with a secret, a line break, an escape sequence, and too much more.
    fn wild() -> String {
        format!("a {SECRET}\n\u{1b}[2Jb{}", "x".repeat(100_000))
    }

    #[track_caller]
    fn assert_clean(value: &impl serde::Serialize) {
        let text = serde_json::to_string(value).expect("JSON");
        assert!(text.contains("a [redacted]b"), "{text}");
        for wrong in [SECRET, "\\n", "\\u001b"] {
            assert!(!text.contains(wrong), "{text}");
        }
        assert!(text.len() < 20_000, "{} bytes", text.len());
    }

    #[test]
    fn every_text_of_a_reply_is_without_secrets_short_and_on_one_line() {
        let missing = MissingLayer {
            what: wild(),
            why: wild(),
            fix: wild(),
        };
        let isolation = Isolation {
            tier: wild(),
            layers: vec![wild()],
            limits: [(wild(), wild())].into(),
            missing: vec![missing],
        };
        with(|clean| {
            let described = DescribeReply {
                name: wild(),
                ..DescribeReply::new("", &wild(), isolation.clone())
            };
            assert_clean(&clean.described(described));
            let call = Call::quiet(Meta {
                operation_id: String::new(),
                fence: 1,
                attempt: 1,
                deadline_ms: 0,
                traceparent: None,
            });
            let made = |path: &str| {
                let workspace_path = Some(path.into());
                let isolation = isolation.clone();
                clean.provisioned(
                    &call,
                    ProvisionReply {
                        workspace_path,
                        isolation,
                    },
                )
            };
            assert_clean(&made(&wild()));
            assert_eq!(made("/srv/ü/it").workspace_path, Some("/srv/ü/it".into()));
            for path in [&format!("/srv/{SECRET}"), "/srv/a\nb", &"/x".repeat(9000)] {
                assert_eq!(made(path).workspace_path, None, "{path}");
            }
            assert_clean(&clean.started(&StartAgentReply { url: Some(wild()) }));
            let opened = clean.opened(OpenAgentReply {
                url: wild(),
                open_url: Secret::new(format!("http://127.0.0.1/{SECRET}")),
                username: wild(),
                password: Secret::new(SECRET.to_owned()),
            });
            assert_clean(&(&opened.url, &opened.username));
            // What is secret of itself is as it came.
            assert!(
                opened.open_url.expose().ends_with(SECRET) && opened.password.expose() == SECRET
            );
        });
    }

    #[test]
    fn an_id_is_as_it_came_or_refused() {
        let staged = |id: &str, digest: &str| StagedSnapshot {
            staging_id: id.to_owned(),
            digest: digest.to_owned(),
            size: 1,
            entries: 1,
            left_out: vec![LeftOut {
                path: wild(),
                reason: wild(),
            }],
        };
        with(|clean| {
            assert_clean(&clean.captured(staged("one", "00")).expect("a workspace"));
            let object = |id: &str| PersistReply {
                durable_object_id: id.to_owned(),
            };
            assert_eq!(
                clean.persisted(object(SECRET)).expect("an object"),
                object(SECRET)
            );
            for wrong in [&wild(), "a\nb", &"x".repeat(501)] {
                assert!(clean.persisted(object(wrong)).is_err());
                assert!(clean.captured(staged(wrong, "00")).is_err());
                assert!(clean.captured(staged("one", wrong)).is_err());
            }
        });
    }
}
