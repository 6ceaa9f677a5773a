//! Who is counted: the words, and what they find in a request.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::str::FromStr;

use ahash::RandomState;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::exchange::{Exchange, Selected};
use crate::types::Selector;

/// What stands between the parts of a combination.
const AND: &str = " + ";
/// The alternative that stands for everyone who has none of the key.
const NOBODY: u8 = u8::MAX;

/// One combination of selectors, or several, of which the first that a request has all of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Box<[Combination]>);

/// Selectors that count together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Combination(Box<[Selector]>);

/// What becomes of a request that has nothing of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissingKey {
    /// All such requests count as one client.
    #[default]
    Share,
    /// It is not counted.
    Skip,
    /// It is refused.
    Refuse,
}

/// Who is counted.
#[derive(Debug, Clone)]
pub struct Subject {
    /// By what.
    pub key: Key,
    /// How much of an IPv6 address counts.
    pub ipv6_prefix: u8,
    /// What to do where there is nothing of it.
    pub missing: MissingKey,
}

/// What a request has of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'e> {
    /// Which alternative.
    alternative: u8,
    parts: SmallVec<[Selected<'e>; 2]>,
}

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who<'e> {
    /// It is counted for this.
    Counted(Found<'e>),
    /// It is not counted.
    Skipped,
    /// It is refused.
    Refused,
}

impl Key {
    /// By the client's address.
    pub fn ip() -> Self {
        Self(Box::new([Combination(Box::new([Selector::Ip]))]))
    }

    /// By who the client has proved to be.
    pub fn consumer() -> Self {
        Self(Box::new([Combination(Box::new([Selector::Consumer]))]))
    }

    /// Whether it may read who the client has proved to be.
    pub fn needs_identity(&self) -> bool {
        let verified = |selector: &Selector| matches!(selector, Selector::Consumer | Selector::BasicUsername);
        self.0.iter().any(|combination| combination.0.iter().any(verified))
    }

    /// Whether it may read a form.
    pub fn needs_form(&self) -> bool {
        let of_a_form = |selector: &Selector| matches!(selector, Selector::Form(_));
        self.0.iter().any(|combination| combination.0.iter().any(of_a_form))
    }

    /// How many alternatives it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none, which means nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Subject {
    /// Whom a request counts for.
    pub fn of<'e>(&self, exchange: &'e Exchange<'_>) -> Who<'e> {
        for (alternative, combination) in self.key.0.iter().enumerate() {
            let parts = combination.0.iter().map(|selector| self.select(exchange, selector));
            if let Some(parts) = parts.collect::<Option<_>>() {
                let alternative = u8::try_from(alternative).unwrap_or(NOBODY - 1);
                return Who::Counted(Found { alternative, parts });
            }
        }
        match self.missing {
            MissingKey::Share => Who::Counted(Found { alternative: NOBODY, parts: SmallVec::new() }),
            MissingKey::Skip => Who::Skipped,
            MissingKey::Refuse => Who::Refused,
        }
    }

    fn select<'e>(&self, exchange: &'e Exchange<'_>, selector: &Selector) -> Option<Selected<'e>> {
        match exchange.select(selector)? {
            Selected::V6(octets) if *selector == Selector::Ip => {
                let kept = u128::MAX.checked_shl(128 - u32::from(self.ipv6_prefix)).unwrap_or(0);
                Some(Selected::V6((u128::from_be_bytes(octets) & kept).to_be_bytes()))
            }
            found => Some(found),
        }
    }
}

impl Found<'_> {
    /// Writes it so that no two that differ are written alike.
    pub fn write(&self, mut put: impl FnMut(&[u8])) {
        put(&[self.alternative]);
        for part in &self.parts {
            let bytes = part.as_ref();
            put(&(bytes.len() as u64).to_le_bytes());
            put(bytes);
        }
    }
}

/// Hashes keys into 128 bits, with seeds that nobody knows.
#[derive(Clone)]
pub struct KeyHash([RandomState; 2]);

impl Default for KeyHash {
    fn default() -> Self {
        Self([RandomState::new(), RandomState::new()])
    }
}

impl KeyHash {
    /// The hash of a key. What is counted apart for one key has another salt.
    pub fn of(&self, found: &Found<'_>, salt: u64) -> u128 {
        let [mut high, mut low] = self.0.each_ref().map(RandomState::build_hasher);
        high.write_u64(salt);
        low.write_u64(salt);
        found.write(|bytes| {
            high.write(bytes);
            low.write(bytes);
        });
        u128::from(high.finish()) << 64 | u128::from(low.finish())
    }
}

impl FromStr for Combination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let selector = |part: &str| {
            part.trim().parse().map_err(|sentence: String| match sentence.ends_with("`cookie:NAME`") {
                true => format!("{sentence}, or `form:NAME`"),
                false => sentence,
            })
        };
        text.split(AND).map(selector).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, selector) in self.0.iter().enumerate() {
            let and = if at == 0 { "" } else { AND };
            write!(f, "{and}{selector}")?;
        }
        Ok(())
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(|one| Self(Box::new([one])))
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word like `ip` or `consumer + path`, or a list of such words")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Key, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Key, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = items.next_element::<String>()? {
                    all.push(text.parse().map_err(serde::de::Error::custom)?);
                }
                if all.is_empty() {
                    return Err(serde::de::Error::custom("a key of nothing counts nobody"));
                }
                Ok(Key(all.into()))
            }
        }
        deserializer.deserialize_str(OneOrMany)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            [one] => serializer.collect_str(one),
            all => serializer.collect_seq(all.iter().map(ToString::to_string)),
        }
    }
}

impl JsonSchema for Key {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LimitKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let part = "(ip|host|path|route|consumer|basic:username|(header|query|cookie|form):.+)";
        let one = serde_json::json!({
            "type": "string",
            "pattern": format!("^{part}( \\+ {part})*$"),
            "examples": ["ip", "consumer", "header:x-user", "consumer + path"],
        });
        json_schema!({
            "description": "Who is counted: `ip`, `host`, `path`, `route`, `consumer`, `basic:username`, `header:NAME`, `query:NAME`, `cookie:NAME`, `form:NAME` (of `application/x-www-form-urlencoded`, up to 64 KiB); several with ` + ` between them; or a list, of which the first that the request has.",
            "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["ip", "consumer + path", "header:x-user + query:a b + ip", "form:user"] {
            assert_eq!(serde_json::to_value(text.parse::<Key>().unwrap()).unwrap(), text);
        }
        for text in ["", "ip +", " + ip", "ip+host", "form:"] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
        assert!("consumer + path".parse::<Key>().unwrap().needs_identity());
        assert!(!"ip + path".parse::<Key>().unwrap().needs_identity());
    }

    #[test]
    fn no_two_keys_are_the_same() {
        let hash = KeyHash::default();
        let of = |alternative, parts: &[&'static str]| {
            let parts = parts.iter().map(|part| Selected::Bytes(part.as_bytes().into())).collect();
            hash.of(&Found { alternative, parts }, 0)
        };
        let all = [
            of(0, &["a", "b"]),
            of(0, &["ab"]),
            of(1, &["ab"]),
            of(0, &["ab", ""]),
            of(0, &["", "ab"]),
            of(0, &[]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
        assert_ne!(hash.of(&Found { alternative: 0, parts: SmallVec::new() }, 1), of(0, &[]));
    }
}
