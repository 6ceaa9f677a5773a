//! What keeps an expression from being told.

use std::fmt;

/// What keeps an expression from being told of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It is not known yet.
    Unknown,
    /// There is no response.
    NoResponse,
    /// A value is of another kind than is needed, or is missing.
    Kind,
    /// A text is no number.
    NotANumber,
    /// A text is no address.
    NotAnAddress,
    /// A number is out of range.
    Range,
    /// A division by zero.
    Zero,
    /// A list has no such place.
    Index,
    /// Its loops take too many steps, or look at too much.
    TooLong,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "it is not known yet",
            Self::NoResponse => "there is no response",
            Self::Kind => "a value is missing, or of another kind than is needed",
            Self::NotANumber => "a text is no number",
            Self::NotAnAddress => "a text is no address",
            Self::Range => "a number is out of range",
            Self::Zero => "it divides by zero",
            Self::Index => "a list has no such place",
            Self::TooLong => "its loops take too many steps",
        })
    }
}

impl std::error::Error for Trouble {}
