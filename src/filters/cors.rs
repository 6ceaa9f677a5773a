//! `cors`: which pages of other origins may use the answers (Fetch, "CORS protocol").
//!
//! 1. A preflight (OPTIONS with `Origin` and `Access-Control-Request-Method`) is answered 204 here, before anyone is asked
//!    for a name. It comes to the route of the method that it asks about, though OPTIONS is none of the route's methods.
//! 2. Every answer says who may read it, the gateway's own too: a page can read why it was refused.
//! 3. The upstream's own `Access-Control-*` fields are replaced, never doubled.
//! 4. A request of an origin that is not on the list goes on: it is not for a gateway to say who may send, but for the
//!    browser who may read, and there is nothing in the answer that lets the page. Its preflight is answered 204 without a
//!    word of permission.
//! 5. What the answer depends on is in `Vary`, whoever asks. Where every origin is allowed the answer is the same for all.

mod origins;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Filter, Flow, Phases, Stage};
use crate::document::{ConfigError, Errors};
use crate::exchange::{Exchange, Reply, ResponseHeader, Result, edit, preflight, vary};
use crate::registry::{FilterKind, Scope};
use crate::types::Duration;

use origins::{Origin, Origins};

/// Says which pages of other origins may use the answers, and answers their preflights.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whose pages may: `https://app.test`, `https://*.shop.test` (any depth below, not `shop.test` itself),
    /// `{ regex: "https://pr-[0-9]+\\.test" }` over the whole origin, `"null"`, or `"*"` alone for all.
    origins: Vec<Origin>,
    /// The methods they may use, or `"*"` for any. GET, HEAD and POST need no preflight, and so no permission.
    #[serde(default = "simple")]
    methods: Vec<String>,
    /// The request fields they may set beyond those that need no permission, or `"*"` for any.
    #[serde(default)]
    headers: Vec<String>,
    /// The response fields they may read beyond the few that need no permission, or `"*"` for all. Clients of gRPC-Web need
    /// `grpc-status` and `grpc-message`.
    #[serde(default)]
    expose: Vec<String>,
    /// Whether they may send cookies and other credentials. Not with the origin `"*"`.
    #[serde(default)]
    credentials: bool,
    /// How long browsers may keep the answer to a preflight. They choose when nothing is said: five seconds, mostly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_age: Option<Duration>,
    /// Whether pages of public sites may come when this gateway is in a private network, where a browser asks for it with
    /// `Access-Control-Request-Private-Network`.
    #[serde(default)]
    private_network: bool,
    /// Leaves origins that are not on the list to the upstream: it gets their preflights, and what it says to them stands.
    #[serde(default)]
    forward_preflight: bool,
}

fn simple() -> Vec<String> {
    ["GET", "HEAD", "POST"].map(str::to_owned).into()
}

/// Says which pages of other origins may use the answers.
pub struct Cors {
    origins: Origins,
    methods: Permitted,
    headers: Permitted,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<HeaderValue>,
    private_network: bool,
    forward_preflight: bool,
}

/// What a preflight may ask for.
enum Permitted {
    /// Nothing.
    Nothing,
    /// What is on this list.
    Listed(HeaderValue),
    /// Anything. The answer names what was asked for: to some browsers and with credentials `*` is a name like any other,
    /// and never means `Authorization`.
    Anything,
}

const ANYTHING: &str = "*";
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
/// What answers say of other origins.
const WORDS: [HeaderName; 7] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    ALLOW_PRIVATE_NETWORK,
];

impl FilterKind for Cors {
    const NAME: &'static str = "cors";
    const STAGE: Stage = Stage::Admit;
    const EXAMPLE: &'static str = "{ origins: [\"https://app.test\", \"https://*.shop.test\"], methods: [GET, PUT], \
                                   headers: [x-a], expose: [x-b], credentials: true, max_age: 600s }";
    type Config = Config;

    fn compile(config: Config, _: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = Errors::default();
        let origins = Origins::compile(&config.origins, &mut errors);
        if let Some(why) = origins.are_too_many().filter(|_| config.credentials) {
            errors.push(ConfigError::new("credentials", why));
        }
        let methods = permitted("methods", &config.methods, method, &mut errors);
        let headers = permitted("headers", &config.headers, field, &mut errors);
        let expose = match permitted("expose", &config.expose, field, &mut errors) {
            Permitted::Nothing => None,
            Permitted::Listed(list) => Some(list),
            Permitted::Anything => {
                if config.credentials {
                    let message =
                        "with `credentials` browsers take `*` for the name of a field: name those to be read";
                    errors.push(ConfigError::new("expose", message));
                }
                Some(HeaderValue::from_static(ANYTHING))
            }
        };
        errors.or(Self {
            origins,
            methods,
            headers,
            expose,
            credentials: config.credentials,
            max_age: config.max_age.map(|age| HeaderValue::from(age.get().as_secs())),
            private_network: config.private_network,
            forward_preflight: config.forward_preflight,
        })
    }
}

/// Reads a list of names, or `*` alone.
fn permitted(
    path: &str,
    names: &[String],
    read: fn(&str) -> std::result::Result<String, String>,
    errors: &mut Errors,
) -> Permitted {
    if names.iter().any(|name| name == ANYTHING) {
        if names.len() > 1 {
            errors.push(ConfigError::new(path, "`*` is all of them: name it alone"));
        }
        return Permitted::Anything;
    }
    let mut list = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        match read(name) {
            Ok(name) => list.push(name),
            Err(message) => errors.push(ConfigError::new(format!("{path}[{at}]"), message)),
        }
    }
    match HeaderValue::try_from(list.join(", ")) {
        Ok(list) if !list.is_empty() => Permitted::Listed(list),
        _ => Permitted::Nothing,
    }
}

fn method(text: &str) -> std::result::Result<String, String> {
    let method = Method::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is not a method"))?;
    if text.chars().any(char::is_lowercase) {
        return Err(format!("`{text}`: methods are case-sensitive, and those of HTTP are upper case"));
    }
    Ok(method.to_string())
}

fn field(text: &str) -> std::result::Result<String, String> {
    let name = HeaderName::try_from(text).map_err(|_| format!("`{text}` is not a header name"))?;
    Ok(name.to_string())
}

impl Filter for Cors {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST | Phases::RESPONSE
    }

    fn takes_preflights(&self) -> bool {
        true
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        let headers = &exchange.request().headers;
        if preflight(exchange.method(), headers).is_none() || self.is_the_upstreams(headers) {
            return Ok(Flow::Continue);
        }
        Ok(Reply::content(StatusCode::NO_CONTENT, "").into())
    }

    fn response(&self, (): &mut (), exchange: &mut Exchange<'_>, head: &mut ResponseHeader) -> Result<()> {
        let headers = &exchange.request().headers;
        edit(head, |fields| self.tell(preflight(exchange.method(), headers), headers, fields))
    }
}

impl Cors {
    /// Tells a page what it may, in the fields of the answer.
    fn tell(&self, asked: Option<&HeaderValue>, headers: &HeaderMap, fields: &mut HeaderMap) -> Result<()> {
        self.varies(asked.is_some(), fields)?;
        if self.is_the_upstreams(headers) {
            return Ok(());
        }
        if fields.keys().any(|name| name.as_str().starts_with("access-control-")) {
            WORDS.iter().for_each(|name| drop(fields.remove(name)));
        }
        let origin = match headers.get(ORIGIN) {
            // So that what a cache has kept of another's answer serves pages, too.
            _ if self.origins.are_any() => HeaderValue::from_static(ANYTHING),
            Some(origin) if self.origins.allow(origin.as_bytes()) => origin.clone(),
            _ => return Ok(()),
        };
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            fields.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        match (asked, &self.expose) {
            (Some(method), _) => self.permit(method, headers, fields),
            (None, Some(expose)) => drop(fields.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone())),
            (None, None) => {}
        }
        Ok(())
    }

    /// Whether the upstream says to this origin what it may.
    fn is_the_upstreams(&self, headers: &HeaderMap) -> bool {
        self.forward_preflight
            && headers.get(ORIGIN).is_some_and(|origin| !self.origins.allow(origin.as_bytes()))
    }

    fn varies(&self, preflight: bool, fields: &mut HeaderMap) -> Result<()> {
        if !self.origins.are_any() {
            vary(fields, "Origin")?;
        }
        if preflight {
            vary(fields, "Access-Control-Request-Method")?;
            vary(fields, "Access-Control-Request-Headers")?;
            if self.private_network {
                vary(fields, "Access-Control-Request-Private-Network")?;
            }
        }
        Ok(())
    }

    /// Answers a preflight of an origin that may come.
    fn permit(&self, method: &HeaderValue, asked: &HeaderMap, fields: &mut HeaderMap) {
        let permissions = [
            (ACCESS_CONTROL_ALLOW_METHODS, &self.methods, Some(method)),
            (ACCESS_CONTROL_ALLOW_HEADERS, &self.headers, asked.get(ACCESS_CONTROL_REQUEST_HEADERS)),
        ];
        for (name, permitted, asked) in permissions {
            let value = match permitted {
                Permitted::Nothing => None,
                Permitted::Listed(list) => Some(list),
                Permitted::Anything => asked,
            };
            if let Some(value) = value {
                fields.insert(name, value.clone());
            }
        }
        if let Some(age) = &self.max_age {
            fields.insert(ACCESS_CONTROL_MAX_AGE, age.clone());
        }
        if self.private_network
            && asked.get(REQUEST_PRIVATE_NETWORK).is_some_and(|wants| wants.as_bytes() == b"true")
        {
            fields.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
    }
}
