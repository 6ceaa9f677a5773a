//! Lists, maps and enums as serde walks them, without what a pass leaves out.

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::de::Decoder;
use super::fault::{Fault, Place};
use super::key::KeyDecoder;
use super::node::{Entry, Key, Node, Value};
use super::path::Trail;

/// The items of a list.
pub(super) struct Items<'de, 'p> {
    list: Decoder<'de, 'p>,
    items: &'de [Node],
    next: usize,
    /// Whether each item has a meaning of its own: then none can be left out alone.
    fixed: bool,
}

impl<'de, 'p> Items<'de, 'p> {
    /// The items of a list of any length.
    pub(super) fn new(list: Decoder<'de, 'p>, items: &'de [Node]) -> Self {
        Self { list, items, next: list.pass.start(list.node, items.len()), fixed: false }
    }

    /// The items of a tuple.
    pub(super) fn fixed(list: Decoder<'de, 'p>, items: &'de [Node]) -> Self {
        Self { list, items, next: 0, fixed: true }
    }

    /// How many items were taken.
    pub(super) fn taken(&self) -> usize {
        self.next
    }

    /// The item to come.
    pub(super) fn peek(&mut self) -> Option<&'de Node> {
        while let Some(item) = self.items.get(self.next) {
            if !self.list.pass.omits(item) {
                return Some(item);
            }
            self.next += 1;
        }
        None
    }

    fn note_progress(&self) {
        if !self.fixed {
            self.list.pass.came_to(self.list.node, self.items.len(), self.next);
        }
    }
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(item) = self.peek() else {
            self.note_progress();
            return Ok(None);
        };
        let trail = Trail::Index(&self.list.trail, self.next);
        match (Decoder { node: item, trail, pass: self.list.pass }).run(seed) {
            Ok(value) => {
                self.next += 1;
                Ok(Some(value))
            }
            Err(fault) if self.fixed => Err(fault.widen(item, self.list.node)),
            Err(fault) => {
                self.note_progress();
                Err(fault)
            }
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

/// The entries of a map.
pub(super) struct Entries<'de, 'p> {
    map: Decoder<'de, 'p>,
    entries: &'de [Entry],
    next: usize,
    /// Whether its keys are fields: then a later pass must see all of them again, or it would miss some.
    fields: bool,
}

impl<'de, 'p> Entries<'de, 'p> {
    /// The entries of a map with any keys.
    pub(super) fn new(map: Decoder<'de, 'p>, entries: &'de [Entry]) -> Self {
        Self { map, entries, next: map.pass.start(map.node, entries.len()), fields: false }
    }

    /// The entries of a struct.
    pub(super) fn fields(map: Decoder<'de, 'p>, entries: &'de [Entry]) -> Self {
        Self { map, entries, next: 0, fields: true }
    }

    /// The entry to come.
    pub(super) fn peek(&mut self) -> Option<&'de Entry> {
        while let Some(entry) = self.entries.get(self.next) {
            if !self.map.pass.omits(&entry.1) {
                return Some(entry);
            }
            self.next += 1;
        }
        None
    }

    fn note_progress(&self) {
        if !self.fields {
            self.map.pass.came_to(self.map.node, self.entries.len(), self.next);
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((key, value)) = self.peek() else {
            self.note_progress();
            return Ok(None);
        };
        seed.deserialize(KeyDecoder(&key.text)).map(Some).map_err(|fault| {
            self.note_progress();
            fault.or_at(|_| at_key(&self.map, key, value))
        })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Some((key, value)) = self.peek() else {
            return Err(Fault::value("a value was asked for after the last key"));
        };
        let trail = Trail::Key(&self.map.trail, &key.text);
        let result = Decoder { node: value, trail, pass: self.map.pass }.run(seed);
        match result {
            Ok(_) => self.next += 1,
            Err(_) => self.note_progress(),
        }
        result
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len() - self.next)
    }
}

/// An enum's variant: a bare word, or the only key of a map with its settings.
pub(super) struct Variant<'de, 'p> {
    choice: Decoder<'de, 'p>,
    name: &'de str,
    settings: Option<Decoder<'de, 'p>>,
}

impl<'de, 'p> Variant<'de, 'p> {
    /// A bare word.
    pub(super) fn word(choice: Decoder<'de, 'p>, name: &'de str) -> Self {
        Self { choice, name, settings: None }
    }

    /// A variant with settings.
    pub(super) fn with(choice: Decoder<'de, 'p>, name: &'de str, settings: Decoder<'de, 'p>) -> Self {
        Self { choice, name, settings: Some(settings) }
    }

    fn into_settings(self) -> Result<Decoder<'de, 'p>, Fault> {
        self.settings.ok_or_else(|| Fault::value(format!("`{0}` needs settings: `{0}: ...`", self.name)))
    }
}

impl<'de> EnumAccess<'de> for Variant<'de, '_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let variant = seed.deserialize(KeyDecoder(self.name));
        let variant = variant.map_err(|fault| match self.choice.node.entries() {
            [(key, _)] => fault.or_at(|_| at_key(&self.choice, key, self.choice.node)),
            _ => self.choice.blame(fault),
        })?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de, '_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.settings {
            Some(settings) if settings.node.value != Value::Null => {
                Err(settings.blame(Fault::value(format!("`{}` takes no settings", self.name))))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        self.into_settings()?.run(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        let settings = self.into_settings()?;
        settings.deserialize_tuple(length, visitor).map_err(|fault| settings.blame(fault))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let settings = self.into_settings()?;
        settings.deserialize_struct("", fields, visitor).map_err(|fault| settings.blame(fault))
    }
}

/// A fault of a key, for which `culprit` is to be left out.
pub(super) fn at_key(map: &Decoder<'_, '_>, key: &Key, culprit: &Node) -> Place {
    Place { path: Trail::Key(&map.trail, &key.text).path(), mark: key.mark, culprit, echo: false }
}
