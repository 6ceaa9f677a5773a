//! What serde reports while decoding, put into users' words.

use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use super::node::Node;
use super::source::Mark;

/// The identity of a node while its tree is borrowed.
pub(super) type Address = *const Node;

/// An error of the decoder. It learns its place on its way out, from the innermost value that fails.
#[derive(Debug)]
pub(super) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    problem: Problem,
    place: Option<Place>,
}

/// What went wrong.
#[derive(Debug)]
pub(super) enum Problem {
    /// A key that the map does not take.
    UnknownKey {
        /// The key as written.
        key: String,
        /// The keys it does take.
        known: &'static [&'static str],
    },
    /// A key that the map lacks.
    MissingKey(&'static str),
    /// A value of the wrong kind or out of range.
    Value {
        /// What is wrong.
        message: String,
        /// What may help.
        hint: Option<String>,
    },
    /// Whatever else a type objects to. If parts of the value were pruned, that may be the reason.
    Objection(String),
}

/// Where a fault lies.
#[derive(Debug)]
pub(super) struct Place {
    /// The document path to show.
    pub(super) path: String,
    /// The place to show.
    pub(super) mark: Mark,
    /// The value to leave out so that decoding can go on.
    pub(super) culprit: Address,
    /// Whether the fault only follows from what was left out before.
    pub(super) echo: bool,
}

impl Fault {
    /// A value that is wrong in itself.
    pub(super) fn value(message: impl Into<String>) -> Self {
        Self::new(Problem::Value { message: message.into(), hint: None })
    }

    fn new(problem: Problem) -> Self {
        Self(Box::new(Inner { problem, place: None }))
    }

    /// Gives the fault its place, unless an inner value has done so.
    pub(super) fn or_at(mut self, place: impl FnOnce(&Problem) -> Place) -> Self {
        if self.0.place.is_none() {
            self.0.place = Some(place(&self.0.problem));
        }
        self
    }

    /// Leaves out `whole` where `part` was to be left out: `whole` means nothing without it.
    pub(super) fn widen(mut self, part: Address, whole: Address) -> Self {
        if let Some(place) = &mut self.0.place
            && place.culprit == part
        {
            place.culprit = whole;
        }
        self
    }

    /// What went wrong, and where if it is known.
    pub(super) fn into_parts(self) -> (Problem, Option<Place>) {
        (self.0.problem, self.0.place)
    }
}

impl Problem {
    /// The key that an unknown one was probably meant to be.
    pub(super) fn meant_key(&self) -> Option<&'static str> {
        match self {
            Self::UnknownKey { key, known } => closest(key, known),
            _ => None,
        }
    }

    /// The message and hint to show.
    pub(super) fn describe(&self) -> (String, Option<String>) {
        match self {
            Self::UnknownKey { key, known } => (format!("unknown key `{key}`"), suggest(key, known)),
            Self::MissingKey(key) => (format!("missing key `{key}`"), None),
            Self::Value { message, hint } => (message.clone(), hint.clone()),
            Self::Objection(message) => (message.clone(), None),
        }
    }
}

impl Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.problem.describe().0)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        let message = message.to_string();
        Self::new(Problem::Objection(
            match message.starts_with("data did not match any variant of untagged enum") {
                true => "none of the accepted forms fits this value".into(),
                false => message,
            },
        ))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::value(format!(
            "expected {}, found {}",
            expected_words(&expected.to_string()),
            found_words(found)
        ))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Str(text) => format!("`{text}`"),
            other => found_words(other),
        };
        Self::value(format!("expected {}, found {found}", expected_words(&expected.to_string())))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        let found = match length {
            1 => "1 item".into(),
            n => format!("{n} items"),
        };
        Self::new(Problem::Objection(format!(
            "expected {}, found {found}",
            expected_words(&expected.to_string())
        )))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = suggest(variant, expected);
        Self::new(Problem::Value { message: format!("unknown value `{variant}`"), hint })
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownKey { key: field.to_owned(), known: expected })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Problem::MissingKey(field))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::value(format!("`{field}` is given twice, under two names"))
    }
}

/// The known word that was probably meant.
pub fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|&candidate| (strsim::osa_distance(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A hint for a word that is not among the known ones.
pub fn suggest(word: &str, known: &[&str]) -> Option<String> {
    if let Some(meant) = closest(word, known) {
        return Some(format!("did you mean `{meant}`?"));
    }
    match known {
        [] => None,
        [only] => Some(format!("expected `{only}`")),
        _ => Some(format!("expected one of `{}`", known.join("`, `"))),
    }
}

/// What a value is, without Rust's words. Text is not repeated: it may be a secret.
fn found_words(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(b) => format!("`{b}`"),
        Unexpected::Unsigned(n) => format!("`{n}`"),
        Unexpected::Signed(n) => format!("`{n}`"),
        Unexpected::Float(n) => format!("`{n}`"),
        Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "a string".into(),
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Seq | Unexpected::TupleVariant => "a list".into(),
        Unexpected::Map | Unexpected::StructVariant => "a map".into(),
        Unexpected::NewtypeStruct => "a value".into(),
        Unexpected::Enum | Unexpected::UnitVariant => "a word".into(),
        Unexpected::NewtypeVariant => "a map with one key".into(),
        Unexpected::Other(words) => words.to_owned(),
    }
}

/// What serde says it expects, without Rust's words. A type's own words pass through.
fn expected_words(expected: &str) -> String {
    if let Some(words) = number_words(expected) {
        return words;
    }
    let words = match expected {
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "a character" => "a single character",
        "a borrowed string" | "byte array" | "a borrowed byte array" => "a string",
        "path string" | "a borrowed path" => "a path",
        "unit" => "nothing",
        "option" => "a value",
        "variant identifier" | "field identifier" => "a word",
        "an empty array" => "an empty list",
        "internally tagged enum" | "adjacently tagged enum" => "a map",
        _ => return shape_words(expected),
    };
    words.to_owned()
}

/// Words for numbers of Rust's types.
fn number_words(expected: &str) -> Option<String> {
    let (least, name) = match expected.strip_prefix("a nonzero ") {
        Some(name) => ("1", name),
        None => ("0", expected),
    };
    let most = match name {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" | "u128" | "usize" => return Some(format!("a whole number from {least}")),
        "i8" => return Some(format!("a whole number from {} to {}", i8::MIN, i8::MAX)),
        "i16" => return Some(format!("a whole number from {} to {}", i16::MIN, i16::MAX)),
        "i32" => return Some(format!("a whole number from {} to {}", i32::MIN, i32::MAX)),
        "i64" | "i128" | "isize" | "integer with support for saturating semantics" => {
            return Some("a whole number".into());
        }
        "f32" | "f64" => return Some("a number".into()),
        _ => return None,
    };
    Some(format!("a whole number from {least} to {most}"))
}

/// Words for structs, tuples and the like, whose descriptions carry names and counts.
fn shape_words(expected: &str) -> String {
    let count = |text: &str| text.split(' ').find_map(|word| word.parse::<usize>().ok());
    if ["struct ", "struct variant ", "internally tagged enum ", "adjacently tagged enum "]
        .iter()
        .any(|prefix| expected.starts_with(prefix))
    {
        return "a map".into();
    }
    if ["tuple struct ", "tuple variant ", "a tuple of size ", "an array of length "]
        .iter()
        .any(|prefix| expected.starts_with(prefix))
    {
        return match count(expected) {
            Some(1) => "a list of 1 item".into(),
            Some(n) => format!("a list of {n} items"),
            None => "a list".into(),
        };
    }
    if expected.starts_with("enum ") {
        return "a word or a map with one key".into();
    }
    if expected.starts_with("unit struct ") || expected.starts_with("unit variant ") {
        return "nothing".into();
    }
    expected.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_was_meant() {
        let known = ["path", "hosts", "strip_prefix"];
        assert_eq!(closest("pth", &known), Some("path"));
        assert_eq!(closest("stripPrefix", &known), Some("strip_prefix"));
        assert_eq!(closest("strip-prefix", &known), Some("strip_prefix"));
        assert_eq!(closest("timeouts", &known), None);
        assert_eq!(suggest("x", &["on", "off"]).unwrap(), "expected one of `on`, `off`");
        assert_eq!(suggest("xyz", &["on"]).unwrap(), "expected `on`");
        assert_eq!(suggest("xyz", &[]), None);
    }

    #[test]
    fn speaks_no_rust() {
        for (rust, words) in [
            ("u16", "a whole number from 0 to 65535"),
            ("a nonzero u64", "a whole number from 1"),
            ("i8", "a whole number from -128 to 127"),
            ("f64", "a number"),
            ("a sequence", "a list"),
            ("struct Route", "a map"),
            ("struct Route with 3 elements", "a map"),
            ("a tuple of size 2", "a list of 2 items"),
            ("tuple struct Pair with 2 elements", "a list of 2 items"),
            ("unit struct Nothing", "nothing"),
            ("a duration such as `5s`", "a duration such as `5s`"),
        ] {
            assert_eq!(expected_words(rust), words);
        }
    }
}
