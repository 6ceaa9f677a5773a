//! An entry in a list of filters.

use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::document::{Mark, Node, Value};

/// A filter: its bare name, or a map from its name to its configuration; `use: NAME` places a named chain.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterUse {
    /// The filter's name, or `use`.
    pub name: String,
    /// Its configuration, read by the filter itself.
    pub config: Node,
}

impl FilterUse {
    /// A filter by its bare name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), config: Node { mark: Mark::default(), value: Value::Null } }
    }

    /// The chain this entry places, if it is a `use`.
    pub fn chain(&self) -> Option<&str> {
        (self.name == "use").then(|| self.config.text()).flatten()
    }
}

impl<'de> Deserialize<'de> for FilterUse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(deserializer)?;
        match (&node.value, node.entries()) {
            (Value::Scalar { text, .. }, _) => Ok(Self {
                name: text.to_string(),
                config: Node { mark: node.mark, value: Value::Map(Arc::from([])) },
            }),
            (Value::Map(_), [(key, config)]) => {
                let mut config = config.clone();
                // `- request_id:` is how some write a filter without settings.
                if config.value == Value::Null && &*key.text != "use" {
                    config.value = Value::Map(Arc::from([]));
                }
                Ok(Self { name: key.text.to_string(), config })
            }
            _ => Err(D::Error::custom("a filter is its name, or a map from its name to its configuration")),
        }
    }
}

impl Serialize for FilterUse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bare = match &self.config.value {
            Value::Null => true,
            Value::Map(entries) => entries.is_empty(),
            _ => false,
        };
        if bare {
            return serializer.serialize_str(&self.name);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(&self.name, &self.config)?;
        map.end()
    }
}

/// Where the schema of all registered filters is put in the generated JSON Schema.
impl JsonSchema for FilterUse {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Filter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "A filter: its bare name, or a map from its name to its configuration." })
    }
}
