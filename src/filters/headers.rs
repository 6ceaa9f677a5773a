//! `headers`: sets, adds and removes header fields, on the way in and on the way out.
//!
//! 1. `remove`, then `set`, then `add`.
//! 2. Values may hold captured path parameters, `{id}`; `{{` is a brace.
//! 3. They may hold what is known of a connection with TLS: `{tls.version}`, `{tls.cipher}`, `{tls.sni}`, and of the
//!    client's certificate `{tls.client.subject}`, `{tls.client.sans}` and `{tls.client.fingerprint}`. Where there is
//!    nothing to say they are empty, so that `set` also takes away what a client wrote there itself.
//! 4. Fields that frame or route a message are not to be changed here: `Host` belongs to `rewrite`.
//! 5. Response headers are changed on the gateway's own replies, too.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Filter, Phases, Stage};
use crate::document::{ConfigError, Errors};
use crate::exchange::{Exchange, Fault, RequestHeader, ResponseHeader, Result, Template, is_reserved};
use crate::registry::{FilterKind, Scope};
use crate::types::CredentialFields;

/// Changes header fields of requests and responses.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Changes to the request that goes upstream.
    request: Changes,
    /// Changes to the response that goes to the client.
    response: Changes,
}

/// Changes to header fields: removed first, then set, then added.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Changes {
    /// Fields that get this value alone, whatever they had. A value may hold path parameters, `{id}`, and what is known
    /// of a connection with TLS, empty where there is nothing: `{tls.version}`, `{tls.cipher}`, `{tls.sni}`,
    /// `{tls.client.subject}`, `{tls.client.sans}`, `{tls.client.fingerprint}`.
    set: BTreeMap<String, String>,
    /// Fields that get this value beside those they have. It may hold the same.
    add: BTreeMap<String, String>,
    /// Fields that are removed.
    remove: Vec<String>,
}

impl Changes {
    fn mask(&mut self, fields: &CredentialFields) {
        self.set.iter_mut().chain(&mut self.add).for_each(|(name, value)| fields.mask(name, value));
    }

    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// Changes header fields.
pub struct Headers {
    request: Plan,
    response: Plan,
}

#[derive(Default)]
struct Plan {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, Value)>,
    add: Vec<(HeaderName, Value)>,
}

enum Value {
    Fixed(HeaderValue),
    Filled(Template),
}

impl FilterKind for Headers {
    const NAME: &'static str = "headers";
    const STAGE: Stage = Stage::Route;
    const EXAMPLE: &'static str =
        "{ request: { set: { x-user: anna }, remove: [cookie] }, response: { remove: [server] } }";
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = Errors::default();
        if config.request.is_empty() && config.response.is_empty() {
            errors.push(ConfigError::new("", "headers needs something to set, add or remove"));
        }
        let request = Plan::compile("request", config.request, scope, &mut errors);
        let response = Plan::compile("response", config.response, scope, &mut errors);
        errors.or(Self { request, response })
    }

    fn mask(config: &mut Config, fields: &CredentialFields) {
        config.request.mask(fields);
        config.response.mask(fields);
    }
}

impl Plan {
    fn compile(path: &str, changes: Changes, scope: &Scope<'_>, errors: &mut Errors) -> Self {
        let mut values = |group: &str, map: BTreeMap<String, String>| {
            map.into_iter()
                .filter_map(|(name, text)| {
                    let path = crate::document::join(&format!("{path}.{group}"), &name);
                    let name = header_name(&path, &name, errors);
                    let value = Value::compile(&path, &text, scope, errors);
                    Some((name?, value?))
                })
                .collect::<Vec<_>>()
        };
        let (set, add) = (values("set", changes.set), values("add", changes.add));
        let remove = changes.remove.iter().enumerate();
        let remove =
            remove.filter_map(|(at, name)| header_name(&format!("{path}.remove[{at}]"), name, errors));
        Self { remove: remove.collect(), set, add }
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

fn header_name(path: &str, text: &str, errors: &mut Errors) -> Option<HeaderName> {
    let Ok(name) = HeaderName::try_from(text) else {
        errors.push(ConfigError::new(path, format!("`{text}` is not a header name")));
        return None;
    };
    if is_reserved(&name) {
        let hint = if name == http::header::HOST {
            "use `rewrite: { host: … }`"
        } else {
            "the gateway sees to it"
        };
        errors.push(ConfigError::new(path, format!("`{name}` cannot be changed here")).with_hint(hint));
        return None;
    }
    Some(name)
}

impl Value {
    fn compile(path: &str, text: &str, scope: &Scope<'_>, errors: &mut Errors) -> Option<Self> {
        let template = match Template::parse_header(text) {
            Ok(template) => template,
            Err(message) => {
                errors.push(ConfigError::new(path, message));
                return None;
            }
        };
        errors.extend(scope.unknown_captures(&template).map(|error| ConfigError::new(path, error)));
        match template.literal().map(HeaderValue::from_str) {
            Some(Ok(value)) => Some(Self::Fixed(value)),
            Some(Err(_)) => {
                // The value is not repeated: it may be a secret.
                errors.push(ConfigError::new(path, "the value has characters that a header cannot carry"));
                None
            }
            None => Some(Self::Filled(template)),
        }
    }

    fn get(&self, exchange: &Exchange<'_>) -> Result<HeaderValue> {
        match self {
            Self::Fixed(value) => Ok(value.clone()),
            Self::Filled(template) => HeaderValue::from_str(&template.fill(exchange))
                .map_err(|_| Fault::new("a header template gave what a header cannot carry")),
        }
    }
}

impl Filter for Headers {
    type State = ();

    fn phases(&self) -> Phases {
        let phase = |plan: &Plan, phase| if plan.is_empty() { Phases::NONE } else { phase };
        phase(&self.request, Phases::UPSTREAM_REQUEST) | phase(&self.response, Phases::RESPONSE)
    }

    fn upstream_request(
        &self,
        (): &mut (),
        exchange: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()> {
        for name in &self.request.remove {
            head.remove_header(name);
        }
        for (name, value) in &self.request.set {
            head.insert_header(name.clone(), value.get(exchange)?)?;
        }
        for (name, value) in &self.request.add {
            head.append_header(name.clone(), value.get(exchange)?)?;
        }
        Ok(())
    }

    fn response(&self, (): &mut (), exchange: &mut Exchange<'_>, head: &mut ResponseHeader) -> Result<()> {
        for name in &self.response.remove {
            head.remove_header(name);
        }
        for (name, value) in &self.response.set {
            head.insert_header(name.clone(), value.get(exchange)?)?;
        }
        for (name, value) in &self.response.add {
            head.append_header(name.clone(), value.get(exchange)?)?;
        }
        Ok(())
    }
}
