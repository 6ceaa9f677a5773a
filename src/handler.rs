//! Rust code as a route's target.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::exchange::{Exchange, Reply, Result};

/// Answers the requests of a route in Rust. The chain of the route runs before and after it.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. `body` is its whole body, no longer than the route's `limits.request_body`.
    fn handle(&self, exchange: &mut Exchange<'_>, body: Bytes) -> impl Future<Output = Result<Reply>> + Send;
}

/// A handler made of a plain function.
pub fn handler_fn<F>(function: F) -> impl Handler
where
    F: Fn(&mut Exchange<'_>, Bytes) -> Reply + Send + Sync + 'static,
{
    FnHandler(function)
}

struct FnHandler<F>(F);

impl<F> Handler for FnHandler<F>
where
    F: Fn(&mut Exchange<'_>, Bytes) -> Reply + Send + Sync + 'static,
{
    async fn handle(&self, exchange: &mut Exchange<'_>, body: Bytes) -> Result<Reply> {
        Ok((self.0)(exchange, body))
    }
}

/// A handler with its type forgotten.
#[derive(Clone)]
pub struct SharedHandler(Arc<dyn Erased>);

impl SharedHandler {
    /// Makes a handler shareable.
    pub fn new(handler: impl Handler) -> Self {
        Self(Arc::new(handler))
    }

    /// Answers one request.
    pub async fn handle(&self, exchange: &mut Exchange<'_>, body: Bytes) -> Result<Reply> {
        self.0.handle(exchange, body).await
    }
}

trait Erased: Send + Sync {
    fn handle<'a>(&'a self, exchange: &'a mut Exchange<'_>, body: Bytes) -> BoxFuture<'a, Result<Reply>>;
}

impl<H: Handler> Erased for H {
    fn handle<'a>(&'a self, exchange: &'a mut Exchange<'_>, body: Bytes) -> BoxFuture<'a, Result<Reply>> {
        Box::pin(Handler::handle(self, exchange, body))
    }
}
