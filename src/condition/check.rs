//! The tree of the parser becomes a checked one, or every error at once.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, ListExpr, LiteralValue, SelectExpr, operators};
use http::HeaderName;

use super::Place;
use super::node::{Fold, Name, Node};
use super::words::{Kind, Part, VARIABLES, View, Word};
use crate::document::{ConfigError, Errors, suggest};

/// How deep a tree may be: whoever walks it needs a piece of the stack for each step down.
const DEEPEST: usize = 64;

/// An expression that was checked.
pub(super) struct Checked {
    pub(super) node: Node,
    pub(super) kind: Kind,
    /// Whether it looks at the response.
    pub(super) response: bool,
    /// Whether it looks at who the client has proved to be.
    pub(super) identity: bool,
    /// The path parameters that it names.
    pub(super) parameters: Vec<Box<str>>,
    /// The header fields whose values it looks at.
    pub(super) fields: Vec<Box<str>>,
    /// The query parameters whose values it looks at.
    pub(super) queries: Vec<Box<str>>,
    /// Whether it looks at values of the request under names that it makes itself.
    pub(super) computed: bool,
}

/// Checks a tree against what there is to know at this place.
pub(super) fn check(ast: &IdedExpr, place: Place) -> Result<Checked, Errors> {
    let mut checker = Checker {
        place,
        depth: 0,
        locals: Vec::new(),
        errors: Errors::default(),
        response: false,
        identity: false,
        parameters: Vec::new(),
        fields: Vec::new(),
        queries: Vec::new(),
        computed: false,
        whole: false,
    };
    let typed = checker.check(ast);
    let Checker { errors, response, identity, parameters, fields, queries, computed, .. } = checker;
    match typed {
        Some(Typed { node, kind, .. }) if errors.is_empty() => {
            Ok(Checked { node, kind, response, identity, parameters, fields, queries, computed })
        }
        _ => Err(errors),
    }
}

/// A node and what it comes to.
pub(super) struct Typed {
    pub(super) node: Node,
    pub(super) kind: Kind,
    /// Whether it may be null, too.
    pub(super) may_be_null: bool,
}

impl Typed {
    pub(super) fn new(node: Node, kind: Kind) -> Self {
        Self { node, kind, may_be_null: false }
    }

    fn absent(node: Node, kind: Kind) -> Self {
        Self { node, kind, may_be_null: true }
    }
}

pub(super) struct Checker {
    place: Place,
    depth: usize,
    /// The variables of the loops around, and what those came to.
    locals: Vec<(String, Kind)>,
    errors: Errors,
    response: bool,
    identity: bool,
    parameters: Vec<Box<str>>,
    fields: Vec<Box<str>>,
    queries: Vec<Box<str>>,
    pub(super) computed: bool,
    /// Whether it has a map of the request as a value, which may be any value then.
    pub(super) whole: bool,
}

impl Checker {
    pub(super) fn check(&mut self, ast: &IdedExpr) -> Option<Typed> {
        self.deeper(|checker| checker.of_kind(ast))
    }

    pub(super) fn deeper<T>(&mut self, step: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth == DEEPEST {
            return self.error(format!("an expression is at most {DEEPEST} steps deep"));
        }
        self.depth += 1;
        let found = step(self);
        self.depth -= 1;
        found
    }

    fn of_kind(&mut self, ast: &IdedExpr) -> Option<Typed> {
        match &ast.expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::Ident(name) => self.ident(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(list),
            Expr::Comprehension(fold) => self.fold(fold),
            Expr::Map(_) => self.error("a map of one's own has no use here"),
            Expr::Struct(words) => self.error(format!("there is no message `{}`", words.type_name)),
            Expr::Unspecified => self.error("something is missing"),
        }
    }

    pub(super) fn error<T>(&mut self, message: impl Into<String>) -> Option<T> {
        self.errors.push(ConfigError::new("", message));
        None
    }

    pub(super) fn error_with<T>(&mut self, message: impl Into<String>, hint: Option<String>) -> Option<T> {
        let error = ConfigError::new("", message);
        self.errors.push(match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        });
        None
    }

    fn literal(&mut self, literal: &LiteralValue) -> Option<Typed> {
        Some(match literal {
            LiteralValue::Null => Typed::absent(Node::Null, Kind::Null),
            LiteralValue::Boolean(value) => Typed::new(Node::Bool(*value.inner()), Kind::Bool),
            LiteralValue::Int(value) => Typed::new(Node::Int(*value.inner()), Kind::Int),
            LiteralValue::UInt(value) => Typed::new(Node::Uint(*value.inner()), Kind::Uint),
            LiteralValue::Double(value) => Typed::new(Node::Double(*value.inner()), Kind::Double),
            LiteralValue::String(value) => Typed::new(Node::Text(value.inner().into()), Kind::Text),
            LiteralValue::Bytes(_) => {
                return self.error("nothing here is bytes: write a string, without `b`");
            }
        })
    }

    fn ident(&mut self, name: &str) -> Option<Typed> {
        if let Some(at) = self.locals.iter().rposition(|(known, _)| known == name) {
            return Some(Typed::new(Node::Local(at), self.locals[at].1.clone()));
        }
        let known = VARIABLES.map(|(known, _)| known);
        match VARIABLES.iter().find(|(known, _)| *known == name) {
            Some((_, word)) => self.word(*word),
            None => self.error_with(format!("there is no `{name}`"), suggest(name, &known)),
        }
    }

    fn word(&mut self, word: Word) -> Option<Typed> {
        Some(match word {
            Word::Text(fact) => Typed::new(Node::Fact(fact), Kind::Text),
            Word::Bool(fact) => Typed::new(Node::Fact(fact), Kind::Bool),
            Word::Int(fact) => Typed::new(Node::Fact(fact), Kind::Int),
            Word::MaybeInt(fact) => Typed::absent(Node::Fact(fact), Kind::Int),
            Word::Texts(fact) => Typed::new(Node::Fact(fact), Kind::list(Kind::Text)),
            Word::Map(view) => {
                self.identity |= view == View::Claims;
                self.whole |= view != View::Claims;
                Typed::new(Node::Map(view), Kind::Map(view))
            }
            Word::Part(Part::Response) if self.place == Place::Request => {
                let hint = "`response` is for filters that act on the response alone";
                let message = "there is no `response` yet where this acts";
                return self.error_with(message, Some(hint.into()));
            }
            Word::Part(part) => {
                self.response |= part == Part::Response;
                self.identity |= part == Part::Consumer;
                let kind = Kind::Part(part);
                Typed { node: Node::Part(part), kind, may_be_null: part.may_be_null() }
            }
        })
    }

    fn select(&mut self, select: &SelectExpr) -> Option<Typed> {
        let of = self.check(&select.operand)?;
        let found = self.field(of, &select.field, select.test)?;
        if !select.test || matches!(found.kind, Kind::Bool) && matches!(found.node, Node::HasEntry(..)) {
            return Some(found);
        }
        let is_there = match found.may_be_null {
            true => Node::IsThere(Box::new(found.node)),
            false => Node::Bool(true),
        };
        Some(Typed::new(is_there, Kind::Bool))
    }

    /// What something has under a name; of a map, whether it has anything there, if that is the question.
    pub(super) fn field(&mut self, of: Typed, name: &str, test: bool) -> Option<Typed> {
        match of.kind {
            Kind::Part(part) => match part.fields().iter().find(|(known, _)| *known == name) {
                Some((_, word)) => self.word(*word),
                None => {
                    let known: Vec<&str> = part.fields().iter().map(|(known, _)| *known).collect();
                    self.error_with(format!("`{}` has no `{name}`", part.name()), suggest(name, &known))
                }
            },
            Kind::Map(view) => self.entry(view, name, test),
            Kind::Any => {
                self.computed |= self.whole;
                let index = Node::Index(Box::new([of.node, Node::Text(name.into())]));
                Some(Typed::absent(index, Kind::Any))
            }
            kind => self.error(format!("`.{name}`: {kind} has no fields")),
        }
    }

    pub(super) fn entry(&mut self, view: View, name: &str, test: bool) -> Option<Typed> {
        let named = if view.of_fields() {
            let Ok(field) = HeaderName::try_from(name) else {
                return self.error(format!("`{name}` is not the name of a header field"));
            };
            if !test {
                self.fields.push(field.as_str().into());
            }
            Name::Field(field)
        } else {
            match view {
                View::Cookies if !test => self.fields.push("cookie".into()),
                View::Query if !test => self.queries.push(name.into()),
                View::Parameters => self.parameters.push(name.into()),
                _ => {}
            }
            Name::Other(name.into())
        };
        Some(match test {
            true => Typed::new(Node::HasEntry(view, named), Kind::Bool),
            false => {
                Typed { node: Node::Entry(view, named), kind: view.of(), may_be_null: view == View::Claims }
            }
        })
    }

    fn list(&mut self, list: &ListExpr) -> Option<Typed> {
        let items: Vec<Option<Typed>> = list.elements.iter().map(|element| self.check(element)).collect();
        let items: Vec<Typed> = items.into_iter().collect::<Option<_>>()?;
        let mut kinds = items.iter().map(|item| &item.kind);
        let kind = match kinds.next() {
            Some(first) if kinds.all(|kind| kind == first) => first.clone(),
            _ => Kind::Any,
        };
        Some(Typed::new(Node::List(items.into_iter().map(|item| item.node).collect()), Kind::list(kind)))
    }

    fn fold(&mut self, fold: &ComprehensionExpr) -> Option<Typed> {
        let range = self.check(&fold.iter_range)?;
        let item = match range.kind {
            Kind::List(of) => *of,
            Kind::Map(_) => Kind::Text,
            Kind::Any => Kind::Any,
            kind => {
                return self.error(format!("a loop goes over a list or the names of a map; this is {kind}"));
            }
        };
        if fold.iter_var2.is_some() {
            return self.error("a loop has one variable");
        }
        if VARIABLES.iter().any(|(known, _)| *known == fold.iter_var) {
            return self.error(format!("`{}` has a meaning already: call it otherwise", fold.iter_var));
        }
        let init = self.check(&fold.accu_init)?;
        let base = self.locals.len();
        self.locals.push((fold.iter_var.clone(), item));
        self.locals.push((fold.accu_var.clone(), init.kind));
        let rest = self.turns(fold, base);
        self.locals.truncate(base);
        let (goes_on, step, result) = rest?;
        let kind = result.kind;
        let fold = Fold {
            base,
            range: range.node,
            init: init.node,
            goes_on: goes_on.node,
            step: step.node,
            result: result.node,
        };
        Some(Typed::new(Node::Fold(Box::new(fold)), kind))
    }

    fn turns(&mut self, fold: &ComprehensionExpr, base: usize) -> Option<(Typed, Typed, Typed)> {
        let goes_on = self.check(&fold.loop_cond)?;
        let step = self.check(&fold.loop_step)?;
        self.locals[base + 1].1 = step.kind.clone();
        Some((goes_on, step, self.check(&fold.result)?))
    }

    fn call(&mut self, call: &CallExpr) -> Option<Typed> {
        let operator = call.func_name.as_str();
        if call.target.is_some() || !operator.starts_with(['_', '!', '-', '@']) {
            return self.function(call);
        }
        match (operator, call.args.as_slice()) {
            (operators::LOGICAL_AND, _) => {
                self.junction(call).map(|all| Typed::new(Node::And(all), Kind::Bool))
            }
            (operators::LOGICAL_OR, _) => {
                self.junction(call).map(|any| Typed::new(Node::Or(any), Kind::Bool))
            }
            (operators::LOGICAL_NOT, [one]) => {
                let one = self.truth(one)?;
                Some(Typed::new(Node::Not(Box::new(one)), Kind::Bool))
            }
            (operators::NOT_STRICTLY_FALSE, [one]) => {
                let one = self.truth(one)?;
                Some(Typed::new(Node::NotFalse(Box::new(one)), Kind::Bool))
            }
            (operators::CONDITIONAL, [test, yes, no]) => self.conditional(test, yes, no),
            (operators::NEGATE, [one]) => {
                let one = self.check(one)?;
                match one.kind {
                    Kind::Int | Kind::Double | Kind::Any => {
                        Some(Typed::new(Node::Negate(Box::new(one.node)), one.kind))
                    }
                    kind => self.error(format!("`-` wants a number; this is {kind}")),
                }
            }
            (operators::EQUALS, [one, other]) => self.equal(one, other),
            (operators::NOT_EQUALS, [one, other]) => {
                let equal = self.equal(one, other)?;
                Some(Typed::new(Node::Not(Box::new(equal.node)), Kind::Bool))
            }
            (operators::IN, [value, container]) => self.is_in(value, container),
            (operators::INDEX, [of, at]) => self.index(of, at),
            (_, [one, other]) => self.arithmetic(operator, one, other),
            _ => self.error(format!("`{operator}` is not known here")),
        }
    }
}
