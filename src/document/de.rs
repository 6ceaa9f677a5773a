//! The tree as serde sees it.
//!
//! Every value that fails is blamed where it stands: each step into a map, list or variant gives an error that has no
//! place yet the place of the value it stepped into. What earlier passes have blamed is skipped (see [`Pass`]).

use serde::de::{DeserializeSeed, Deserializer, Error, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::access::{Entries, Items, Variant, at_key};
use super::capture;
use super::fault::{Fault, Place, Problem};
use super::node::{Node, Value};
use super::pass::Pass;
use super::path::Trail;
use super::scalar::{self, Typed};

/// Decodes one node.
#[derive(Clone, Copy)]
pub(super) struct Decoder<'de, 'p> {
    pub(super) node: &'de Node,
    pub(super) trail: Trail<'p>,
    pub(super) pass: &'p Pass,
}

impl<'de, 'p> Decoder<'de, 'p> {
    /// Runs a seed on this node and blames the node for an error that nothing inside is to blame for.
    pub(super) fn run<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(self).map_err(|fault| self.blame(fault))
    }

    /// Blames this node, unless an inner one is already.
    pub(super) fn blame(self, fault: Fault) -> Fault {
        fault.or_at(|problem| {
            if let Problem::UnknownKey { key, .. } = problem
                && let Some((key, value)) = self.node.entry(key)
            {
                return at_key(&self, key, value);
            }
            let echo = match problem {
                Problem::MissingKey(key) => self.pass.omits_key(self.node, key),
                Problem::Objection(_) => self.pass.reaches_into(self.node),
                Problem::UnknownKey { .. } | Problem::Value { .. } => false,
            };
            Place { path: self.trail.path(), mark: self.node.mark, culprit: self.node, echo }
        })
    }

    fn visit_scalar<V: Visitor<'de>>(text: &'de str, plain: bool, visitor: V) -> Result<V::Value, Fault> {
        if !plain {
            return visitor.visit_borrowed_str(text);
        }
        match scalar::typed(text) {
            Typed::Bool(b) => visitor.visit_bool(b),
            Typed::Unsigned(n) => visitor.visit_u64(n),
            Typed::Signed(n) => visitor.visit_i64(n),
            Typed::Float(n) => visitor.visit_f64(n),
            Typed::Text(text) => visitor.visit_borrowed_str(text),
        }
    }

    fn visit_items<V: Visitor<'de>>(self, mut items: Items<'de, 'p>, visitor: V) -> Result<V::Value, Fault> {
        let value = visitor.visit_seq(&mut items)?;
        match items.peek() {
            None => Ok(value),
            Some(_) => Err(Fault::value(format!("expected a list of {} items, found more", items.taken()))),
        }
    }

    fn visit_entries<V: Visitor<'de>>(
        self,
        mut entries: Entries<'de, 'p>,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let value = visitor.visit_map(&mut entries)?;
        match entries.peek() {
            None => Ok(value),
            Some((key, _)) => Err(Fault::unknown_field(&key.text, &[])),
        }
    }

    fn fixed_list<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::List(items) if items.len() != length => {
                Err(Fault::value(format!("expected a list of {length} items, found {}", items.len())))
            }
            Value::List(items) => self.visit_items(Items::fixed(self, items), visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            // Beyond 64 bits: a float says how large it is, and a field that takes floats can have it.
            Value::Scalar { text, plain: true }
                if scalar::is_whole(text) && matches!(scalar::typed(text), Typed::Text(_)) =>
            {
                visitor.visit_f64(text.parse().unwrap_or(f64::INFINITY))
            }
            _ => self.deserialize_any(visitor),
        }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.number(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Decoder<'de, '_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Scalar { text, plain } => Self::visit_scalar(text, *plain, visitor),
            Value::List(items) => self.visit_items(Items::new(self, items), visitor),
            Value::Map(entries) => self.visit_entries(Entries::new(self, entries), visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Scalar { text, .. } => visitor.visit_borrowed_str(text),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match name {
            capture::TOKEN => visitor.visit_newtype_struct(capture::Wire::node(self.node)),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        self.fixed_list(length, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.fixed_list(length, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Map(entries) => self.visit_entries(Entries::fields(self, entries), visitor),
            // A derived struct would take a list by position.
            Value::List(_) => Err(Fault::invalid_type(Unexpected::Seq, &"a map")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Scalar { text, .. } => visitor.visit_enum(Variant::word(self, text)),
            Value::Map(entries) => match &**entries {
                [(key, value)] => {
                    let trail = Trail::Key(&self.trail, &key.text);
                    let settings = Decoder { node: value, trail, pass: self.pass };
                    let variant = Variant::with(self, &key.text, settings);
                    visitor.visit_enum(variant).map_err(|fault| fault.widen(value, self.node))
                }
                entries => Err(Fault::value(format!("expected a map with one key, found {}", entries.len()))),
            },
            _ => Err(Fault::value(format!(
                "expected a word or a map with one key, found {}",
                self.node.kind()
            ))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool bytes byte_buf unit unit_struct seq map
    }
}
