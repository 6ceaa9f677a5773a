//! Words that may be written in two ways, a bare word or a map.
//!
//! serde's own untagged enums would say of any mistake that no form fits, and would forget how a number was written.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Reads a bare word by `word` and a map as `M`, whose mistakes are told where they stand.
pub fn word_or_map<'de, D, T, M>(
    deserializer: D,
    expected: &'static str,
    word: fn(&str) -> Result<T, String>,
    map: fn(M) -> Result<T, String>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    M: Deserialize<'de>,
{
    // Asked for a string, the document gives a number as it was written; a map it gives as a map.
    deserializer.deserialize_str(Forms { expected, word, map, words: PhantomData })
}

struct Forms<T, M> {
    expected: &'static str,
    word: fn(&str) -> Result<T, String>,
    map: fn(M) -> Result<T, String>,
    words: PhantomData<M>,
}

impl<'de, T, M: Deserialize<'de>> Visitor<'de> for Forms<T, M> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.word)(text).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        let words = M::deserialize(MapAccessDeserializer::new(map))?;
        (self.map)(words).map_err(A::Error::custom)
    }
}
