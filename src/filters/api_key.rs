//! `api_key`: who it is, by a key.
//!
//! 1. The key is looked for in every place of `from`, in every value there. Two different keys in one request are refused:
//!    what the gateway reads and what an upstream reads could differ.
//! 2. An empty key is no key. Without a key the request is refused (401), or is the `anonymous` consumer's.
//! 3. Keys are found by their SHA-256, so that how long it takes tells nothing of them.
//! 4. The key goes no further: it is taken out of what goes upstream, unless `hide: false`; what a filter set there stays. The
//!    access log hides it in every query, whatever route the request took.
//! 5. A client that has proved to be another consumer is refused.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Authenticator, Filter, Flow, Phases, Stage};
use crate::consumer::{Consumer, Consumers, Lookup};
use crate::document::{ConfigError, Errors};
use crate::exchange::{
    Exchange, Reason, Reply, RequestHeader, Result, cookies, hide_field, is_reserved, query_values,
    replace_query_values,
};
use crate::registry::{FilterKind, Scope};
use crate::types::Selector;

/// Finds the consumer whose key the request brings; refuses (401) requests without a valid one.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the key may be: `header:NAME`, `query:NAME`, `cookie:NAME`.
    from: Vec<Selector>,
    /// Whether upstreams do not get the key.
    hide: bool,
    /// What the challenge in `WWW-Authenticate` calls this part of the site.
    realm: String,
    /// The consumer that a client without a key is; such clients are refused without it.
    anonymous: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        let key = HeaderName::from_static("x-api-key");
        Self { from: vec![Selector::Header(key)], hide: true, realm: "api".into(), anonymous: None }
    }
}

/// Finds consumers by their keys.
pub struct ApiKey {
    consumers: Arc<Consumers>,
    anonymous: Option<Arc<Consumer>>,
    challenge: HeaderValue,
    headers: Box<[HeaderName]>,
    queries: Box<[Box<str>]>,
    cookies: Box<[Box<str>]>,
    hide: bool,
}

impl FilterKind for ApiKey {
    const NAME: &'static str = "api_key";
    const STAGE: Stage = Stage::Authenticate;
    const EXAMPLE: &'static str = r#"{ from: ["header:x-api-key", "query:apikey"] }"#;
    type Config = Config;

    fn secret_queries(config: &Config) -> Vec<String> {
        let names = config.from.iter().filter_map(|place| match place {
            Selector::Query(name) => Some(name.to_string()),
            _ => None,
        });
        names.collect()
    }

    fn compile(config: Config, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = Errors::default();
        let (mut headers, mut queries, mut cookies) = (Vec::new(), Vec::new(), Vec::new());
        if config.from.is_empty() {
            errors.push(ConfigError::new("from", "a key has to come from somewhere: `header:x-api-key`"));
        }
        for (at, place) in config.from.into_iter().enumerate() {
            let path = format!("from[{at}]");
            match place {
                Selector::Header(name) if is_reserved(&name) || name == COOKIE => {
                    errors.push(ConfigError::new(path, format!("`{name}` is no place for a key")));
                }
                Selector::Header(name) => headers.push(name),
                Selector::Query(name) => queries.push(name),
                Selector::Cookie(name) => cookies.push(name),
                other => errors.push(
                    ConfigError::new(path, format!("`{other}` is no place for a key"))
                        .with_hint("write `header:NAME`, `query:NAME` or `cookie:NAME`"),
                ),
            }
        }
        let anonymous = config.anonymous.and_then(|name| scope.consumer("anonymous", &name, &mut errors));
        let challenge = scope.challenge("ApiKey", "realm", &config.realm, "", &mut errors);
        errors.or(Self {
            consumers: Arc::clone(scope.consumers),
            anonymous,
            challenge,
            headers: headers.into(),
            queries: queries.into(),
            cookies: cookies.into(),
            hide: config.hide,
        })
    }
}

impl Filter for ApiKey {
    type State = ();

    fn phases(&self) -> Phases {
        let mut phases = Phases::REQUEST;
        if self.hide && !(self.headers.is_empty() && self.cookies.is_empty()) {
            phases = phases | Phases::UPSTREAM_REQUEST;
        }
        phases
    }

    fn authenticator(&self) -> Option<&dyn Authenticator> {
        Some(self)
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        let found = match self.key(exchange) {
            Key::None => {
                let Some(anonymous) = &self.anonymous else {
                    return Ok(self.refuse(Reason::CREDENTIALS_MISSING));
                };
                exchange.assume(anonymous);
                return Ok(Flow::Continue);
            }
            Key::Many => return Ok(self.refuse(Reason::CREDENTIALS_CONFLICT)),
            Key::One(key) => self.consumers.by_key(&key),
        };
        let reason = match found {
            Lookup::Of(consumer) if exchange.agree(consumer) => None,
            Lookup::Of(_) => Some(Reason::CREDENTIALS_CONFLICT),
            Lookup::Expired => Some(Reason::CREDENTIALS_EXPIRED),
            Lookup::Unknown => Some(Reason::CREDENTIALS_INVALID),
        };
        if let Some(reason) = reason {
            return Ok(self.refuse(reason));
        }
        if self.hide {
            self.hide_in_query(exchange);
        }
        Ok(Flow::Continue)
    }

    fn upstream_request(
        &self,
        (): &mut (),
        exchange: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()> {
        if self.hide { self.hide_in_head(exchange, head) } else { Ok(()) }
    }
}

impl Authenticator for ApiKey {
    fn is_brought(&self, exchange: &Exchange<'_>) -> bool {
        !matches!(self.key(exchange), Key::None)
    }

    fn takes_anyone(&self) -> bool {
        self.anonymous.is_some()
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(self.challenge.clone())
    }

    fn hide_in_query(&self, exchange: &mut Exchange<'_>) {
        for name in &self.queries {
            let without = exchange.upstream_query().and_then(|query| replace_query_values(query, name, None));
            if let Some(without) = without {
                exchange.rewrite_query(without);
            }
        }
    }

    fn hide_in_head(&self, exchange: &Exchange<'_>, head: &mut RequestHeader) -> Result<()> {
        for name in &self.headers {
            hide_field(head, &exchange.request().headers, name)?;
        }
        if !self.cookies.is_empty() && head.headers.contains_key(COOKIE) {
            hide_cookies(head, &self.cookies);
        }
        Ok(())
    }
}

/// What a request brings.
enum Key<'e> {
    None,
    One(Cow<'e, [u8]>),
    Many,
}

impl ApiKey {
    fn key<'e>(&self, exchange: &'e Exchange<'_>) -> Key<'e> {
        let fields = &exchange.request().headers;
        let in_headers = self.headers.iter().flat_map(|name| fields.get_all(name));
        let in_headers = in_headers.map(|value| Cow::Borrowed(value.as_bytes().trim_ascii()));
        let query = exchange.query().unwrap_or_default();
        let in_query = self.queries.iter().flat_map(|name| query_values(query, name));
        let in_cookies = self.cookies.iter().flat_map(|name| cookies(fields, name)).map(Cow::Borrowed);
        let mut found = in_headers.chain(in_query).chain(in_cookies).filter(|key| !key.is_empty());
        match found.next() {
            None => Key::None,
            Some(key) if found.all(|other| other == key) => Key::One(key),
            Some(_) => Key::Many,
        }
    }

    fn refuse(&self, reason: Reason) -> Flow {
        Reply::refuse(reason).header(WWW_AUTHENTICATE, self.challenge.clone()).into()
    }
}

/// Takes these cookies out of a request. What is left comes in one line.
fn hide_cookies(head: &mut RequestHeader, names: &[Box<str>]) {
    let named = |pair: &[u8]| {
        let mut names = names.iter();
        names.any(|name| pair.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")))
    };
    if !pairs(&head.headers).any(named) {
        return;
    }
    let kept: Vec<&[u8]> = pairs(&head.headers).filter(|pair| !pair.is_empty() && !named(pair)).collect();
    let kept = HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok().filter(|kept| !kept.is_empty());
    head.remove_header(&COOKIE);
    if let Some(kept) = kept {
        // A value made of values fits.
        let _ = head.insert_header(COOKIE, kept);
    }
}

fn pairs(fields: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii)
}
