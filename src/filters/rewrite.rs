//! `rewrite`: what goes upstream in place of what the client asked for.
//!
//! 1. `strip_prefix`, then `add_prefix`; or a whole new `path`. The query stays as it is.
//! 2. A prefix is stripped by whole segments; a path that does not begin with it stays as it is.
//! 3. The result is a canonical path again, whatever was put together.

use http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Filter, Flow, Phases, Stage};
use crate::document::{ConfigError, Errors};
use crate::exchange::{Exchange, Fault, Result, Template};
use crate::registry::{FilterKind, Scope};
use crate::types::NormalPath;

/// Changes the path and the host that the upstream sees.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Removes these leading segments: `/v1`.
    strip_prefix: Option<String>,
    /// Puts these segments in front: `/api`.
    add_prefix: Option<String>,
    /// A whole new path, with captured path parameters: `/users/{id}`.
    path: Option<String>,
    /// The `Host` that the upstream sees.
    host: Option<String>,
}

/// Changes the path and the host that the upstream sees.
pub struct Rewrite {
    strip_prefix: Option<String>,
    add_prefix: Option<String>,
    path: Option<Template>,
    host: Option<HeaderValue>,
}

impl FilterKind for Rewrite {
    const NAME: &'static str = "rewrite";
    const STAGE: Stage = Stage::Route;
    const EXAMPLE: &'static str = "{ strip_prefix: /v1, add_prefix: /api, host: orders.internal }";
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = Errors::default();
        if config.path.is_some() && (config.strip_prefix.is_some() || config.add_prefix.is_some()) {
            errors.push(ConfigError::new(
                "path",
                "`path` replaces the whole path: it goes without the prefixes",
            ));
        }
        if [&config.strip_prefix, &config.add_prefix, &config.path, &config.host]
            .iter()
            .all(|word| word.is_none())
        {
            errors.push(ConfigError::new(
                "",
                "rewrite needs at least one of `strip_prefix`, `add_prefix`, `path`, `host`",
            ));
        }
        let mut prefix =
            |name: &str, text: Option<String>| text.and_then(|text| prefix(name, &text, &mut errors));
        let strip_prefix = prefix("strip_prefix", config.strip_prefix);
        let add_prefix = prefix("add_prefix", config.add_prefix);
        let path = config.path.and_then(|text| path(&text, scope, &mut errors));
        let host = config.host.and_then(|text| host(&text, &mut errors));
        errors.or(Self { strip_prefix, add_prefix, path, host })
    }
}

/// A prefix in canonical form, without a slash at its end.
fn prefix(name: &str, text: &str, errors: &mut Errors) -> Option<String> {
    match NormalPath::parse(text) {
        Ok(path) if text.starts_with('/') => Some(path.as_str().trim_end_matches('/').to_owned()),
        Ok(_) => {
            errors.push(ConfigError::new(name, format!("`{text}` must start with `/`")));
            None
        }
        Err(error) => {
            errors.push(ConfigError::new(name, format!("`{text}` is not a path: {error}")));
            None
        }
    }
}

fn path(text: &str, scope: &Scope<'_>, errors: &mut Errors) -> Option<Template> {
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(message) => {
            errors.push(ConfigError::new("path", message));
            return None;
        }
    };
    if !text.starts_with('/') {
        errors.push(ConfigError::new("path", format!("`{text}` must start with `/`")));
    }
    errors.extend(scope.unknown_captures(&template).map(|error| ConfigError::new("path", error)));
    Some(template)
}

fn host(text: &str, errors: &mut Errors) -> Option<HeaderValue> {
    let value = crate::types::Host::parse(text).ok().and_then(|_| HeaderValue::from_str(text).ok());
    if value.is_none() {
        errors.push(ConfigError::new("host", format!("`{text}` is not a host with an optional port")));
    }
    value
}

impl Rewrite {
    fn rewritten(&self, exchange: &Exchange<'_>) -> Option<String> {
        if let Some(template) = &self.path {
            return Some(template.fill(exchange));
        }
        let path = exchange.upstream_path();
        let rest = self
            .strip_prefix
            .as_deref()
            .and_then(|prefix| path.strip_prefix(prefix))
            .filter(|rest| rest.is_empty() || rest.starts_with('/'));
        match (rest, &self.add_prefix) {
            (None, None) => None,
            (rest, add) => {
                let rest = rest.unwrap_or(path);
                let rest =
                    if rest.is_empty() && add.as_deref().unwrap_or_default().is_empty() { "/" } else { rest };
                Some(format!("{}{rest}", add.as_deref().unwrap_or_default()))
            }
        }
    }
}

impl Filter for Rewrite {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        if let Some(path) = self.rewritten(exchange) {
            let path = NormalPath::parse(&path)
                .map_err(|error| Fault::new(format!("rewrite to {path:?}: {error}")))?;
            let path = path.as_str().to_owned();
            exchange.rewrite_path(path);
        }
        if let Some(host) = &self.host {
            exchange.rewrite_host(host.clone());
        }
        Ok(Flow::Continue)
    }
}
