//! `routes.*.split`, which of several upstreams answers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Matcher, Selectors};

/// Which of several upstreams answers: for canary releases and A/B tests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// What decides where a request without a rule goes: the same key comes to the same variant, and few keys move when
    /// weights do. Each request by lot where there is none, or the request does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Selectors>,
    /// Whether a client without the cookie that `key` begins with is given one, so that it stays with its variant.
    #[serde(default)]
    pub sticky: bool,
    /// The header field that tells the upstream, and the client, which variant it is. None unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Requests that go to a certain variant, whatever the weights are. The first that holds decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<SplitRule>,
    /// The variants.
    #[schemars(length(min = 1))]
    pub to: Vec<SplitTo>,
}

/// Requests that go to a certain variant: all that is named must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitRule {
    /// What header fields must say: a value, `{ present: true }` or `{ regex: "…" }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Matcher>,
    /// What cookies must say, in the same forms.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: BTreeMap<String, Matcher>,
    /// What the query must say, in the same forms.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Matcher>,
    /// An expression in CEL that must hold. It may say who the consumer is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The name of the variant.
    pub to: String,
}

/// A variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitTo {
    /// The upstream that answers.
    pub upstream: String,
    /// How often, relative to the others; 0 leaves it to the rules.
    #[serde(default = "one")]
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
    /// Its name in logs, metrics and `header`. The upstream's unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

fn one() -> u32 {
    1
}

impl SplitTo {
    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.upstream)
    }
}
