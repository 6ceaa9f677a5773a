//! The trait a filter implements.

use std::any::Any;
use std::future::Future;

use bytes::Bytes;
use http::HeaderMap;

use super::authenticator::Authenticator;
use crate::exchange::{Exchange, Reply, RequestHeader, ResponseHeader, Result};

/// One concern, applied to exchanges on the routes that name it.
///
/// A filter implements the hooks it needs and names them in [`phases`](Self::phases); no other is called. Hooks
/// run in chain order on the way in and in reverse on the way out, on the gateway's own replies too. A hook that
/// panics or returns a [`Fault`](crate::exchange::Fault) ends the request with 500 and the reason `bug`.
#[allow(unused_variables)]
pub trait Filter: Send + Sync + 'static {
    /// Memory of one exchange; `()` for most filters.
    type State: Default + Send + Sync + 'static;

    /// The hooks this instance joins.
    fn phases(&self) -> Phases;

    /// Whether it answers preflights. A route with such a filter gets those that ask about one of its methods, though
    /// OPTIONS is none of them.
    fn takes_preflights(&self) -> bool {
        false
    }

    /// Whether it goes by the fields of a form: where one comes, it is read before the first hook runs.
    fn needs_form(&self) -> bool {
        false
    }

    /// Itself, if it finds out who clients are and can be one of several that do.
    fn authenticator(&self) -> Option<&dyn Authenticator> {
        None
    }

    /// Sees the request before anything is sent upstream, and may answer it.
    fn request(&self, state: &mut Self::State, exchange: &mut Exchange<'_>) -> Result<Flow> {
        exchange.untouched();
        Ok(Flow::Continue)
    }

    /// As [`request`](Self::request), for filters that must wait for something. One that also has `request` is asked here
    /// only where that says [`Flow::Wait`]: waiting costs even a request that need not.
    fn request_wait(
        &self,
        state: &mut Self::State,
        exchange: &mut Exchange<'_>,
    ) -> impl Future<Output = Result<Flow>> + Send {
        exchange.untouched();
        std::future::ready(Ok(Flow::Continue))
    }

    /// Shapes the request head that goes upstream; runs again for every attempt.
    fn upstream_request(
        &self,
        state: &mut Self::State,
        exchange: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()> {
        exchange.untouched();
        Ok(())
    }

    /// Sees each piece of the request body on its way upstream, but nothing of a WebSocket. A filter that changes its length removes
    /// `content-length` in [`upstream_request`](Self::upstream_request); the body is framed anew then.
    fn request_body(
        &self,
        state: &mut Self::State,
        exchange: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<Flow> {
        exchange.untouched();
        Ok(Flow::Continue)
    }

    /// Shapes the response head, the upstream's or the gateway's own.
    fn response(
        &self,
        state: &mut Self::State,
        exchange: &mut Exchange<'_>,
        head: &mut ResponseHeader,
    ) -> Result<()> {
        exchange.untouched();
        Ok(())
    }

    /// Sees each piece of the response body; one of the gateway's own is one piece. A filter that changes its length
    /// removes `content-length` in [`response`](Self::response); the body is framed anew then.
    fn response_body(
        &self,
        state: &mut Self::State,
        exchange: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<()> {
        exchange.untouched();
        Ok(())
    }

    /// Sees the trailers of the response, before the body hooks see its end. What it returns is put at the end of the
    /// body, in place of the trailers: no other filter sees them then, and this filter's own
    /// [`response_body`](Self::response_body) sees the bytes first.
    fn response_trailers(
        &self,
        state: &mut Self::State,
        exchange: &mut Exchange<'_>,
        trailers: &mut HeaderMap,
    ) -> Result<Option<Bytes>> {
        exchange.untouched();
        Ok(None)
    }

    /// Adds what this filter knows to the access log line.
    fn log(&self, state: &mut Self::State, exchange: &mut Exchange<'_>, entry: &mut LogEntry) {
        exchange.untouched();
    }
}

pub use super::phases::Phases;

/// What happens after a hook.
#[derive(Debug)]
pub enum Flow {
    /// The next filter, and in the end the upstream.
    Continue,
    /// What [`Filter::request_wait`] says. Only [`Filter::request`] may ask for it.
    Wait,
    /// This answer instead.
    Reply(Box<Reply>),
}

impl From<Reply> for Flow {
    fn from(reply: Reply) -> Self {
        Self::Reply(Box::new(reply))
    }
}

/// A piece of a body.
pub struct Chunk<'a> {
    /// The bytes; `None` when there are none, which may still be the end.
    pub data: &'a mut Option<Bytes>,
    /// Whether the body ends here.
    pub end: bool,
}

/// What filters add to the access log line.
#[derive(Debug, Default)]
pub struct LogEntry {
    fields: Vec<(&'static str, String)>,
    query: Option<String>,
}

impl LogEntry {
    /// Adds a field to the JSON line. Names are snake_case.
    pub fn field(&mut self, name: &'static str, value: impl Into<String>) {
        self.fields.push((name, value.into()));
    }

    /// Shows this query, without its `?`, in place of the client's, which has something to hide.
    pub fn show_query(&mut self, query: String) {
        self.query = Some(query);
    }

    /// What is shown in place of the client's query.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The fields added so far.
    pub fn fields(&self) -> &[(&'static str, String)] {
        &self.fields
    }
}

/// The memory of one filter for one exchange, its type forgotten.
pub(super) type Slot = Option<Box<dyn Any + Send + Sync>>;
