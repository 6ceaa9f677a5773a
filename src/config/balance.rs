//! `upstreams.*.balance`, how an endpoint is chosen.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::SecretSource;
use super::forms::word_or_map;
use crate::types::Selector;

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn, by weight, evenly spread (smooth weighted round robin).
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way for its weight.
    LeastRequests,
    /// By lot, by weight.
    Random,
    /// By the client's address: a client comes to the same endpoint while that is there (Maglev's table).
    IpHash,
    /// The one that answers soonest: by its latency of late and its requests under way.
    PeakEwma,
    /// By a key of the request: the same key comes to the same endpoint while that is there.
    ConsistentHash(ConsistentHash),
    /// A client comes back to the endpoint that it was sent to first, by a cookie.
    Sticky(Sticky),
    /// By a balancer that was registered in code under this name: `NAME`, or `{ name: NAME, key: header:x-user }`.
    Custom(CustomBalance),
}

impl Serialize for Balance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::RoundRobin => serializer.serialize_str("round_robin"),
            Self::LeastRequests => serializer.serialize_str("least_requests"),
            Self::Random => serializer.serialize_str("random"),
            Self::IpHash => serializer.serialize_str("ip_hash"),
            Self::PeakEwma => serializer.serialize_str("peak_ewma"),
            Self::ConsistentHash(words) => serializer.collect_map([("consistent_hash", words)]),
            Self::Sticky(words) => serializer.collect_map([("sticky", words)]),
            Self::Custom(words) => serializer.collect_map([("custom", words)]),
        }
    }
}

/// How requests are spread by a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsistentHash {
    /// What the key is: `header:x-user`, or a list, of which the first that the request has. A request without a key goes
    /// to any endpoint.
    pub key: Selectors,
    /// How keys are laid out over the endpoints.
    #[serde(default)]
    pub ring: Ring,
    /// How many times the average an endpoint may have under way, by its weight, before its next keys go elsewhere: `1.25`
    /// is a quarter more. Without a bound unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_load: Option<f64>,
}

/// How keys are laid out over endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ring {
    /// A ring of many points: an endpoint that comes or goes moves no keys between others.
    #[default]
    Ketama,
    /// A table: more even, and looked up faster; an endpoint that comes or goes moves a few keys of others.
    Maglev,
}

/// A balancer made in code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "CustomWords")]
pub struct CustomBalance {
    /// The name that it was registered under.
    pub name: String,
    /// What its picks are told of a request, as a key that is hashed; nothing unless named.
    pub key: Option<Selectors>,
}

/// The two ways it is written.
#[derive(Serialize)]
#[serde(untagged)]
enum CustomWords {
    Name(String),
    Full(FullCustom),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FullCustom {
    /// The name that it was registered under.
    name: String,
    /// What its picks are told of a request, hashed: `header:x-user`, or a list, of which the first that the request has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Selectors>,
}

impl From<CustomBalance> for CustomWords {
    fn from(CustomBalance { name, key }: CustomBalance) -> Self {
        if key.is_none() { Self::Name(name) } else { Self::Full(FullCustom { name, key }) }
    }
}

impl<'de> Deserialize<'de> for CustomBalance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bare = |text: &str| Ok(Self { name: text.to_owned(), key: None });
        let full = |FullCustom { name, key }| Ok(Self { name, key });
        word_or_map(deserializer, "the name of a balancer, or `{ name: ..., key: ... }`", bare, full)
    }
}

impl JsonSchema for CustomBalance {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CustomBalance".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let full = generator.subschema_for::<FullCustom>();
        json_schema!({
            "description": "The name of a balancer that was registered in code, or `{ name: NAME, key: header:x-user }`.",
            "anyOf": [{ "type": "string" }, full],
        })
    }
}

/// How clients come back to their endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// The cookie's name. Upstreams on the same host need different ones.
    pub cookie: String,
    /// What the cookie is signed with, at least 16 characters: gateways with the same secret take each other's cookies.
    /// Without it a key is made at start and kept over reloads and upgrades.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretSource>,
    /// How an endpoint is chosen for a client without the cookie, or whose endpoint is gone.
    #[serde(default)]
    #[schemars(schema_with = "without_sticky")]
    pub balance: Box<Balance>,
}

/// Every other way. Editors do not bear schemas that hold themselves.
fn without_sticky(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Balance::json_schema(generator);
    if let Some(forms) = schema.get_mut("oneOf").and_then(serde_json::Value::as_array_mut) {
        forms.retain(|form| form.pointer("/properties/sticky").is_none());
    }
    schema
}

/// One selector, or several in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selectors(pub Vec<Selector>);

/// No body is read before it is known where its request goes.
fn of_a_head<E: serde::de::Error>(selector: Selector) -> Result<Selector, E> {
    match selector {
        Selector::Form(_) => Err(E::custom(format!("`{selector}` is a key of limits only"))),
        of_a_head => Ok(of_a_head),
    }
}

impl<'de> Deserialize<'de> for Selectors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Selectors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word like `header:x-user`, or a list of such words")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Selectors, E> {
                let one = text.parse().map_err(E::custom)?;
                Ok(Selectors(vec![of_a_head(one)?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Selectors, A::Error> {
                let mut all = Vec::new();
                while let Some(selector) = items.next_element()? {
                    all.push(of_a_head(selector)?);
                }
                Ok(Selectors(all))
            }
        }
        deserializer.deserialize_str(OneOrMany)
    }
}

impl Serialize for Selectors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            [one] => one.serialize(serializer),
            all => all.serialize(serializer),
        }
    }
}

impl JsonSchema for Selectors {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Selectors".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Selector>();
        json_schema!({
            "description": "Something of a request, or a list, of which the first that the request has.",
            "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }],
        })
    }
}
