//! Keys of maps as serde sees them: text, unless something else is asked for.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::fault::Fault;
use super::scalar::{self, Typed};

/// Decodes a key of a map or the name of a variant.
#[derive(Clone, Copy)]
pub(super) struct KeyDecoder<'de>(pub(super) &'de str);

impl<'de> KeyDecoder<'de> {
    fn typed<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match scalar::typed(self.0) {
            Typed::Bool(b) => visitor.visit_bool(b),
            Typed::Unsigned(n) => visitor.visit_u64(n),
            Typed::Signed(n) => visitor.visit_i64(n),
            Typed::Float(n) => visitor.visit_f64(n),
            Typed::Text(text) => visitor.visit_borrowed_str(text),
        }
    }
}

macro_rules! typed {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.typed(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for KeyDecoder<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.0)
    }

    typed! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        BorrowedStrDeserializer::new(self.0).deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
