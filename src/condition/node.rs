//! An expression that was checked, ready to be told of exchanges.

use http::HeaderName;
use regex::Regex;

use super::words::{Fact, Part, View};
use crate::types::Cidr;

/// A checked expression.
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
    List(Box<[Node]>),
    Fact(Fact),
    Part(Part),
    Map(View),
    /// What a map has under a name that is known.
    Entry(View, Name),
    /// Whether it has anything there.
    HasEntry(View, Name),
    Index(Box<[Node; 2]>),
    /// Whether something is not null.
    IsThere(Box<Node>),
    /// The variable of a loop, or what it came to so far, by its place.
    Local(usize),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node]>),
    Or(Box<[Node]>),
    If(Box<[Node; 3]>),
    Equal(Box<[Node; 2]>),
    Compare(Order, Box<[Node; 2]>),
    Math(Math, Box<[Node; 2]>),
    /// Whether a value is one of these.
    OneOf(Box<Node>, Box<[Node]>),
    /// Whether a list or the names of a map have a value.
    In(Box<[Node; 2]>),
    /// Whether a value is anything but false, or cannot be told.
    NotFalse(Box<Node>),
    Fold(Box<Fold>),
    Call(Function, Box<[Node]>),
    Matches(Box<Node>, Box<Regex>),
    InCidr(Cidr, Box<Node>),
}

/// A name in a map.
pub(super) enum Name {
    Field(HeaderName),
    Other(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Math {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// A loop over a list or the names of a map. Its variable and what it came to are the two locals at `base`.
pub(super) struct Fold {
    pub(super) base: usize,
    pub(super) range: Node,
    pub(super) init: Node,
    pub(super) goes_on: Node,
    pub(super) step: Node,
    pub(super) result: Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    LowerAscii,
    UpperAscii,
    Trim,
    Int,
    Uint,
    Double,
    String,
    Bool,
}
