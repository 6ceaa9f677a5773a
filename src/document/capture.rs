//! Keeping a [`Node`] as it is inside a decoded struct, for settings whose shape is not known yet.
//!
//! serde only carries plain data from a deserializer to a value. So [`Node`] asks for a newtype struct by a private
//! name, and our decoder answers that name with the node spelled out: its place, whether it is plain, and its content.
//! Other formats do not know the name, and fail.

use std::fmt;
use std::sync::Arc;

use serde::de::value::{BorrowedStrDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::fault::Fault;
use super::node::{Key, Node, Value};
use super::source::{Mark, SourceId};

/// The name that asks for a node as it is.
pub(super) const TOKEN: &str = "$portcullis::Node";

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(TOKEN, NodeVisitor)
    }
}

/// A place and what stands there, as `(source, line, column, content)`.
type Spelled<T> = (u32, u32, u32, T);

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value of a configuration document")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let (source, line, column, content) = Spelled::<Content>::deserialize(deserializer)?;
        Ok(Node { mark: Mark { source: SourceId(source), line, column }, value: content.0 })
    }
}

struct Content(Value);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor).map(Content)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the content of a node")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E: Error>(self, quoted: &str) -> Result<Value, E> {
        Ok(Value::Scalar { text: quoted.into(), plain: false })
    }

    fn visit_some<D: Deserializer<'de>>(self, plain: D) -> Result<Value, D::Error> {
        let text = <&str>::deserialize(plain)?.into();
        Ok(Value::Scalar { text, plain: true })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::with_capacity(list.size_hint().unwrap_or(0));
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(0));
        while let Some((source, line, column, text)) = map.next_key::<Spelled<&str>>()? {
            let mark = Mark { source: SourceId(source), line, column };
            entries.push((Key { text: Arc::from(text), mark }, map.next_value()?));
        }
        Ok(Value::Map(entries.into()))
    }
}

/// A place and what stands there, on its way to a [`NodeVisitor`].
pub(super) struct Wire<C> {
    mark: Mark,
    content: C,
}

impl<'de> Wire<ContentWire<'de>> {
    /// Spells out a node.
    pub(super) fn node(node: &'de Node) -> Self {
        Self { mark: node.mark, content: ContentWire(&node.value) }
    }
}

impl<'de> Wire<BorrowedStrDeserializer<'de, Fault>> {
    fn key(key: &'de Key) -> Self {
        Self { mark: key.mark, content: BorrowedStrDeserializer::new(&key.text) }
    }
}

impl<'de, C: Deserializer<'de, Error = Fault>> Deserializer<'de> for Wire<C> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(Parts { mark: self.mark, content: Some(self.content), next: 0 })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, C: Deserializer<'de, Error = Fault>> IntoDeserializer<'de, Fault> for Wire<C> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The parts of a [`Spelled`] value, one after the other.
struct Parts<C> {
    mark: Mark,
    content: Option<C>,
    next: u8,
}

impl<'de, C: Deserializer<'de, Error = Fault>> SeqAccess<'de> for Parts<C> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let number = match self.next {
            0 => self.mark.source.0,
            1 => self.mark.line,
            2 => self.mark.column,
            _ => {
                return self.content.take().map(|content| seed.deserialize(content)).transpose();
            }
        };
        self.next += 1;
        seed.deserialize(number.into_deserializer()).map(Some)
    }
}

/// What a node holds: plain text as an option, which sets it apart from quoted text.
pub(super) struct ContentWire<'de>(&'de Value);

impl<'de> Deserializer<'de> for ContentWire<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Scalar { text, plain: true } => visitor.visit_some(BorrowedStrDeserializer::new(text)),
            Value::Scalar { text, plain: false } => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Wire::node))),
            Value::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| (Wire::key(key), Wire::node(value)));
                visitor.visit_map(MapDeserializer::new(entries))
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
