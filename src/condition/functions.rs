//! The functions that expressions may call: those of CEL's standard library that make sense here, `lowerAscii`,
//! `upperAscii` and `trim` of its extension for strings, and `cidr("…").containsIP(…)`, as Kubernetes calls it.

use std::borrow::Cow;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue};
use regex::{Regex, RegexBuilder};

use super::check::{Checker, Typed};
use super::eval::Run;
use super::node::{Function, Node};
use super::trouble::Trouble;
use super::value::Value;
use super::words::Kind;
use crate::document::suggest;
use crate::types::Cidr;

/// What a pattern may take, compiled.
const PATTERN: usize = 1 << 20;

/// Every function by name, with what it is called on and takes.
const FUNCTIONS: [(&str, Function, &[Takes]); 12] = [
    ("size", Function::Size, &[Takes::Sized]),
    ("contains", Function::Contains, &[Takes::Text, Takes::Text]),
    ("startsWith", Function::StartsWith, &[Takes::Text, Takes::Text]),
    ("endsWith", Function::EndsWith, &[Takes::Text, Takes::Text]),
    ("lowerAscii", Function::LowerAscii, &[Takes::Text]),
    ("upperAscii", Function::UpperAscii, &[Takes::Text]),
    ("trim", Function::Trim, &[Takes::Text]),
    ("int", Function::Int, &[Takes::Scalar]),
    ("uint", Function::Uint, &[Takes::Scalar]),
    ("double", Function::Double, &[Takes::Scalar]),
    ("string", Function::String, &[Takes::Scalar]),
    ("bool", Function::Bool, &[Takes::Scalar]),
];

/// Those that are read in a way of their own.
const OTHERS: [&str; 9] =
    ["matches", "cidr", "containsIP", "has", "all", "exists", "exists_one", "map", "filter"];

/// What a function takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Text,
    /// Anything that has a size.
    Sized,
    /// A number, a text or a truth.
    Scalar,
}

impl Takes {
    fn fits(self, kind: &Kind) -> bool {
        match self {
            Self::Text => kind.meets(&Kind::Text),
            Self::Sized => matches!(kind, Kind::Text | Kind::List(_) | Kind::Map(_) | Kind::Any),
            Self::Scalar => kind.is_number() || matches!(kind, Kind::Text | Kind::Bool),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Sized => "a string, a list or a map",
            Self::Scalar => "a number, a string, or what is true or false",
        }
    }
}

impl Checker {
    /// A call, as `f(x)` or `x.f()`.
    pub(super) fn function(&mut self, call: &CallExpr) -> Option<Typed> {
        let name = call.func_name.as_str();
        let given: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        match (name, given.as_slice()) {
            ("matches", [text, pattern]) => return self.matches(text, pattern),
            ("matches", _) => return self.error("`matches` is written `x.matches(\"pattern\")`"),
            ("containsIP", [net, ip]) => return self.contains_ip(net, ip),
            ("containsIP" | "cidr", _) => {
                return self.error("a network is asked so: `cidr(\"10.0.0.0/8\").containsIP(client.ip)`");
            }
            _ => {}
        }
        let Some((_, function, takes)) = FUNCTIONS.iter().find(|(known, ..)| *known == name) else {
            if OTHERS.contains(&name) {
                return self.error(format!("`{name}` is not called so: {}", macro_form(name)));
            }
            let known: Vec<&str> = FUNCTIONS.iter().map(|(known, ..)| *known).chain(OTHERS).collect();
            let hint = meant(name).map(str::to_owned).or_else(|| suggest(name, &known));
            return self.error_with(format!("there is no function `{name}`"), hint);
        };
        if given.len() != takes.len() {
            let form = if takes.len() == 2 { format!("x.{name}(y)") } else { format!("{name}(x)") };
            return self.error(format!("`{name}` is written `{form}`"));
        }
        let given: Vec<Option<Typed>> = given.into_iter().map(|one| self.check(one)).collect();
        let given: Vec<Typed> = given.into_iter().collect::<Option<_>>()?;
        for (one, takes) in given.iter().zip(*takes) {
            if !takes.fits(&one.kind) {
                return self.error(format!("`{name}` wants {}; this is {}", takes.words(), one.kind));
            }
        }
        let given = given.into_iter().map(|one| one.node).collect();
        Some(Typed::new(Node::Call(*function, given), function.gives()))
    }

    fn matches(&mut self, text: &IdedExpr, pattern: &IdedExpr) -> Option<Typed> {
        let of = self.check(text)?;
        if !of.kind.meets(&Kind::Text) {
            return self.error(format!("`matches` wants a string; this is {}", of.kind));
        }
        let Some(pattern) = literal(pattern) else {
            return self.error(
                "the pattern of `matches` is written out: one that a request makes could be of any cost",
            );
        };
        let pattern = self.pattern(pattern)?;
        Some(Typed::new(Node::Matches(Box::new(of.node), Box::new(pattern)), Kind::Bool))
    }

    fn pattern(&mut self, text: &str) -> Option<Regex> {
        match RegexBuilder::new(text).size_limit(PATTERN).build() {
            Ok(regex) => Some(regex),
            Err(regex::Error::CompiledTooBig(limit)) => {
                self.error(format!("compiled, the pattern is larger than {limit} bytes"))
            }
            Err(error) => {
                let reason = error.to_string();
                let reason =
                    reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                self.error(format!("the pattern of `matches` is no regular expression: {reason}"))
            }
        }
    }

    fn contains_ip(&mut self, net: &IdedExpr, ip: &IdedExpr) -> Option<Typed> {
        let ip = self.check(ip)?;
        if !ip.kind.meets(&Kind::Text) {
            return self.error(format!("`containsIP` wants a string; this is {}", ip.kind));
        }
        let text = match &net.expr {
            Expr::Call(call) if call.func_name == "cidr" && call.target.is_none() => {
                match call.args.as_slice() {
                    [only] => literal(only),
                    _ => None,
                }
            }
            _ => None,
        };
        match text.map(str::parse::<Cidr>) {
            Some(Ok(cidr)) => Some(Typed::new(Node::InCidr(cidr, Box::new(ip.node)), Kind::Bool)),
            Some(Err(error)) => self.error(format!("`cidr`: {error}")),
            None => self.error("a network is asked so: `cidr(\"10.0.0.0/8\").containsIP(client.ip)`"),
        }
    }
}

fn literal(ast: &IdedExpr) -> Option<&str> {
    match &ast.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

fn macro_form(name: &str) -> &'static str {
    match name {
        "has" => "`has(x.field)`",
        "map" => "`list.map(x, …)`",
        "filter" => "`list.filter(x, …)`",
        "all" => "`list.all(x, …)`",
        "exists" => "`list.exists(x, …)`",
        _ => "`list.exists_one(x, …)`",
    }
}

/// The names that others have for these.
fn meant(name: &str) -> Option<&'static str> {
    Some(match name {
        "lower" | "toLower" | "toLowerCase" | "lowercase" => "did you mean `lowerAscii`?",
        "upper" | "toUpper" | "toUpperCase" | "uppercase" => "did you mean `upperAscii`?",
        "len" | "length" | "count" => "did you mean `size`?",
        "hasPrefix" | "starts_with" => "did you mean `startsWith`?",
        "hasSuffix" | "ends_with" => "did you mean `endsWith`?",
        "inCidr" | "in_cidr" | "ip" | "ip_in" => "write `cidr(\"10.0.0.0/8\").containsIP(client.ip)`",
        "any" | "some" => "did you mean `exists`?",
        _ => return None,
    })
}

impl Function {
    /// The kind of what it gives.
    fn gives(self) -> Kind {
        match self {
            Self::Size | Self::Int => Kind::Int,
            Self::Uint => Kind::Uint,
            Self::Double => Kind::Double,
            Self::Contains | Self::StartsWith | Self::EndsWith | Self::Bool => Kind::Bool,
            Self::LowerAscii | Self::UpperAscii | Self::Trim | Self::String => Kind::Text,
        }
    }

    /// Calls it. What it takes was counted when the call was read.
    pub(super) fn call<'a>(self, given: &'a [Node], run: &mut Run<'a>) -> Result<Value<'a>, Trouble> {
        let of = given.first().ok_or(Trouble::Kind)?.eval(run)?;
        run.draw(of.weight())?;
        let mut with = |test: fn(&str, &str) -> bool| -> Result<Value<'a>, Trouble> {
            let other = given.get(1).ok_or(Trouble::Kind)?.eval(run)?;
            Ok(Value::Bool(test(of.as_text()?, other.as_text()?)))
        };
        match self {
            Self::Contains => with(|of, other| of.contains(other)),
            Self::StartsWith => with(|of, other| of.starts_with(other)),
            Self::EndsWith => with(|of, other| of.ends_with(other)),
            Self::Size => size(&of, run),
            Self::LowerAscii => Ok(cased(of, u8::is_ascii_uppercase, str::to_ascii_lowercase)?),
            Self::UpperAscii => Ok(cased(of, u8::is_ascii_lowercase, str::to_ascii_uppercase)?),
            Self::Trim => Ok(Value::Text(match of {
                Value::Text(Cow::Borrowed(text)) => Cow::Borrowed(text.trim()),
                other => Cow::Owned(other.as_text()?.trim().to_owned()),
            })),
            Self::Int => int(&of).map(Value::Int),
            Self::Uint => uint(&of).map(Value::Uint),
            Self::Double => double(&of).map(Value::Double),
            Self::String => string(of),
            Self::Bool => match &of {
                Value::Bool(_) => Ok(of),
                Value::Text(text) if text == "true" => Ok(Value::Bool(true)),
                Value::Text(text) if text == "false" => Ok(Value::Bool(false)),
                _ => Err(Trouble::Kind),
            },
        }
    }
}

fn size<'a>(of: &Value<'a>, run: &Run<'a>) -> Result<Value<'a>, Trouble> {
    let size = match of {
        Value::Text(text) => text.chars().count(),
        Value::List(list) => list.len(),
        Value::Names(names) => names.len(),
        Value::Map(view) => run.names(*view)?.len(),
        _ => return Err(Trouble::Kind),
    };
    i64::try_from(size).map(Value::Int).map_err(|_| Trouble::Range)
}

fn cased<'a>(
    of: Value<'a>,
    other: fn(&u8) -> bool,
    change: fn(&str) -> String,
) -> Result<Value<'a>, Trouble> {
    match of {
        Value::Text(text) if text.bytes().any(|byte| other(&byte)) => {
            Ok(Value::Text(Cow::Owned(change(&text))))
        }
        Value::Text(_) => Ok(of),
        _ => Err(Trouble::Kind),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "checked before")]
fn int(of: &Value<'_>) -> Result<i64, Trouble> {
    match of {
        Value::Int(number) => Ok(*number),
        Value::Uint(number) => i64::try_from(*number).map_err(|_| Trouble::Range),
        Value::Double(number) if number.abs() < i64::MAX as f64 => Ok(*number as i64),
        Value::Double(_) => Err(Trouble::Range),
        Value::Text(text) => text.parse().map_err(|_| Trouble::NotANumber),
        _ => Err(Trouble::Kind),
    }
}

fn uint(of: &Value<'_>) -> Result<u64, Trouble> {
    match of {
        Value::Text(text) => text.parse().map_err(|_| Trouble::NotANumber),
        other => whole(other),
    }
}

/// A number without what is behind its point, if it is not below zero.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "checked before"
)]
pub(super) fn whole(of: &Value<'_>) -> Result<u64, Trouble> {
    match of {
        Value::Int(number) => u64::try_from(*number).map_err(|_| Trouble::Range),
        Value::Uint(number) => Ok(*number),
        Value::Double(number) if (0.0..u64::MAX as f64).contains(number) => Ok(*number as u64),
        Value::Double(_) => Err(Trouble::Range),
        _ => Err(Trouble::Kind),
    }
}

#[allow(clippy::cast_precision_loss, reason = "as CEL converts whole numbers")]
fn double(of: &Value<'_>) -> Result<f64, Trouble> {
    match of {
        Value::Int(number) => Ok(*number as f64),
        Value::Uint(number) => Ok(*number as f64),
        Value::Double(number) => Ok(*number),
        Value::Text(text) => text.parse().map_err(|_| Trouble::NotANumber),
        _ => Err(Trouble::Kind),
    }
}

fn string(of: Value<'_>) -> Result<Value<'_>, Trouble> {
    let text = match of {
        Value::Text(_) => return Ok(of),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        _ => return Err(Trouble::Kind),
    };
    Ok(Value::Text(Cow::Owned(text)))
}
