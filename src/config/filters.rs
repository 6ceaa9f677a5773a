//! An entry in a list of filters.

use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::document::{Mark, Node, Value};

/// A filter: its bare name, or a map from its name to its configuration; `use: NAME` places a named chain. Beside the name
/// may stand `when`, the condition on which it applies, and `stage`, where in the chain it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterUse {
    /// The filter's name, or `use`.
    pub name: String,
    /// Its configuration, read by the filter itself.
    pub config: Node,
    /// A condition in CEL. Where it does not hold, the filter is not there; on a chain it holds for each of its filters.
    pub when: Option<String>,
    /// The stage that the filter runs in, where that is not its own.
    pub stage: Option<String>,
}

impl FilterUse {
    /// A filter by its bare name.
    pub fn named(name: impl Into<String>) -> Self {
        Self::configured(name, Node { mark: Mark::default(), value: Value::Null })
    }

    /// A filter by its name and its configuration.
    pub fn configured(name: impl Into<String>, config: Node) -> Self {
        Self { name: name.into(), config, when: None, stage: None }
    }

    /// The same, where this condition holds alone.
    #[must_use]
    pub fn when(mut self, condition: impl Into<String>) -> Self {
        self.when = Some(condition.into());
        self
    }

    /// The same, in this stage.
    #[must_use]
    pub fn stage(mut self, stage: impl Into<String>) -> Self {
        self.stage = Some(stage.into());
        self
    }

    /// The chain this entry places, if it is a `use`.
    pub fn chain(&self) -> Option<&str> {
        (self.name == "use").then(|| self.config.text()).flatten()
    }
}

impl<'de> Deserialize<'de> for FilterUse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(deserializer)?;
        if let Value::Scalar { text, .. } = &node.value {
            let config = Node { mark: node.mark, value: Value::Map(Arc::from([])) };
            return Ok(Self::configured(text.to_string(), config));
        }
        let sibling = |name: &str| match node.get(name).map(|value| (value, value.text())) {
            None => Ok(None),
            Some((_, Some(text))) => Ok(Some(text.to_owned())),
            Some((value, None)) => Err(D::Error::custom(format!(
                "`{name}` is a text beside the filter's name, not {}",
                value.kind()
            ))),
        };
        let (when, stage) = (sibling("when")?, sibling("stage")?);
        let mut named = node.entries().iter().filter(|(key, _)| !matches!(&*key.text, "when" | "stage"));
        let (Some((key, config)), None) = (named.next(), named.next()) else {
            return Err(D::Error::custom(
                "a filter is its name, or a map from its name to its configuration, with `when` and `stage` beside it",
            ));
        };
        let mut config = config.clone();
        // `- request_id:` is how some write a filter without settings.
        if config.value == Value::Null && &*key.text != "use" {
            config.value = Value::Map(Arc::from([]));
        }
        Ok(Self { name: key.text.to_string(), config, when, stage })
    }
}

impl Serialize for FilterUse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bare = match &self.config.value {
            Value::Null => true,
            Value::Map(entries) => entries.is_empty(),
            _ => false,
        };
        let beside = [("when", &self.when), ("stage", &self.stage)];
        if bare && beside.iter().all(|(_, word)| word.is_none()) {
            return serializer.serialize_str(&self.name);
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(&self.name, &self.config)?;
        for (name, word) in beside {
            if let Some(word) = word {
                map.serialize_entry(name, word)?;
            }
        }
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
