//! Conditions and expressions in CEL (the Common Expression Language) about an exchange.
//!
//! 1. The parser and its macros are those of the crate `cel`. What comes of it is checked here against what there is to
//!    know of an exchange, with its types, and becomes a tree that looks things up where they are: nothing is copied, and
//!    nothing is looked at that the outcome does not need.
//! 2. What can be wrong is told when it is read: unknown names, types that do not fit, patterns and networks that are none.
//! 3. What is not there is empty: a header, a query parameter, a cookie or a path parameter is `""`, the groups of nobody
//!    are `[]`. Whether it is there say `in` and `has()`; a part that may be missing as a whole equals `null`.
//! 4. What still cannot be told (an address that is none, a number from a word, a division by zero) is [`Trouble`]. As in
//!    CEL, `&&` and `||` have an outcome without it where the other side decides. What a condition that cannot be told
//!    means is for its user to say: a filter's holds.
//! 5. It is bounded: the text, its nesting, its operators, the steps of all its loops, and the bytes that it looks at.

mod check;
mod eval;
mod functions;
mod lookup;
mod node;
mod operators;
mod parse;
mod trouble;
mod value;
mod words;

use std::sync::Arc;

use crate::document::{ConfigError, Errors};
use crate::exchange::{Exchange, ResponseHeader};
use crate::types::CredentialFields;

use check::Checked;
use eval::Run;
pub use trouble::Trouble;
use value::Value;
use words::Kind;

/// Where an expression stands: what there is when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before there is a response.
    Request,
    /// Where there is one.
    Response,
}

/// Something that is true of an exchange, or is not.
pub struct Condition(Expr);

/// A number that an exchange comes to.
pub struct Expression(Expr);

struct Expr {
    text: Box<str>,
    checked: Checked,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it; paths are empty.
    pub fn parse(text: &str, place: Place) -> Result<Self, Errors> {
        let expr = Expr::parse(text, place)?;
        match expr.checked.kind {
            Kind::Bool | Kind::Any => Ok(Self(expr)),
            other => {
                Err(ConfigError::new("", format!("a condition is true or false; this is {other}")).into())
            }
        }
    }

    /// Whether it is true of an exchange that has no response yet.
    ///
    /// # Errors
    ///
    /// When that cannot be told.
    pub fn holds(&self, exchange: &Exchange<'_>) -> Result<bool, Trouble> {
        self.decided(&mut Run::new(exchange, None))
    }

    /// Whether it is true of an exchange with this response.
    ///
    /// # Errors
    ///
    /// When that cannot be told.
    pub fn holds_after(&self, exchange: &Exchange<'_>, response: &ResponseHeader) -> Result<bool, Trouble> {
        self.decided(&mut Run::new(exchange, Some(response)))
    }

    /// Whether it will be true of an exchange of which the request's head alone is known; `None` when that is not enough
    /// to tell.
    pub fn foretold(&self, exchange: &Exchange<'_>) -> Option<bool> {
        self.decided(&mut Run::of_head(exchange)).ok()
    }

    fn decided<'a>(&'a self, run: &mut Run<'a>) -> Result<bool, Trouble> {
        match self.0.checked.node.eval(run)? {
            Value::Bool(holds) => Ok(holds),
            _ => Err(Trouble::Kind),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The same, with this in place of its text: it may compare with a secret.
    #[must_use]
    pub fn shown_as(mut self, text: &str) -> Self {
        self.0.text = text.into();
        self
    }

    /// Whether it says anything of the response.
    pub fn needs_response(&self) -> bool {
        self.0.checked.response
    }

    /// Whether it says anything of who the client has proved to be.
    pub fn needs_identity(&self) -> bool {
        self.0.checked.identity
    }

    /// The path parameters that it names.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.0.checked.parameters.iter().map(|name| &**name)
    }

    /// Whether it may compare credentials: it looks at what carries them, or at values under names that it makes itself.
    pub fn may_tell(&self, credentials: &CredentialFields) -> bool {
        let Checked { fields, queries, computed, .. } = &self.0.checked;
        *computed
            || fields.iter().any(|name| credentials.covers(name))
            || queries.iter().any(|name| credentials.covers_query(name))
    }
}

impl Expression {
    /// Reads an expression that comes to a number.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it; paths are empty.
    pub fn parse(text: &str, place: Place) -> Result<Self, Errors> {
        let expr = Expr::parse(text, place)?;
        match expr.checked.kind {
            Kind::Int | Kind::Uint | Kind::Double | Kind::Any => Ok(Self(expr)),
            other => Err(ConfigError::new("", format!("a number is wanted; this is {other}")).into()),
        }
    }

    /// The whole number that it comes to, without what is behind the point.
    ///
    /// # Errors
    ///
    /// When that cannot be told, or is less than zero.
    pub fn number(&self, exchange: &Exchange<'_>) -> Result<u64, Trouble> {
        self.counted(&mut Run::new(exchange, None))
    }

    /// The same of an exchange with this response.
    ///
    /// # Errors
    ///
    /// As of [`number`](Self::number).
    pub fn number_after(&self, exchange: &Exchange<'_>, response: &ResponseHeader) -> Result<u64, Trouble> {
        self.counted(&mut Run::new(exchange, Some(response)))
    }

    fn counted<'a>(&'a self, run: &mut Run<'a>) -> Result<u64, Trouble> {
        functions::whole(&self.0.checked.node.eval(run)?)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether it says anything of the response.
    pub fn needs_response(&self) -> bool {
        self.0.checked.response
    }

    /// The path parameters that it names.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.0.checked.parameters.iter().map(|name| &**name)
    }

    /// Whether it says anything of who the client has proved to be.
    pub fn needs_identity(&self) -> bool {
        self.0.checked.identity
    }

    /// The header fields whose values it looks at; `cookie` for every cookie.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.checked.fields.iter().map(|name| &**name)
    }
}

impl Expr {
    fn parse(text: &str, place: Place) -> Result<Self, Errors> {
        let ast = parse::parse(text)?;
        Ok(Self { text: text.trim().into(), checked: check::check(&ast, place)? })
    }
}

/// When a filter applies: when all of these hold.
#[derive(Clone)]
pub struct When(Arc<[Condition]>);

impl When {
    /// All of these; `None` of none.
    pub fn all(conditions: Vec<Condition>) -> Option<Self> {
        (!conditions.is_empty()).then(|| Self(conditions.into()))
    }

    /// Whether the filter applies, and what kept that from being told. A condition that cannot be told holds: a filter
    /// that guards something is not to be got around by a request that it cannot make sense of.
    pub fn applies(
        &self,
        exchange: &Exchange<'_>,
        response: Option<&ResponseHeader>,
    ) -> (bool, Option<Trouble>) {
        let mut trouble = None;
        for condition in &*self.0 {
            match condition.decided(&mut Run::new(exchange, response)) {
                Ok(true) => {}
                Ok(false) => return (false, None),
                Err(met) => trouble = trouble.or(Some(met)),
            }
        }
        (true, trouble)
    }

    /// Whether it will apply, as far as the request's head tells.
    pub fn foretold(&self, exchange: &Exchange<'_>) -> Option<bool> {
        let mut told = Some(true);
        for condition in &*self.0 {
            match condition.foretold(exchange) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => told = None,
            }
        }
        told
    }

    /// Whether any of them says anything of the response.
    pub fn needs_response(&self) -> bool {
        self.0.iter().any(Condition::needs_response)
    }

    /// As they were written, one behind the other.
    pub fn text(&self) -> String {
        match &*self.0 {
            [only] => only.text().to_owned(),
            all => all.iter().map(|one| format!("({})", one.text())).collect::<Vec<_>>().join(" && "),
        }
    }
}

#[cfg(test)]
mod tests;
