//! `basic`: who it is, by a name and a password (RFC 7617).
//!
//! 1. Without `Authorization: Basic` the request is refused (401), or is the `anonymous` consumer's.
//! 2. Passwords are checked beside the workers, few at once; when too many wait, the request is refused (503). What was
//!    right is remembered for two minutes.
//! 3. A name that nobody has takes as long as one that somebody has.
//! 4. The password goes no further: `Authorization` is taken out of what goes upstream, unless `hide: false`; what a filter
//!    set there stays.
//! 5. A client that has proved to be another consumer is refused.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Authenticator, Filter, Flow, Phases, Stage};
use crate::consumer::{Busy, Consumer, Consumers};
use crate::document::Errors;
use crate::exchange::{Exchange, Reason, Reply, RequestHeader, Result};
use crate::registry::{FilterKind, Scope};

/// The longest credentials in bytes: more is not worth hashing.
const MOST: usize = 2048;
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Finds the consumer whose name and password the request brings (RFC 7617); refuses (401) requests without valid ones.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What browsers call this part of the site when they ask for a password.
    realm: String,
    /// Whether upstreams do not get the name and the password in `Authorization`.
    hide: bool,
    /// The consumer that a client without a name is; such clients are refused without it.
    anonymous: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { realm: "api".into(), hide: true, anonymous: None }
    }
}

/// Finds consumers by their names and passwords.
pub struct Basic {
    consumers: Arc<Consumers>,
    anonymous: Option<Arc<Consumer>>,
    challenge: HeaderValue,
    hide: bool,
}

impl FilterKind for Basic {
    const NAME: &'static str = "basic";
    const STAGE: Stage = Stage::Authenticate;
    const EXAMPLE: &'static str = "{ realm: shop }";
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = Errors::default();
        let anonymous = config.anonymous.and_then(|name| scope.consumer("anonymous", &name, &mut errors));
        let challenge = scope.challenge("Basic", "realm", &config.realm, ", charset=\"UTF-8\"", &mut errors);
        errors.or(Self { consumers: Arc::clone(scope.consumers), anonymous, challenge, hide: config.hide })
    }
}

impl Filter for Basic {
    type State = ();

    fn phases(&self) -> Phases {
        match self.hide {
            true => Phases::REQUEST_WAIT | Phases::UPSTREAM_REQUEST,
            false => Phases::REQUEST_WAIT,
        }
    }

    fn authenticator(&self) -> Option<&dyn Authenticator> {
        Some(self)
    }

    async fn request_wait(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        let credentials = match brought(exchange.request()) {
            Ok(Some(credentials)) => credentials,
            Ok(None) => return Ok(self.without(exchange)),
            Err(reason) => return Ok(self.refuse(reason)),
        };
        let (username, password) = credentials.split();
        let reason = match self.consumers.by_password(username, password.as_bytes()).await {
            Ok(Some(login)) if login.is_over() => Reason::CREDENTIALS_EXPIRED,
            Ok(Some(login)) if exchange.agree(&login.consumer) => {
                exchange.set_username(&login.username);
                return Ok(Flow::Continue);
            }
            Ok(Some(_)) => Reason::CREDENTIALS_CONFLICT,
            Ok(None) => Reason::CREDENTIALS_INVALID,
            Err(Busy) => {
                let reply = Reply::refuse(Reason::AUTHENTICATION_BUSY);
                return Ok(reply.header(RETRY_AFTER, HeaderValue::from_static("1")).into());
            }
        };
        Ok(self.refuse(reason))
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

impl Authenticator for Basic {
    fn is_brought(&self, exchange: &Exchange<'_>) -> bool {
        let mut values = exchange.request().headers.get_all(AUTHORIZATION).iter();
        // Of several, it is not known which one an upstream reads.
        values.next().is_some_and(|first| of_basic(first).is_some() || values.next().is_some())
    }

    fn takes_anyone(&self) -> bool {
        self.anonymous.is_some()
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(self.challenge.clone())
    }

    fn hide_in_head(&self, exchange: &Exchange<'_>, head: &mut RequestHeader) -> Result<()> {
        let came = exchange.request().headers.get_all(AUTHORIZATION);
        // What a filter has set in its place stays.
        let is_theirs = |value: &HeaderValue| came.iter().any(|it| it == value) && of_basic(value).is_some();
        let values = head.headers.get_all(AUTHORIZATION);
        if !values.iter().any(is_theirs) {
            return Ok(());
        }
        let others: Vec<_> = values.iter().filter(|value| !is_theirs(value)).cloned().collect();
        head.remove_header(&AUTHORIZATION);
        others.into_iter().try_for_each(|value| head.append_header(AUTHORIZATION, value).map(|_| ()))?;
        Ok(())
    }
}

impl Basic {
    /// What becomes of a request without credentials.
    fn without(&self, exchange: &mut Exchange<'_>) -> Flow {
        match &self.anonymous {
            None => self.refuse(Reason::CREDENTIALS_MISSING),
            Some(anonymous) => {
                exchange.assume(anonymous);
                Flow::Continue
            }
        }
    }

    fn refuse(&self, reason: Reason) -> Flow {
        Reply::refuse(reason).header(WWW_AUTHENTICATE, self.challenge.clone()).into()
    }
}

/// A name and a password.
struct Credentials {
    text: String,
    colon: usize,
}

impl Credentials {
    fn split(&self) -> (&str, &str) {
        let (username, rest) = self.text.split_at(self.colon);
        (username, &rest[1..])
    }
}

/// The credentials that a request brings, if it brings any of this kind.
fn brought(request: &RequestHeader) -> std::result::Result<Option<Credentials>, Reason> {
    let mut values = request.headers.get_all(AUTHORIZATION).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Reason::CREDENTIALS_CONFLICT);
    }
    let Some(encoded) = first.and_then(of_basic) else { return Ok(None) };
    if encoded.len() > MOST {
        return Err(Reason::CREDENTIALS_INVALID);
    }
    let decoded = ENGINE.decode(encoded).map_err(|_| Reason::CREDENTIALS_MALFORMED)?;
    // What is not UTF-8 is the password of nobody.
    let text = String::from_utf8(decoded).map_err(|_| Reason::CREDENTIALS_INVALID)?;
    let colon = text.find(':').ok_or(Reason::CREDENTIALS_MALFORMED)?;
    if text.chars().any(char::is_control) {
        return Err(Reason::CREDENTIALS_MALFORMED);
    }
    Ok(Some(Credentials { text, colon }))
}

/// What comes after the scheme, if it is this one.
fn of_basic(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = value.as_bytes().split_at_checked("Basic".len())?;
    let ends = rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    (scheme.eq_ignore_ascii_case(b"Basic") && ends).then(|| rest.trim_ascii())
}
