//! A tree as data again, for showing it.

use serde::ser::{Serialize, Serializer};

use super::scalar::{self, Typed};
use super::{Node, Value};

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
