//! How much a request takes: the words, and what they come to.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::condition::{Expression, Place};
use crate::document::Errors;
use crate::exchange::Exchange;
use crate::types::{CredentialFields, MASK};

/// How much a request takes, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cost {
    /// Always as much.
    Fixed(u64),
    /// What an expression in CEL comes to.
    Computed(String),
}

/// How much a request takes.
pub enum Price {
    /// Always as much.
    Fixed(u64),
    /// What an expression comes to.
    Computed(Expression),
}

impl Default for Cost {
    fn default() -> Self {
        Self::Fixed(1)
    }
}

impl Cost {
    /// What it comes to.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with an expression; paths are empty.
    pub fn price(&self) -> Result<Price, Errors> {
        match self {
            Self::Fixed(cost) => Ok(Price::Fixed(*cost)),
            Self::Computed(text) => Expression::parse(text, Place::Request).map(Price::Computed),
        }
    }

    /// Masks an expression that looks at a header field that carries credentials: it may compare it with a secret.
    pub fn mask(&mut self, fields: &CredentialFields) {
        if let Ok(Price::Computed(expression)) = self.price()
            && expression.fields().any(|field| fields.covers(field))
        {
            *self = Self::Computed(MASK.to_owned());
        }
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// A sentence, when it is a number that no cost is.
    pub fn read(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(cost) => Ok(Self::Fixed(cost)),
            Err(_) if text.parse::<f64>().is_ok() => {
                Err(format!("`{text}` is not a cost: write a whole number like `1`, or an expression"))
            }
            Err(_) => Ok(Self::Computed(text.to_owned())),
        }
    }
}

impl Price {
    /// How much a request takes where there are so many at once, and whether that could be told. It is 1 at least, and all
    /// that there is at most. So is what cannot be told: nobody gets around a limit by what makes no sense.
    pub fn of(&self, exchange: &Exchange<'_>, most: u64) -> (u64, bool) {
        match self {
            Self::Fixed(cost) => (*cost, true),
            Self::Computed(expression) => match expression.number(exchange) {
                Ok(cost) => (cost.clamp(1, most.max(1)), true),
                Err(_) => (most.max(1), false),
            },
        }
    }

    /// Whether it says anything of who the client has proved to be.
    pub fn needs_identity(&self) -> bool {
        matches!(self, Self::Computed(expression) if expression.needs_identity())
    }

    /// The path parameters that it names.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        let computed = if let Self::Computed(expression) = self { Some(expression) } else { None };
        computed.into_iter().flat_map(Expression::parameters)
    }
}

impl Serialize for Cost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(cost) => serializer.serialize_u64(*cost),
            Self::Computed(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl Visitor<'_> for Forms {
            type Value = Cost;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or an expression in CEL")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cost, E> {
                Cost::read(text).map_err(E::custom)
            }

            fn visit_u64<E>(self, cost: u64) -> Result<Cost, E> {
                Ok(Cost::Fixed(cost))
            }
        }
        // Asked for a string, the document gives a number as it was written.
        deserializer.deserialize_str(Forms)
    }
}

impl JsonSchema for Cost {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LimitCost".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How much a request takes: a number, or an expression in CEL.",
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": 1_000_000 },
                { "type": "string", "examples": ["request.size == null ? 100 : request.size / 1024 + 1"] },
            ],
        })
    }
}
