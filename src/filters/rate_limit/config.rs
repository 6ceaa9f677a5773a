//! The words of `rate_limit`, and what is wrong with them.

use std::collections::BTreeMap;
use std::fmt;

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::document::join;
use crate::limit::{self, Headers, Key, MissingKey, OnStoreError};
use crate::stores::MEMORY;
use crate::types::{Duration, Rate};

/// Lets clients have so many requests in a time, and refuses those beyond (429). One rule, or several in `rules`: a request
/// has to pass every one, and is charged by none when one refuses it. It counts before authentication (stage `admit`)
/// unless a rule needs to know who the client is.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many in what time: `100/s`, `600/m`, `50/10s`. Needed, unless there are `rules`.
    pub(super) rate: Option<Rate>,
    /// How many at once after a pause, with `token_bucket`. As many as the rate says in its time unless named.
    #[schemars(range(min = 1))]
    pub(super) burst: Option<u64>,
    /// How it is counted. `token_bucket`, unless named: a bucket of `burst` tokens that fills evenly. `leaky_bucket`: a queue
    /// that lets requests go on at an even pace, none of them waiting longer than `max_wait`. `fixed_window`: so many from the
    /// beginning of each time to its end. `sliding_window`: so many in any time, nearly. `sliding_log`: the same exactly for
    /// 128 requests of a client, and for more than that to a 64th of the time, never too much; for rates up to 10,000.
    pub(super) algorithm: Option<Algorithm>,
    /// The longest that a request waits for its turn, with `leaky_bucket`; one that would wait longer is refused. 1s unless
    /// named.
    pub(super) max_wait: Option<Duration>,
    /// Who is counted. `ip` unless named.
    pub(super) key: Option<Key>,
    /// How much of an IPv6 address counts, in bits: a client often has a whole `/64`, which is what counts unless named.
    #[schemars(range(min = 1, max = 128))]
    pub(super) ipv6_prefix: Option<u8>,
    /// What becomes of a request that has nothing of the key. `share`, unless named: all such requests count as one client.
    /// `skip`: it is not counted. `refuse`: it is refused (400).
    pub(super) missing_key: Option<MissingKey>,
    /// How much a request takes: a number, an expression in CEL, or what its answer says, `{ response_header: NAME, max: NUMBER
    /// }`. Then it takes 1 when it comes, and the rest when its answer is there: what is not left then is owed. What an
    /// expression cannot tell takes all that there is at once. 1 unless named.
    pub(super) cost: Option<Cost>,
    /// Other rates for some consumers and groups: `{ consumers: { NAME: { rate, burst } }, groups: … }`. A consumer's own, else
    /// that of the first of its groups that has one.
    pub(super) overrides: Option<Overrides>,
    /// What the rule is called in header fields. `default` unless named, or `rule-1` and so on. Rules with the same words on
    /// the same route count together, unless they have different names or act under different conditions.
    pub(super) name: Option<String>,
    /// Several rules in place of one.
    pub(super) rules: Option<Vec<Rule>>,
    /// Where it is counted: `memory`, by this gateway alone, or a store that gateways share. There, `token_bucket`,
    /// `fixed_window` and `sliding_window` are known.
    pub(super) store: String,
    /// Counts here, on credit, and settles with the store so often: gateways together let through at most
    /// `rate × settle_every` (at least one request) too much for each of them. For `token_bucket`. Without it every request
    /// is counted at the store, exactly.
    pub(super) settle_every: Option<Duration>,
    /// What becomes of requests while the store does not answer within its timeout. `local`, unless named: this gateway counts
    /// alone, from what it knows. `open`: they pass uncounted. `closed`: they are refused (503).
    pub(super) on_store_error: Option<OnStoreError>,
    /// Lets everything pass and counts what would have been refused: the metric `filter_verdicts_total` has it as
    /// `dry_run`.
    pub(super) dry_run: bool,
    /// What clients are told of their limits.
    pub(super) headers: Headers,
    /// How many clients are known at once, for each rule: 1,000,000 unless named, 100,000 with `sliding_log`. One takes 40
    /// bytes, or 80 with `settle_every`; with `sliding_log` 80 and 16 for each request that counts, 2 KB in all at most, and a
    /// rule whose clients could take more than 1 GiB is refused. Beyond, the client that would have all of its rate again the
    /// soonest is forgotten.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub(super) max_keys: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rate: None,
            burst: None,
            algorithm: None,
            max_wait: None,
            key: None,
            ipv6_prefix: None,
            missing_key: None,
            cost: None,
            overrides: None,
            name: None,
            rules: None,
            store: MEMORY.to_owned(),
            settle_every: None,
            on_store_error: None,
            dry_run: false,
            headers: Headers::Ietf,
            max_keys: None,
        }
    }
}

impl Config {
    /// What requests take, as far as that is known when they come.
    pub(super) fn costs(&mut self) -> impl Iterator<Item = &mut limit::Cost> {
        let of_rules = self.rules.iter_mut().flatten().map(|rule| &mut rule.cost);
        self.cost.iter_mut().chain(of_rules).filter_map(|cost| match cost {
            Cost::Known(cost) => Some(cost),
            Cost::Told(_) => None,
        })
    }
}

/// One rule of several.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// How many in what time: `100/s`, `600/m`, `50/10s`.
    pub(super) rate: Rate,
    /// How many at once after a pause, with `token_bucket`. As many as the rate says in its time unless named.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub(super) burst: Option<u64>,
    /// How it is counted.
    #[serde(default)]
    pub(super) algorithm: Algorithm,
    /// The longest that a request waits for its turn, with `leaky_bucket`. 1s unless named.
    #[serde(default)]
    pub(super) max_wait: Option<Duration>,
    /// Who is counted.
    #[serde(default = "Key::ip")]
    pub(super) key: Key,
    /// How much of an IPv6 address counts, in bits.
    #[serde(default = "ipv6_prefix")]
    #[schemars(range(min = 1, max = 128))]
    pub(super) ipv6_prefix: u8,
    /// What becomes of a request that has nothing of the key.
    #[serde(default)]
    pub(super) missing_key: MissingKey,
    /// How much a request takes: a number, an expression in CEL, or what its answer says.
    #[serde(default)]
    pub(super) cost: Cost,
    /// Other rates for some consumers and groups.
    #[serde(default)]
    pub(super) overrides: Overrides,
    /// What the rule is called in header fields. `rule-1` and so on unless named.
    #[serde(default)]
    pub(super) name: Option<String>,
}

const fn ipv6_prefix() -> u8 {
    64
}

/// How it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Algorithm {
    /// A bucket of `burst` tokens that fills evenly.
    #[default]
    TokenBucket,
    /// A queue that lets requests go on at an even pace. None waits longer than `max_wait`.
    LeakyBucket,
    /// So many from the beginning of each time to its end. Around an end, twice as many can pass.
    FixedWindow,
    /// So many in any time, nearly: the time before counts by the part of it that is still in sight.
    SlidingWindow,
    /// So many in any time, 10,000 at most: exactly for 128 requests of a client. Of one that has more in the time each may count
    /// for a 64th of the time too long. A client takes 2 KB at most.
    SlidingLog,
}

impl Algorithm {
    pub(super) fn kind(self) -> limit::Algorithm {
        match self {
            Self::TokenBucket => limit::Algorithm::TokenBucket,
            Self::LeakyBucket => limit::Algorithm::LeakyBucket,
            Self::FixedWindow => limit::Algorithm::FixedWindow,
            Self::SlidingWindow => limit::Algorithm::SlidingWindow,
            Self::SlidingLog => limit::Algorithm::SlidingLog,
        }
    }
}

/// Rates that hold in place of the rule's own.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Overrides {
    /// By the consumer's name.
    pub(super) consumers: BTreeMap<String, Override>,
    /// By the name of a group, for consumers that have none of their own; of several groups, the first in the consumer's
    /// list.
    pub(super) groups: BTreeMap<String, Override>,
}

impl Overrides {
    /// All of the rates, and where they stand.
    pub(super) fn rates(&self) -> impl Iterator<Item = (String, Rate)> {
        let all = [("overrides.consumers", &self.consumers), ("overrides.groups", &self.groups)];
        all.into_iter().flat_map(|(at, some)| {
            some.iter().map(move |(name, words)| (format!("{}.", join(at, name)), words.rate))
        })
    }
}

/// A rate in place of the rule's own.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Override {
    /// How many in what time.
    pub(super) rate: Rate,
    /// How many at once after a pause. As many as the rate says in its time unless named.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub(super) burst: Option<u64>,
}

/// How much a request takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cost {
    /// As much as is known when it comes.
    Known(limit::Cost),
    /// One, and in the end as much as its answer says.
    Told(Told),
}

/// A cost that the answer says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    /// The field of the upstream's answer that has the number. A request takes 1 when it comes, and the rest when its answer
    /// is there: what is not there then is owed. Without the field, it stays at 1.
    #[serde(with = "name")]
    #[schemars(with = "String")]
    pub(super) response_header: HeaderName,
    /// The most that is believed.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max: u64,
}

mod name {
    use super::{Deserialize, Deserializer, HeaderName, Serializer};

    pub(super) fn serialize<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderName, D::Error> {
        let text = String::deserialize(deserializer)?;
        HeaderName::try_from(&text)
            .map_err(|_| serde::de::Error::custom(format!("`{text}` is not the name of a header field")))
    }
}

impl Default for Cost {
    fn default() -> Self {
        Self::Known(limit::Cost::default())
    }
}

impl Serialize for Cost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(cost) => cost.serialize(serializer),
            Self::Told(told) => told.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Cost;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, an expression in CEL, or `{ response_header: NAME, max: NUMBER }`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cost, E> {
                limit::Cost::read(text).map(Cost::Known).map_err(E::custom)
            }

            fn visit_u64<E>(self, cost: u64) -> Result<Cost, E> {
                Ok(Cost::Known(limit::Cost::Fixed(cost)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Cost, A::Error> {
                Told::deserialize(MapAccessDeserializer::new(map)).map(Cost::Told)
            }
        }
        // Asked for a string, the document gives a number as it was written.
        deserializer.deserialize_str(Forms)
    }
}

impl JsonSchema for Cost {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cost".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (known, told) = (generator.subschema_for::<limit::Cost>(), generator.subschema_for::<Told>());
        json_schema!({
            "description": "How much a request takes: a number, an expression in CEL, or what its answer says.",
            "anyOf": [known, told],
        })
    }
}
