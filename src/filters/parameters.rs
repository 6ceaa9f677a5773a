//! `parameters`: what the query and the captured parts of the path must be.
//!
//! 1. Everything that is wrong is told at once (400), by the names of the parameters, never by what was sent.
//! 2. Names and values of the query are form-decoded, captured parts of the path percent-decoded, before they are looked
//!    at. What goes upstream is what came, but for what `default` adds and `unknown_query: remove` takes away.
//! 3. A parameter that comes twice is wrong unless it is `repeated`: two readers may read different ones.

mod rule;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Filter, Flow, Phases, Stage};
use crate::document::{ConfigError, Errors, closest, join};
use crate::exchange::{Exchange, Reason, Reply, Result};
use crate::registry::{FilterKind, Parameters as Captured, Scope};

use rule::{Rule, RuleConfig};

/// Checks parameters of the query and of the path; requests with wrong ones are answered 400.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What parameters of the query must be, by their names.
    query: BTreeMap<String, QueryConfig>,
    /// What captured parts of the path must be, by their names in the route's `path`.
    path: BTreeMap<String, RuleConfig>,
    /// What becomes of parameters of the query that `query` does not name.
    unknown_query: Unknown,
}

/// What a parameter of the query must be.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct QueryConfig {
    /// Whether it must be there.
    required: bool,
    /// What goes upstream when it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
    /// Whether it may be there more than once.
    repeated: bool,
    #[serde(rename = "type")]
    /// What kind of value it is.
    kind: rule::Kind,
    /// The lowest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<f64>,
    /// The highest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum: Option<f64>,
    /// The longest text, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<usize>,
    /// A regular expression (linear time) that the whole text matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    /// The values that it may have.
    #[serde(rename = "enum")]
    values: Vec<String>,
}

/// What becomes of parameters that are not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Unknown {
    /// They go upstream.
    #[default]
    Allow,
    /// The request is answered 400.
    Refuse,
    /// They do not go upstream.
    Remove,
}

/// Checks parameters.
pub struct Parameters {
    /// By name, in order.
    query: Vec<QueryRule>,
    path: Vec<(Box<str>, Rule)>,
    unknown: Unknown,
}

struct QueryRule {
    name: Box<str>,
    rule: Rule,
    required: bool,
    /// As it goes upstream: `page=1`.
    default: Option<Box<str>>,
    repeated: bool,
}

impl FilterKind for Parameters {
    const NAME: &'static str = "parameters";
    const STAGE: Stage = Stage::Validate;
    const EXAMPLE: &'static str = "{ query: { page: { type: integer, minimum: 1, maximum: 100, default: \"1\" }, sort: { enum: [name, price] } }, \
                                   unknown_query: refuse }";
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = Errors::default();
        if config.query.is_empty() && config.path.is_empty() && config.unknown_query == Unknown::Allow {
            errors.push(ConfigError::new("", "parameters needs a rule in `query` or `path`"));
        }
        let mut query = Vec::with_capacity(config.query.len());
        for (name, words) in config.query {
            let path = join("query", &name);
            let (required, repeated) = (words.required, words.repeated);
            if required && words.default.is_some() {
                let message = "what is `required` is always there: it needs no default";
                errors.push(ConfigError::new(format!("{path}.default"), message));
            }
            let default = words.default.clone();
            let rule = Rule::compile(&path, words.rule(), &mut errors);
            if let Some(Err(why)) = default.as_ref().map(|value| rule.judge(value.as_bytes())) {
                errors.push(ConfigError::new(format!("{path}.default"), format!("the default itself {why}")));
            }
            let default = default.map(|value| format!("{}={}", encoded(&name), encoded(&value)).into());
            query.push(QueryRule { name: name.into(), rule, required, default, repeated });
        }
        let mut path = Vec::new();
        for (name, words) in config.path {
            let at = join("path", &name);
            captured(&at, &name, scope, &mut errors);
            path.push((name.into(), Rule::compile(&at, words, &mut errors)));
        }
        errors.or(Self { query, path, unknown: config.unknown_query })
    }
}

impl QueryConfig {
    fn rule(self) -> RuleConfig {
        let Self { kind, minimum, maximum, max_length, pattern, values, .. } = self;
        RuleConfig { kind, minimum, maximum, max_length, pattern, values }
    }
}

/// Whether the route captures such a part.
fn captured(path: &str, name: &str, scope: &Scope<'_>, errors: &mut Errors) {
    let error = match scope.parameters {
        Captured::Any => return,
        Captured::Of(known) if known.contains(&name) => return,
        Captured::Of(known) => {
            let error = ConfigError::new(path, format!("the route's path captures no `{{{name}}}`"));
            match closest(name, known) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error,
            }
        }
        Captured::Nowhere => ConfigError::new(
            path,
            format!("`{{{name}}}` needs a route that captures it; this place serves every route"),
        ),
    };
    errors.push(error);
}

/// Form-encoded: everything but letters, digits and a few marks is escaped.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            // Writing to a string cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

/// What is wrong with a request.
#[derive(Default)]
struct Wrong(String);

impl Wrong {
    fn add(&mut self, part: &str, name: &str, why: &str) {
        let separator = if self.0.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{separator}{part} `{name}` {why}");
    }
}

impl Filter for Parameters {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        let mut wrong = Wrong::default();
        for (name, rule) in &self.path {
            let value = exchange.capture(name).unwrap_or_default();
            if let Err(why) = rule.judge(&percent_decoded(value)) {
                wrong.add("path", name, &why);
            }
        }
        // As filters before this one have left it: a credential that is hidden is none of the parameters.
        let changed = self.judge(exchange.upstream_query().unwrap_or_default(), &mut wrong);
        if !wrong.0.is_empty() {
            return Ok(Reply::refuse(Reason::BAD_PARAMETERS).detail(wrong.0).into());
        }
        if let Some(query) = changed {
            exchange.rewrite_query(query);
        }
        Ok(Flow::Continue)
    }
}

impl Parameters {
    /// Judges a query. Returns what goes upstream in its place, where that is something else.
    fn judge(&self, query: &str, wrong: &mut Wrong) -> Option<String> {
        let mut seen = vec![Seen::default(); self.query.len()];
        let mut kept: Vec<&str> = Vec::new();
        let (mut changed, mut unknown) = (false, false);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = form_decoded(name);
            match self.query.binary_search_by(|rule| rule.name.as_bytes().cmp(&name)) {
                Ok(at) => {
                    kept.push(pair);
                    self.query[at].judge(value, &mut seen[at], wrong);
                }
                Err(_) if self.unknown == Unknown::Allow => kept.push(pair),
                Err(_) if self.unknown == Unknown::Remove => changed = true,
                Err(_) if unknown => {}
                Err(_) => {
                    unknown = true;
                    wrong.add("query", shown(&name), "is not known here");
                }
            }
        }
        for (rule, _) in self.query.iter().zip(seen).filter(|(_, seen)| !seen.once) {
            if rule.required {
                wrong.add("query", &rule.name, "is missing");
            }
            if let Some(default) = &rule.default {
                kept.push(default);
                changed = true;
            }
        }
        changed.then(|| kept.join("&"))
    }
}

/// What was seen of a parameter.
#[derive(Clone, Copy, Default)]
struct Seen {
    once: bool,
    /// Something is wrong with it, and that is told: an answer is no longer for a longer query.
    told: bool,
}

impl QueryRule {
    fn judge(&self, value: &str, seen: &mut Seen, wrong: &mut Wrong) {
        if seen.told {
            return;
        }
        let why = match seen.once && !self.repeated {
            true => Some(Cow::Borrowed("is there more than once")),
            false => self.rule.judge(&form_decoded(value)).err(),
        };
        seen.once = true;
        if let Some(why) = why {
            seen.told = true;
            wrong.add("query", &self.name, &why);
        }
    }
}

/// A name that can be repeated without harm.
fn shown(name: &[u8]) -> &str {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'[' | b']');
    match std::str::from_utf8(name) {
        Ok(text) if (1..=64).contains(&name.len()) && name.iter().all(plain) => text,
        _ => "…",
    }
}

fn form_decoded(raw: &str) -> Cow<'_, [u8]> {
    match memchr::memchr(b'+', raw.as_bytes()) {
        Some(_) => Cow::Owned(percent_decoded(&raw.replace('+', " ")).into_owned()),
        None => percent_decoded(raw),
    }
}

fn percent_decoded(raw: &str) -> Cow<'_, [u8]> {
    let bytes = raw.as_bytes();
    if memchr::memchr(b'%', bytes).is_none() {
        return Cow::Borrowed(bytes);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut decoded, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    loop {
        rest = match rest {
            [b'%', high, low, after @ ..] if digit(*high).is_some() && digit(*low).is_some() => {
                decoded.push(digit(*high).unwrap_or_default() << 4 | digit(*low).unwrap_or_default());
                after
            }
            [byte, after @ ..] => {
                decoded.push(*byte);
                after
            }
            [] => return Cow::Owned(decoded),
        };
    }
}
