//! A tree as data again, for showing it, and data as a tree.

use std::sync::Arc;

use serde::ser::{Serialize, Serializer};
use serde_json::Value as Data;

use super::scalar::{self, Typed};
use super::{Key, Mark, Node, Value};

impl Node {
    /// Data as a tree that nobody wrote. What is null is left out of maps, as those who write would.
    pub fn of_data(data: Data) -> Self {
        let value = match data {
            Data::Null => Value::Null,
            Data::Bool(word) => Value::plain(word.to_string()),
            Data::Number(number) => Value::plain(number.to_string()),
            Data::String(text) => Value::quoted(text),
            Data::Array(items) => Value::List(items.into_iter().map(Self::of_data).collect()),
            Data::Object(entries) => {
                let entries = entries.into_iter().filter(|(_, value)| !value.is_null());
                Value::Map(entries.map(|(key, value)| (Key::unwritten(&key), Self::of_data(value))).collect())
            }
        };
        Self { mark: Mark::default(), value }
    }
}

impl Key {
    fn unwritten(text: &str) -> Self {
        Self { text: Arc::from(text), mark: Mark::default() }
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Scalar { text, plain: true } => match scalar::typed(text) {
                Typed::Bool(word) => serializer.serialize_bool(word),
                Typed::Unsigned(number) => serializer.serialize_u64(number),
                Typed::Signed(number) => serializer.serialize_i64(number),
                Typed::Float(number) => serializer.serialize_f64(number),
                Typed::Text(text) => serializer.serialize_str(text),
            },
            Value::Scalar { text, .. } => serializer.serialize_str(text),
            Value::List(items) => serializer.collect_seq(items.iter()),
            Value::Map(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (&*key.text, value)))
            }
        }
    }
}
