//! What expressions come to.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::trouble::Trouble;
use super::words::View;

/// A value; what it holds of the exchange is borrowed.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Names(&'a [Box<str>]),
    Map(View),
    /// A part that is there as a whole.
    There,
}

impl<'a> Value<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// Text that came from outside: what is not UTF-8 in it is replaced.
    pub(super) fn lossy(bytes: &'a [u8]) -> Self {
        Self::Text(String::from_utf8_lossy(bytes))
    }

    /// About how many bytes looking at all of it takes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(list) => list.iter().map(|item| size_of::<Self>() + item.weight()).sum(),
            Self::Names(names) => names.iter().map(|name| name.len()).sum(),
            _ => 0,
        }
    }

    pub(super) fn as_text(&self) -> Result<&str, Trouble> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(Trouble::Kind),
        }
    }

    pub(super) fn as_bool(&self) -> Result<bool, Trouble> {
        match self {
            Self::Bool(bool) => Ok(*bool),
            _ => Err(Trouble::Kind),
        }
    }

    /// Whether two values are the same; values of different kinds are not, but numbers are numbers.
    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::List(one), Self::List(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.equals(other))
            }
            (Self::Names(names), Self::List(list)) | (Self::List(list), Self::Names(names)) => {
                let mut pairs = names.iter().map(|name| &**name).zip(list);
                names.len() == list.len() && pairs.all(|(name, value)| value.as_text() == Ok(name))
            }
            (Self::Names(one), Self::Names(other)) => one == other,
            _ => matches!(self.compare(other), Ok(Ordering::Equal)),
        }
    }

    /// The order of two numbers, texts, or truths.
    pub(super) fn compare(&self, other: &Self) -> Result<Ordering, Trouble> {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => Ok(one.cmp(other)),
            (Self::Bool(one), Self::Bool(other)) => Ok(one.cmp(other)),
            (Self::Int(one), Self::Int(other)) => Ok(one.cmp(other)),
            _ => match (self.whole(), other.whole()) {
                (Some(one), Some(other)) => Ok(one.cmp(&other)),
                _ => self.double()?.partial_cmp(&other.double()?).ok_or(Trouble::Range),
            },
        }
    }

    fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(number) => Some((*number).into()),
            Self::Uint(number) => Some((*number).into()),
            _ => None,
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "as CEL compares whole numbers with others")]
    fn double(&self) -> Result<f64, Trouble> {
        match self {
            Self::Int(number) => Ok(*number as f64),
            Self::Uint(number) => Ok(*number as f64),
            Self::Double(number) => Ok(*number),
            _ => Err(Trouble::Kind),
        }
    }
}
