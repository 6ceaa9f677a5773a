//! `bot`: which programs may come, by what they call themselves.
//!
//! 1. Every `User-Agent` is read against one automaton of all rules, in linear time.
//! 2. `allow` wins over `deny`. A client that says nothing of itself is for `missing` to judge.
//! 3. This keeps out programs that are honest, and those who run them carelessly. It is no protection against the others: a
//!    name is what a client chooses to say. Against floods there are limits, against strangers authentication.

use http::header::USER_AGENT;
use regex::bytes::{RegexSet, RegexSetBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::chain::{Filter, Flow, Phases, Stage};
use crate::document::{ConfigError, Errors, word_or_map};
use crate::exchange::{Exchange, Reason, Reply, Result};
use crate::registry::{FilterKind, Scope};

/// Refuses programs (403) by what they call themselves in `User-Agent`. That keeps out the honest ones only: a client can
/// call itself anything.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which may not come: texts that occur in the name, in upper or lower case, or `{ regex: "^curl/[0-7]\\." }`.
    deny: Vec<Rule>,
    /// Which may, even if `deny` names them; in the same two forms.
    allow: Vec<Rule>,
    /// What becomes of clients that say nothing of themselves.
    missing: Missing,
}

/// A text that occurs in a name, or `{ regex: … }`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Rule {
    /// A text that occurs in the name, in upper or lower case.
    Text(String),
    /// A regular expression.
    Pattern(Pattern),
}

/// A regular expression.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pattern {
    /// The expression (linear time), unanchored as written.
    regex: String,
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let expected = "a text or `{ regex: ... }`";
        word_or_map(deserializer, expected, |text| Ok(Self::Text(text.into())), |p| Ok(Self::Pattern(p)))
    }
}

/// What becomes of clients that say nothing of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Missing {
    /// They may come.
    #[default]
    Allow,
    /// They may not.
    Deny,
}

/// Refuses programs by what they call themselves.
pub struct Bot {
    /// Those that allow come first.
    rules: RegexSet,
    allowing: usize,
    missing: Missing,
}

/// Bytes of the automaton of all rules.
const RULES: usize = 8 << 20;

impl FilterKind for Bot {
    const NAME: &'static str = "bot";
    const STAGE: Stage = Stage::Admit;
    const EXAMPLE: &'static str =
        "{ deny: [python-requests, { regex: \"^curl/[0-7]\\\\.\" }], allow: [our-monitor], missing: deny }";
    type Config = Config;

    fn compile(config: Config, _: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = Errors::default();
        if config.deny.is_empty() && config.missing == Missing::Allow {
            let message = "bot needs `deny` or `missing: deny`: without both it lets everyone in";
            errors.push(ConfigError::new("", message));
        }
        let allow = patterns("allow", &config.allow, &mut errors);
        let deny = patterns("deny", &config.deny, &mut errors);
        let rules =
            RegexSetBuilder::new(allow.iter().chain(&deny)).size_limit(RULES).dfa_size_limit(RULES).build();
        let rules = rules.unwrap_or_else(|_| {
            errors.push(ConfigError::new("", "the rules are too large together"));
            RegexSet::empty()
        });
        errors.or(Self { rules, allowing: allow.len(), missing: config.missing })
    }
}

fn patterns(path: &str, rules: &[Rule], errors: &mut Errors) -> Vec<String> {
    let mut patterns = Vec::with_capacity(rules.len());
    for (at, rule) in rules.iter().enumerate() {
        match rule {
            Rule::Text(text) if text.trim().is_empty() => {
                errors.push(ConfigError::new(format!("{path}[{at}]"), "this occurs in every name"));
            }
            Rule::Text(text) => patterns.push(format!("(?i){}", regex::escape(text))),
            Rule::Pattern(Pattern { regex }) => match regex::bytes::Regex::new(regex) {
                Ok(_) => patterns.push(regex.clone()),
                Err(error) => {
                    let reason = error.to_string();
                    let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    let message = format!("this is not a regular expression to use here: {reason}");
                    errors.push(ConfigError::new(format!("{path}[{at}].regex"), message));
                }
            },
        }
    }
    patterns
}

impl Bot {
    fn lets_in(&self, name: &[u8]) -> bool {
        let mut first = self.rules.matches(name).into_iter();
        first.next().is_none_or(|rule| rule < self.allowing)
    }
}

impl Filter for Bot {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        let names = exchange.request().headers.get_all(USER_AGENT).iter().map(http::HeaderValue::as_bytes);
        let mut names = names.filter(|name| !name.is_empty()).peekable();
        let welcome = match names.peek() {
            None => self.missing == Missing::Allow,
            Some(_) => names.all(|name| self.lets_in(name)),
        };
        if welcome {
            return Ok(Flow::Continue);
        }
        Ok(Reply::refuse(Reason::BOT_DENIED).into())
    }
}
