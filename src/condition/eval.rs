//! What an expression comes to.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::net::IpAddr;

use super::node::{Fold, Math, Node, Order};
use super::trouble::Trouble;
use super::value::Value;
use super::words::Fact;
use crate::exchange::{Exchange, ResponseHeader};

/// The most turns of all loops of one expression: a head has a hundred fields, and a loop in a loop ten thousand turns.
const TURNS: u32 = 10_000;
/// The most bytes that one telling looks at or copies: a head has 64 KiB, and a loop over its cookies would look at all of
/// them again in every turn.
pub(super) const FUEL: usize = 1 << 20;
/// What a step of the tree costs of it, whatever it looks at.
const STEP: usize = 4;

/// One telling of an expression.
pub(super) struct Run<'a> {
    pub(super) exchange: &'a Exchange<'a>,
    pub(super) response: Option<&'a ResponseHeader>,
    /// Whether nothing but the request's head is known.
    pub(super) head_only: bool,
    locals: Vec<Result<Value<'a>, Trouble>>,
    turns: u32,
    fuel: Cell<usize>,
}

impl<'a> Run<'a> {
    pub(super) fn new(exchange: &'a Exchange<'a>, response: Option<&'a ResponseHeader>) -> Self {
        Self { exchange, response, head_only: false, locals: Vec::new(), turns: 0, fuel: Cell::new(FUEL) }
    }

    pub(super) fn of_head(exchange: &'a Exchange<'a>) -> Self {
        Self { head_only: true, ..Self::new(exchange, None) }
    }

    /// Draws on the fuel for so many bytes that are to be looked at or copied.
    pub(super) fn draw(&self, bytes: usize) -> Result<(), Trouble> {
        let left = self.fuel.get().checked_sub(bytes);
        self.fuel.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or(Trouble::TooLong)
    }

    /// What is left of the fuel. Without any, nothing more is told: no other side decides then.
    pub(super) fn fuel(&self) -> usize {
        self.fuel.get()
    }
}

impl Node {
    /// What it comes to.
    pub(super) fn eval<'a>(&'a self, run: &mut Run<'a>) -> Result<Value<'a>, Trouble> {
        run.draw(STEP)?;
        match self {
            Self::Fact(fact) => run.fact(*fact),
            Self::Text(text) => Ok(Value::text(text)),
            Self::Entry(view, name) => run.entry(*view, name),
            Self::Equal(sides) => {
                let [one, other] = &**sides;
                let one = one.eval(run)?;
                let other = other.eval(run)?;
                run.draw(one.weight().min(other.weight()))?;
                Ok(Value::Bool(one.equals(&other)))
            }
            Self::And(terms) => decided(terms, false, run),
            Self::Or(terms) => decided(terms, true, run),
            Self::Not(of) => Ok(Value::Bool(!of.eval(run)?.as_bool()?)),
            Self::Matches(of, pattern) => {
                let of = of.eval(run)?;
                run.draw(of.weight())?;
                Ok(Value::Bool(pattern.is_match(of.as_text()?)))
            }
            Self::HasEntry(view, name) => Ok(Value::Bool(run.has(*view, name)?)),
            Self::OneOf(value, items) => one_of(value, items, run),
            Self::InCidr(cidr, ip) => Ok(Value::Bool(cidr.contains(address(ip, run)?))),
            Self::Null => Ok(Value::Null),
            Self::Bool(value) => Ok(Value::Bool(*value)),
            Self::Int(number) => Ok(Value::Int(*number)),
            Self::Uint(number) => Ok(Value::Uint(*number)),
            Self::Double(number) => Ok(Value::Double(*number)),
            Self::Map(view) => Ok(Value::Map(*view)),
            Self::Part(part) => run.part(*part),
            Self::Local(at) => run.local(*at),
            Self::IsThere(of) => Ok(Value::Bool(!matches!(of.eval(run)?, Value::Null))),
            Self::NotFalse(of) => match of.eval(run) {
                Err(trouble) if run.fuel() == 0 => Err(trouble),
                told => Ok(Value::Bool(!matches!(told, Ok(Value::Bool(false))))),
            },
            Self::If(parts) => {
                let [test, yes, no] = &**parts;
                if test.eval(run)?.as_bool()? { yes.eval(run) } else { no.eval(run) }
            }
            Self::Compare(order, sides) => {
                let [one, other] = &**sides;
                let one = one.eval(run)?;
                let other = other.eval(run)?;
                run.draw(one.weight().min(other.weight()))?;
                Ok(Value::Bool(order.is(one.compare(&other)?)))
            }
            Self::Negate(of) => match of.eval(run)? {
                Value::Int(number) => number.checked_neg().map(Value::Int).ok_or(Trouble::Range),
                Value::Double(number) => Ok(Value::Double(-number)),
                _ => Err(Trouble::Kind),
            },
            Self::Math(math, sides) => {
                let [one, other] = &**sides;
                let one = one.eval(run)?;
                let other = other.eval(run)?;
                run.draw(math.copies(&one, &other))?;
                math.of(one, other)
            }
            Self::List(items) => {
                items.iter().map(|item| item.eval(run)).collect::<Result<_, _>>().map(Value::List)
            }
            Self::Index(sides) => {
                let [of, at] = &**sides;
                let of = of.eval(run)?;
                let at = at.eval(run)?;
                run.at(of, &at)
            }
            Self::In(sides) => {
                let [value, container] = &**sides;
                let value = value.eval(run)?;
                let container = container.eval(run)?;
                run.draw(container.weight())?;
                match container {
                    Value::List(list) => Ok(Value::Bool(list.iter().any(|item| item.equals(&value)))),
                    Value::Names(names) => {
                        let value = value.as_text()?;
                        Ok(Value::Bool(names.iter().any(|name| **name == *value)))
                    }
                    Value::Map(view) => Ok(Value::Bool(run.has_text(view, value.as_text()?)?)),
                    _ => Err(Trouble::Kind),
                }
            }
            Self::Fold(fold) => fold.eval(run),
            Self::Call(function, given) => function.call(given, run),
        }
    }
}

/// A row of `&&` (which `false` decides) or `||` (which `true` does): what cannot be told counts only where nothing
/// decides.
fn decided<'a>(terms: &'a [Node], by: bool, run: &mut Run<'a>) -> Result<Value<'a>, Trouble> {
    let mut trouble = None;
    for term in terms {
        match term.eval(run).and_then(|value| value.as_bool()) {
            Ok(value) if value == by => return Ok(Value::Bool(by)),
            Ok(_) => {}
            Err(met) if run.fuel() == 0 => return Err(met),
            Err(met) => trouble = trouble.or(Some(met)),
        }
    }
    trouble.map_or(Ok(Value::Bool(!by)), Err)
}

fn one_of<'a>(value: &'a Node, items: &'a [Node], run: &mut Run<'a>) -> Result<Value<'a>, Trouble> {
    let value = value.eval(run)?;
    for item in items {
        let item = item.eval(run)?;
        run.draw(item.weight().min(value.weight()))?;
        if item.equals(&value) {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

/// The client's own address need not become text and an address again.
fn address<'a>(of: &'a Node, run: &mut Run<'a>) -> Result<IpAddr, Trouble> {
    match of {
        Node::Fact(Fact::Ip) => run.ip(),
        other => other.eval(run)?.as_text()?.trim().parse().map_err(|_| Trouble::NotAnAddress),
    }
}

impl Node {
    /// What it comes to, where the local at `at` is not needed any more: what a loop came to so far is added to in place,
    /// not copied in every turn.
    fn eval_taking<'a>(&'a self, at: usize, run: &mut Run<'a>) -> Result<Value<'a>, Trouble> {
        match self {
            Self::Local(local) if *local == at => run.take(at),
            Self::If(parts) => {
                let [test, yes, no] = &**parts;
                let way = if test.eval(run)?.as_bool()? { yes } else { no };
                way.eval_taking(at, run)
            }
            Self::Math(math, sides) if matches!(sides[0], Self::Local(local) if local == at) => {
                let other = sides[1].eval(run);
                let one = run.take(at)?;
                let other = other?;
                run.draw(math.copies(&one, &other))?;
                math.of(one, other)
            }
            other => other.eval(run),
        }
    }
}

impl Fold {
    fn eval<'a>(&'a self, run: &mut Run<'a>) -> Result<Value<'a>, Trouble> {
        let items = match self.range.eval(run)? {
            Value::List(items) => items,
            Value::Names(names) => names.iter().map(|name| Value::text(name)).collect(),
            Value::Map(view) => run.names(view)?.into_iter().map(Value::Text).collect(),
            _ => return Err(Trouble::Kind),
        };
        let init = self.init.eval(run);
        run.locals.truncate(self.base);
        run.locals.extend([Err(Trouble::Kind), init]);
        let result = self.turns(items, run);
        run.locals.truncate(self.base);
        result
    }

    fn turns<'a>(&'a self, items: Vec<Value<'a>>, run: &mut Run<'a>) -> Result<Value<'a>, Trouble> {
        for item in items {
            if !self.goes_on.eval(run)?.as_bool()? {
                break;
            }
            run.turns += 1;
            if run.turns > TURNS {
                return Err(Trouble::TooLong);
            }
            run.set(self.base, Ok(item));
            let next = self.step.eval_taking(self.base + 1, run);
            if let Err(trouble) = next
                && run.fuel() == 0
            {
                return Err(trouble);
            }
            run.set(self.base + 1, next);
        }
        self.result.eval_taking(self.base + 1, run)
    }
}

impl<'a> Run<'a> {
    fn set(&mut self, at: usize, value: Result<Value<'a>, Trouble>) {
        if let Some(local) = self.locals.get_mut(at) {
            *local = value;
        }
    }

    fn local(&self, at: usize) -> Result<Value<'a>, Trouble> {
        let local =
            self.locals.get(at).map_or(Err(Trouble::Kind), |local| local.as_ref().map_err(|met| *met))?;
        self.draw(local.weight())?;
        Ok(local.clone())
    }

    fn take(&mut self, at: usize) -> Result<Value<'a>, Trouble> {
        self.locals.get_mut(at).map_or(Err(Trouble::Kind), |it| std::mem::replace(it, Err(Trouble::Kind)))
    }
}

impl Order {
    fn is(self, found: Ordering) -> bool {
        match self {
            Self::Less => found.is_lt(),
            Self::LessOrEqual => found.is_le(),
            Self::Greater => found.is_gt(),
            Self::GreaterOrEqual => found.is_ge(),
        }
    }
}

impl Math {
    /// The bytes that are copied. A list is added to in place; a text is made anew.
    fn copies(self, one: &Value<'_>, other: &Value<'_>) -> usize {
        match one {
            Value::Text(text) => text.len() + other.weight(),
            _ => other.weight(),
        }
    }

    fn of<'a>(self, one: Value<'a>, other: Value<'a>) -> Result<Value<'a>, Trouble> {
        match (one, other) {
            (Value::Int(one), Value::Int(other)) => self
                .int(
                    other == 0,
                    one.checked_add(other),
                    one.checked_sub(other),
                    one.checked_mul(other),
                    || (one.checked_div(other), one.checked_rem(other)),
                )
                .map(Value::Int),
            (Value::Uint(one), Value::Uint(other)) => self
                .int(
                    other == 0,
                    one.checked_add(other),
                    one.checked_sub(other),
                    one.checked_mul(other),
                    || (one.checked_div(other), one.checked_rem(other)),
                )
                .map(Value::Uint),
            (Value::Double(one), Value::Double(other)) => match self {
                Self::Add => Ok(Value::Double(one + other)),
                Self::Subtract => Ok(Value::Double(one - other)),
                Self::Multiply => Ok(Value::Double(one * other)),
                Self::Divide => Ok(Value::Double(one / other)),
                Self::Modulo => Err(Trouble::Kind),
            },
            (Value::Text(one), Value::Text(other)) if self == Self::Add => {
                Ok(Value::Text(Cow::Owned([&*one, &*other].concat())))
            }
            (Value::List(mut one), Value::List(other)) if self == Self::Add => {
                one.extend(other);
                Ok(Value::List(one))
            }
            _ => Err(Trouble::Kind),
        }
    }

    fn int<N>(
        self,
        by_zero: bool,
        sum: Option<N>,
        difference: Option<N>,
        product: Option<N>,
        parts: impl FnOnce() -> (Option<N>, Option<N>),
    ) -> Result<N, Trouble> {
        let (found, trouble) = match self {
            Self::Add => (sum, Trouble::Range),
            Self::Subtract => (difference, Trouble::Range),
            Self::Multiply => (product, Trouble::Range),
            Self::Divide => (parts().0, if by_zero { Trouble::Zero } else { Trouble::Range }),
            Self::Modulo => (parts().1, if by_zero { Trouble::Zero } else { Trouble::Range }),
        };
        found.ok_or(trouble)
    }
}
