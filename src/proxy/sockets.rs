//! Counts the connections that an endpoint has, and opens no more than its limit.
//!
//! Requests look for a connection one after the other, so what is counted as one is opened is right. The engine's pool of
//! HTTP/2 connections is for a moment without one as a stream on it ends, and whoever comes just then would open another:
//! it looks again instead, a few times. When there is no room then, there is none (the server allows fewer streams, or the
//! pool's connections have settings of before a reload), and it opens one.

use std::sync::Arc;
use std::time::Duration;

use pingora::upstreams::peer::{HttpPeer, Tracer, Tracing};
use pingora::{Error, ErrorType};

use crate::upstream::{Endpoint, Sockets};

/// How often a request looks again.
const LOOKS: u32 = 5;
/// What an error says that only means to look again.
const CROWDED: ErrorType = ErrorType::Custom("an endpoint has as many connections as it may have");

/// Has the connection that this peer may come to counted, and not opened where there are `most`, for a request that has
/// looked again so often, and shares none if it is its `own`.
pub(super) fn count(peer: &mut HttpPeer, endpoint: &Endpoint, most: u32, looked: u32, own: bool) {
    let sockets = Arc::clone(endpoint.standing().sockets());
    peer.options.tracer = Some(Tracer(Box::new(Counted { sockets: Arc::clone(&sockets), own })));
    if looked < LOOKS {
        peer.options.upstream_tcp_sock_tweak_hook = Some(Arc::new(move |_| match sockets.open() < most {
            true => Ok(()),
            false => Error::e_explain(CROWDED, "looking again"),
        }));
    }
}

/// How long a request that could not open a connection waits before it looks again; `None` when that was not the reason.
pub(super) fn pause(error: &Error, looked: u32) -> Option<Duration> {
    (*error.etype() == CROWDED).then(|| Duration::from_millis(1 << looked.min(LOOKS)))
}

#[derive(Debug)]
struct Counted {
    sockets: Arc<Sockets>,
    own: bool,
}

impl Tracing for Counted {
    fn on_connected(&self) {
        self.sockets.opened(self.own);
    }

    fn on_disconnected(&self) {
        self.sockets.closed(self.own);
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(Self { sockets: Arc::clone(&self.sockets), own: self.own })
    }
}
