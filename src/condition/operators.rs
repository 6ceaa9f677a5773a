//! What operators take, and what comes of them.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, operators};

use super::check::{Checker, Typed};
use super::node::{Math, Node, Order};
use super::words::{Kind, View};

impl Checker {
    /// The terms of a row of `&&` or `||`.
    pub(super) fn junction(&mut self, call: &CallExpr) -> Option<Box<[Node]>> {
        let mut terms = Vec::new();
        let mut sound = true;
        for arg in &call.args {
            match &arg.expr {
                Expr::Call(inner) if inner.func_name == call.func_name && inner.target.is_none() => {
                    match self.deeper(|checker| checker.junction(inner)) {
                        Some(inner) => terms.extend(inner),
                        None => sound = false,
                    }
                }
                _ => match self.truth(arg) {
                    Some(term) => terms.push(term),
                    None => sound = false,
                },
            }
        }
        sound.then(|| terms.into())
    }

    pub(super) fn truth(&mut self, ast: &IdedExpr) -> Option<Node> {
        let one = self.check(ast)?;
        match one.kind {
            Kind::Bool | Kind::Any => Some(one.node),
            kind => self.error(format!("`&&`, `||`, `!` and `?` want what is true or false; this is {kind}")),
        }
    }

    pub(super) fn conditional(&mut self, test: &IdedExpr, yes: &IdedExpr, no: &IdedExpr) -> Option<Typed> {
        let (test, yes, no) = (self.truth(test), self.check(yes), self.check(no));
        let (test, yes, no) = (test?, yes?, no?);
        let may_be_null = yes.may_be_null || no.may_be_null;
        let kind = match (yes.kind, no.kind) {
            (Kind::List(one), Kind::List(other)) => {
                // The list that a loop begins with is empty, and of any kind.
                Kind::List(if *one == Kind::Any { other } else { one })
            }
            (one, other) if one == other || other == Kind::Null => one,
            (Kind::Null, other) => other,
            _ => Kind::Any,
        };
        let node = Node::If(Box::new([test, yes.node, no.node]));
        Some(Typed { node, kind, may_be_null })
    }

    fn both(&mut self, one: &IdedExpr, other: &IdedExpr) -> Option<(Typed, Typed)> {
        let (one, other) = (self.check(one), self.check(other));
        Some((one?, other?))
    }

    pub(super) fn equal(&mut self, one: &IdedExpr, other: &IdedExpr) -> Option<Typed> {
        let (one, other) = self.both(one, other)?;
        let nullable = |of: &Typed| of.may_be_null || of.kind == Kind::Any;
        match (&one.kind, &other.kind) {
            (Kind::Null, _) if nullable(&other) => {}
            (_, Kind::Null) if nullable(&one) => {}
            (Kind::Null, kind) | (kind, Kind::Null) => {
                return self.error_with(
                    format!("{kind} is never null here"),
                    (*kind == Kind::Text).then(|| "what is missing is \"\"".to_owned()),
                );
            }
            (Kind::Part(part), _) | (_, Kind::Part(part)) => {
                return self.error(format!("`{}` is compared by its fields, or with null", part.name()));
            }
            (Kind::Map(view), _) | (_, Kind::Map(view)) => {
                return self.error(format!("`{}` is compared by what it has under a name", view.name()));
            }
            (one, other) if !one.meets(other) => {
                return self.error(format!("{one} is never equal to {other}"));
            }
            _ => {}
        }
        Some(Typed::new(Node::Equal(Box::new([one.node, other.node])), Kind::Bool))
    }

    pub(super) fn is_in(&mut self, value: &IdedExpr, container: &IdedExpr) -> Option<Typed> {
        let (value, container) = self.both(value, container)?;
        match (container.kind, container.node, value) {
            (Kind::List(of), _, value) if !of.meets(&value.kind) => {
                self.error(format!("{} is never in a list whose members are {of}", value.kind))
            }
            (Kind::List(_), Node::List(items), value) => {
                Some(Typed::new(Node::OneOf(Box::new(value.node), items), Kind::Bool))
            }
            (Kind::Map(view), _, Typed { node: Node::Text(name), .. }) => self.entry(view, &name, true),
            (Kind::Map(view), _, value) if !value.kind.meets(&Kind::Text) => {
                self.error(format!("the names in `{}` are strings; this is {}", view.name(), value.kind))
            }
            (Kind::List(_) | Kind::Map(_) | Kind::Any, node, value) => {
                Some(Typed::new(Node::In(Box::new([value.node, node])), Kind::Bool))
            }
            (kind, _, _) => {
                let hint = (kind == Kind::Text).then(|| "`a.contains(b)` looks into a string".to_owned());
                self.error_with(format!("`in` looks into a list or a map; this is {kind}"), hint)
            }
        }
    }

    pub(super) fn index(&mut self, of: &IdedExpr, at: &IdedExpr) -> Option<Typed> {
        let (of, at) = self.both(of, at)?;
        if let (Kind::Part(_) | Kind::Map(_), Node::Text(name)) = (&of.kind, &at.node) {
            let name = name.clone();
            return self.field(of, &name, false);
        }
        self.computed |= match of.kind {
            Kind::Map(view) => !matches!(view, View::Claims | View::Parameters),
            Kind::Any => self.whole,
            _ => false,
        };
        let (kind, may_be_null) = match &of.kind {
            Kind::Map(view) if at.kind.meets(&Kind::Text) => (view.of(), *view == View::Claims),
            Kind::List(item) if at.kind.is_number() => ((**item).clone(), false),
            Kind::Any => (Kind::Any, true),
            kind => return self.error(format!("{kind} has nothing under {}", at.kind)),
        };
        Some(Typed { node: Node::Index(Box::new([of.node, at.node])), kind, may_be_null })
    }

    pub(super) fn arithmetic(&mut self, operator: &str, one: &IdedExpr, other: &IdedExpr) -> Option<Typed> {
        let (one, other) = self.both(one, other)?;
        let sign = operator.trim_matches('_').to_owned();
        let order = match operator {
            operators::LESS => Some(Order::Less),
            operators::LESS_EQUALS => Some(Order::LessOrEqual),
            operators::GREATER => Some(Order::Greater),
            operators::GREATER_EQUALS => Some(Order::GreaterOrEqual),
            _ => None,
        };
        let (left, right) = (&one.kind, &other.kind);
        if let Some(order) = order {
            let ordered = left.is_number() || matches!(left, Kind::Text | Kind::Bool);
            if !ordered || !left.meets(right) {
                return self.error(format!("`{sign}` cannot compare {left} and {right}"));
            }
            return Some(Typed::new(Node::Compare(order, Box::new([one.node, other.node])), Kind::Bool));
        }
        let math = match operator {
            operators::ADD => Math::Add,
            operators::SUBSTRACT => Math::Subtract,
            operators::MULTIPLY => Math::Multiply,
            operators::DIVIDE => Math::Divide,
            operators::MODULO => Math::Modulo,
            _ => return self.error(format!("`{operator}` is not known here")),
        };
        let kind = match (left, right) {
            (Kind::Text, Kind::Text) if math == Math::Add => Kind::Text,
            (Kind::List(one), Kind::List(other)) if math == Math::Add && one.meets(other) => {
                Kind::List(if **one == Kind::Any { other.clone() } else { one.clone() })
            }
            (one, other) if one.is_number() && one == other => one.clone(),
            (Kind::Any, _) | (_, Kind::Any) => Kind::Any,
            (one, other) => {
                let hint = (one.is_number() && other.is_number())
                    .then(|| "`int(x)`, `uint(x)` and `double(x)` make one kind of them".to_owned());
                return self.error_with(format!("`{sign}` cannot be between {one} and {other}"), hint);
            }
        };
        Some(Typed::new(Node::Math(math, Box::new([one.node, other.node])), kind))
    }
}
