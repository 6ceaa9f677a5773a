//! The way of a request, in the order of the proxy engine's phases. The only room that knows them.
//!
//! 1. [`early_request_filter`](ProxyHttp::early_request_filter): who it is, which path, which route; clocks start.
//! 2. [`request_filter`](ProxyHttp::request_filter): the chain, and leave to ask an endpoint; a reply ends it here.
//! 3. [`upstream_peer`](ProxyHttp::upstream_peer): that endpoint, then others that were not tried yet.
//! 4. [`upstream_request_filter`](ProxyHttp::upstream_request_filter) and the body filter: what goes upstream.
//! 5. The response filters: what comes back, through the chain in reverse.
//! 6. [`fail_to_proxy`](ProxyHttp::fail_to_proxy): one mapping from error to reason to reply.
//! 7. [`logging`](ProxyHttp::logging): counters and the access log line.

mod arrive;
mod attempt;
mod claims;
mod context;
mod deadline;
mod detour;
mod dial;
mod failure;
mod finish;
mod form;
mod forward;
mod hedge;
mod kept;
mod lane;
mod lifetime;
mod mirror;
mod obstacle;
mod outrun;
mod peer;
mod permit;
mod queue;
mod relay;
mod replay;
mod reply;
mod settle;
mod sockets;
mod split;
mod stall;
mod versions;
mod wish;

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};
use pingora::connectors::ConnectorOptions;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use prometheus::IntGauge;
use tokio::sync::mpsc;

use crate::edge::{Arrival, Drain, Shedding};
use crate::exchange::Reason;
use crate::snapshot::Live;

pub use context::Context;

/// The gateway as the proxy engine sees it.
pub struct Gateway {
    live: Arc<Live>,
    shedding: Shedding,
    drain: Drain,
    /// How much of request bodies is kept.
    kept: IntGauge,
    /// Connections for requests that are hedged, and for copies.
    outbound: Arc<lane::Connector>,
}

impl Gateway {
    /// A gateway that serves what is in force, refuses new requests while it is shedding, and connections their next one
    /// while it drains. What it keeps of request bodies is counted in `kept`; `words` are the engine's.
    pub fn new(
        live: Arc<Live>,
        shedding: Shedding,
        drain: Drain,
        kept: IntGauge,
        words: &ServerConf,
    ) -> Self {
        let outbound = Arc::new(lane::Connector::new(Some(ConnectorOptions::from_server_conf(words))));
        Self { live, shedding, drain, kept, outbound }
    }

    /// Has an answer that is about to go out say that its connection closes, if it does.
    fn say_goodbye(&self, session: &mut Session) {
        if self.drain.has_started() {
            session.as_downstream_mut().set_keepalive(None);
        }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::default()
    }

    /// None: every module would cost each request a boxed future.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    fn on_connection_reuse(
        &self,
        _: &mut Session,
        context: &mut Context,
        arrival: Box<dyn Any + Send + Sync>,
    ) {
        context.arrival = arrival.downcast::<Arrival>().ok();
    }

    async fn early_request_filter(&self, session: &mut Session, context: &mut Context) -> Result<()> {
        let asked = detour::asked_elsewhere(&self.live, &self.shedding, session.req_header(), context);
        let proved = match asked {
            Some(asked) => asked.await,
            None => None,
        };
        arrive::arrive(&self.live, &self.shedding, proved, session, context)?;
        kept::begin(&self.live, &self.kept, context)?;
        mirror::begin(self, context)
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        // What few requests need is boxed, so that the others do not carry the room for it.
        if context.reply.is_none() && context.may_read_form()? {
            Box::pin(form::read(session, context)).await?;
        }
        let verdict = match context.reply.take() {
            Some(reply) => Some(*reply),
            None => match reply::of_the_chain(session, context)? {
                reply::Asked::Done(verdict) => verdict,
                reply::Asked::Waits(waits) => {
                    Box::pin(reply::of_the_waiting_chain(session, context, waits)).await?
                }
            },
        };
        let reply = match verdict {
            Some(reply) => reply,
            None if context.pinned()?.goes_upstream() => {
                split::choose(session, context.pinned()?);
                match permit::first(session, context).await? {
                    Some(reply) => reply,
                    None => {
                        return match hedge::delay(session, context)? {
                            None => Ok(false),
                            Some(delay) => Box::pin(hedge::exchange(self, session, context, delay)).await,
                        };
                    }
                }
            }
            None => Box::pin(reply::of_the_target(session, context)).await?,
        };
        self.say_goodbye(session);
        Box::pin(reply::answer(session, context, reply)).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        attempt::next(session, context).await
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        context: &mut Context,
        error: Box<Error>,
    ) -> Box<Error> {
        attempt::not_connected(session, context, error)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        context: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        replay::end(session, context);
        if let Some(pinned) = &mut context.pinned {
            pinned.watch = None;
        }
        attempt::broken(session, context, error, reused)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        forward::request(session, head, context)?;
        if head.version == Version::HTTP_2 && context.arrival()?.connection.is_body_held() {
            // The engine drops the interim answers of HTTP/2.
            Box::pin(reply::go_on(session, context)).await?;
        }
        replay::begin(session, context, head.version == Version::HTTP_2)
    }

    async fn custom_forwarding(
        &self,
        _: &mut Session,
        context: &mut Context,
        _: Option<mpsc::Sender<Bytes>>,
        messages: mpsc::Sender<Bytes>,
    ) -> Result<()> {
        if let Some(watch) = &mut context.pinned()?.watch {
            watch.start(messages);
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        context: &mut Context,
    ) -> Result<()> {
        forward::request_body(session, body, end, context)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS
            && !(session.as_downstream().is_upgrade_req() && settle::is_as_asked(session.req_header(), head))
        {
            // Bytes would pass the guard unseen.
            return invalid(context);
        }
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            attempt::answered(session, head, context)?;
        }
        if !settle::response(head, session.req_header().version) {
            return invalid(context);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        let pieces = replay::end(session, context);
        forward::response(session, head, context)?;
        self.say_goodbye(session);
        replay::go_on(session, context, pieces, head)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        context: &mut Context,
    ) -> Result<Option<std::time::Duration>> {
        forward::response_body(session, body, end, context)?;
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        session: &mut Session,
        trailers: &mut HeaderMap,
        context: &mut Context,
    ) -> Result<Option<Bytes>> {
        forward::response_trailers(session, trailers, context)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut Context,
    ) -> FailToProxy {
        if attempt::is_answered(context) {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let reply = match context.reply.take() {
            Some(reply) => *reply,
            None => failure::reply(session, context, error),
        };
        let error_code = reply.status().as_u16();
        failure::tell(session, context, error, reply).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, context: &mut Context) {
        replay::end(session, context);
        finish::finish(session, context);
    }

    /// Failures are told once, by us.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    /// Every attempt is counted in `upstream_requests_total`, and told at debug level.
    fn suppress_proxy_warn_log(&self, _: &Session, _: &Context, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

/// Ends the exchange for an answer that cannot be passed on, by the upstream's fault.
fn invalid(context: &mut Context) -> Result<()> {
    context.fail(Reason::UPSTREAM_INVALID_RESPONSE).map_err(|error| error.into_up())
}
