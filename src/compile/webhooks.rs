//! `telemetry.events`, who is told what happens.

use std::path::Path;
use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Scheme, Uri};

use super::Compiler;
use super::listeners::secret;
use crate::config::{EventSink, SecretSource, Webhook as Words};
use crate::document::{ConfigError, join};
use crate::tls::authorities_text;
use crate::types::Duration;
use crate::webhooks::Webhook;

/// The longest that a try may take.
const LONGEST: Duration = Duration::from_secs(60);
/// What a request says of itself.
const OF_THE_REQUEST: [HeaderName; 7] =
    [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE];

impl Compiler<'_> {
    /// Those that nothing is wrong with.
    pub(super) fn webhooks(&mut self) -> Arc<[Webhook]> {
        let sinks = self.config.telemetry.events.iter().enumerate();
        sinks
            .filter_map(|(at, sink)| self.webhook(&format!("telemetry.events[{at}].webhook"), &sink.webhook))
            .collect()
    }

    fn webhook(&mut self, path: &str, words: &Words) -> Option<Webhook> {
        for (at, kind) in words.on.iter().enumerate() {
            if words.on[..at].contains(kind) {
                self.error(format!("{path}.on[{at}]"), "this event is there twice");
            }
        }
        if words.timeout.get().is_zero() || words.timeout > LONGEST {
            self.error(join(path, "timeout"), format!("a timeout is above 0s and up to {LONGEST}"));
        }
        let mut headers = self.headers(&join(path, "headers"), words);
        let token = words.token.as_ref().map(|source| self.bearer(&join(path, "token"), source));
        let url = self.url(&join(path, "url"), &words.url);
        let clear = url.as_ref().is_some_and(|url| url.scheme() == Some(&Scheme::HTTP));
        if words.ca.is_some() && clear {
            let message = "authorities are of no use without TLS";
            let hint = "write `https://` in the URL";
            self.errors.push(ConfigError::new(join(path, "ca"), message).with_hint(hint));
        }
        let ca = words.ca.as_ref().filter(|_| self.inputs.certificates);
        let ca = ca.map(|ca| self.usable(join(path, "ca"), authorities_text(ca)));
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token?);
        }
        Some(Webhook {
            url: url?,
            headers,
            on: words.on.as_slice().into(),
            ca: match ca {
                Some(text) => Some(text?.into()),
                None => None,
            },
            timeout: words.timeout.get(),
        })
    }

    /// A secret; `None`, too, where it may not be read.
    fn secret_at(&mut self, path: &str, source: &SecretSource) -> Option<Box<str>> {
        if !self.inputs.certificates && !matches!(source, SecretSource::Word(_)) {
            return None;
        }
        let read = secret(source, self.inputs.environment);
        read.map(|secret| secret.expose().trim().into()).map_err(|message| self.error(path, message)).ok()
    }

    /// Errors say nothing of its words: there may be a key in them.
    fn url(&mut self, path: &str, source: &SecretSource) -> Option<Uri> {
        let url = self.secret_at(path, source)?.parse::<Uri>().ok();
        let fits = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
        let Some(url) = url.filter(fits) else {
            let hint = "it begins with `https://` and a host, or `http://`";
            self.errors.push(ConfigError::new(path, "this is not the URL of a webhook").with_hint(hint));
            return None;
        };
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            let message = "a user and a password in the URL are not sent";
            self.errors.push(ConfigError::new(path, message).with_hint("use `token` or `headers`"));
            return None;
        }
        Some(url)
    }

    fn bearer(&mut self, path: &str, source: &SecretSource) -> Option<HeaderValue> {
        let token = self.secret_at(path, source)?;
        let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        match HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| fits) {
            Some(mut value) => {
                value.set_sensitive(true);
                Some(value)
            }
            None => {
                self.error(path, "a token is made of visible ASCII characters");
                None
            }
        }
    }

    fn headers(&mut self, path: &str, words: &Words) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(words.headers.len() + 1);
        for (name, value) in &words.headers {
            let path = join(path, name);
            let Ok(field) = HeaderName::try_from(name) else {
                self.error(path, format!("`{name}` is not a header name"));
                continue;
            };
            if OF_THE_REQUEST.contains(&field) {
                self.error(path, format!("`{field}` is the gateway's to send"));
            } else if field == AUTHORIZATION && words.token.is_some() {
                self.error(path, "with `token` this is the gateway's to send");
            } else if let Ok(value) = HeaderValue::try_from(value) {
                if headers.insert(field, value).is_some() {
                    self.error(path, "this header is there twice");
                }
            } else {
                self.error(path, "this is not the value of a header");
            }
        }
        headers
    }
}

/// The files that a webhook is made of, for a watcher.
pub fn webhook_files(sink: &EventSink) -> impl Iterator<Item = &Path> {
    let Words { url, token, ca, .. } = &sink.webhook;
    let secrets = [Some(url), token.as_ref()].into_iter().flatten();
    let of_secrets = secrets.filter_map(|source| match source {
        SecretSource::File { file } => Some(file.as_path()),
        SecretSource::Word(_) | SecretSource::Env { .. } => None,
    });
    of_secrets.chain(ca.as_deref())
}
