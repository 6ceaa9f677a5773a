//! The operator's HTTP API.
//!
//! 1. `/healthz` and `/readyz` answer anyone who can connect: orchestrators have no token.
//! 2. With a token, every other request must carry it. Without one the listener is on loopback, and `Host` must
//!    name loopback too, so that no web page can reach it by a name that resolves there.
//! 3. A request with an `Origin` other than its own host is refused: the API is not for other pages' scripts.
//! 4. Places are few, so a connection keeps its own only while it has something to say: it has to bring a whole request
//!    head in time, whoever it is.

mod access;
mod endpoints;
mod routes;
mod status;
mod views;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Response};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream;
use pingora::server::ShutdownWatch;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::edge::Drain;
use crate::snapshot::Live;
use crate::types::Secret;
use crate::upstream::Changes;

pub use status::Status;

/// Connections at once.
const CONNECTIONS: usize = 128;
/// The most that one connection may last.
const LIFETIME: Duration = Duration::from_secs(300);
/// How long a connection that was just accepted or answered has for the next whole request head.
const HEAD: Duration = Duration::from_secs(10);

/// The operator's API.
pub struct Admin {
    /// What callers must send, if anything.
    pub token: Option<Secret>,
    /// The configuration in force.
    pub live: Arc<Live>,
    /// Whether the gateway is ending.
    pub drain: Drain,
    /// Whether endpoints may be changed.
    pub changes: Changes,
    /// What the process says of itself.
    pub status: Arc<Status>,
    /// What the API can set going.
    pub control: Arc<dyn Control>,
}

/// What the API can set going in the gateway.
pub trait Control: Send + Sync {
    /// Reads the configuration again and puts it in force. Blocks.
    fn reload(&self) -> Result<u64, ControlError>;
    /// Checks a text as if it were the configuration; the errors for machines.
    fn check(&self, text: &str) -> Result<(), serde_json::Value>;
    /// Hears that an upstream has other endpoints, or others are said of them.
    fn endpoints_changed(&self);
    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> Result<String, ControlError>;
}

/// Why something could not be set going.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The configuration is refused.
    #[error("{0}")]
    Refused(String),
    /// A new process has the sockets and the configuration.
    #[error("a new process has taken over and reads the configuration; ask that one")]
    HandedOver,
    /// A mistake of ours.
    #[error("{0}")]
    Bug(String),
}

impl Admin {
    /// Serves until the server ends, or until a new process, which has the same socket, answers for this one.
    pub async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut handed_over = self.drain.watch_handed_over();
        let connections_end = handed_over.clone();
        let app = Arc::new(Api(self));
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                biased;
                _ = handed_over.wait_for(|handed_over| *handed_over) => return,
                accepted = listener.accept() => accepted,
            };
            let socket = match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    log::error!("admin: cannot accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let (app, end) = (Arc::clone(&app), connections_end.clone());
            tokio::spawn(async move {
                let stream = Box::new(Stream::from(socket));
                // A connection that outlives its time is simply closed.
                let _ = tokio::time::timeout(LIFETIME, app.process_new(stream, &end)).await;
                drop(place);
            });
        }
    }
}

/// The API as the HTTP engine sees it.
struct Api(Arc<Admin>);

#[async_trait]
impl HttpServerApp for Api {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        handed_over: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // The engine's own timeout begins anew with every byte.
        let Ok(Ok(true)) = tokio::time::timeout(HEAD, session.read_request()).await else { return None };
        // What the engine has given up is not kept against its will: HTTP/1.0, and lengths that contradict each other.
        let kept = session.get_keepalive().is_some() && !*handed_over.borrow();
        session.set_keepalive(kept.then_some(HEAD.as_secs()));
        let (head, body) = self.response(&mut session).await.into_parts();
        let silent = body.is_empty() || session.req_header().method == Method::HEAD;
        session.write_response_header(Box::new(head.into())).await.ok()?;
        if !silent {
            session.write_response_body(body.into(), true).await.ok()?;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

impl Api {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let admin = &self.0;
        match access::check(admin.token.as_ref(), session.req_header()) {
            Ok(()) => routes::answer(admin, session).await,
            Err(refusal) => *refusal,
        }
    }
}
