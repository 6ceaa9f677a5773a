//! An endpoint as the engine connects to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};

use super::dial::Dialer;
use super::lifetime;
use crate::edge::Arrival;
use crate::guard::BodyFraming;
use crate::snapshot::{Route, UpstreamTimeouts};
use crate::upstream::{Endpoint, Protocol, STREAMS, Upstream};

/// What an endpoint may send on one stream, and on all of a connection, before the client has taken it. Streams whose clients
/// take nothing leave room for the others.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;

/// How slow a body is reckoned with, in bytes a second: what listeners allow unless they say otherwise.
const SLOWEST: u64 = 256;
/// The least that is left of a time.
const MOMENT: Duration = Duration::from_millis(1);

/// How often an HTTP/2 connection is asked whether anybody is there.
const PING: Duration = Duration::from_secs(10);

/// The endpoint, for an attempt that is made now and has so much time left.
pub(super) fn to(
    endpoint: &Endpoint,
    upstream: &Upstream,
    arrival: &Arrival,
    route: &Route,
    call: bool,
    (now, left): (Instant, Duration),
) -> Box<HttpPeer> {
    let timeouts = &route.bounds.upstream;
    let mut peer = plain(endpoint, upstream, timeouts, (now, left));
    // Where the whole request is here, its clocks count while the endpoint takes it; nobody else looks at them then.
    let whole = arrival.connection.request_complete();
    if whole {
        peer.options.write_timeout = Some(timeouts.write.min(left));
    }
    if arrival.head.upgrade {
        // A WebSocket begins in HTTP/1.1, on a connection that nobody has used.
        peer.group_key = !peer.group_key;
        peer.options.idle_timeout = Some(Duration::ZERO);
        peer.options.custom_l4 = Some(Arc::new(Dialer(Arc::clone(&arrival.connection))));
    } else {
        in_version(&mut peer, upstream);
    }
    let http2 = match upstream.protocol() {
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Auto => endpoint.standing().is_http2(),
    };
    if arrival.has_body() && !(http2 && call) {
        // While a body waits for room on its way up, nothing but the engine watches, and `stall`. The engine also counts the
        // client's pauses, which are allowed to be as long as `stream_idle`; over HTTP/2 it counts all of the body's time. Calls
        // may go on for hours there.
        let pause = timeouts.read.max(route.bounds.deadlines.stream_idle);
        let most = if http2 && !whole { pause + slowest(arrival, route) } else { pause };
        let total = arrival.connection.left_in_all(now).filter(|_| http2);
        peer.options.read_timeout = Some(total.map_or(most, |total| most.min(total.max(MOMENT))));
    }
    if !arrival.head.hop_by_hop {
        // The guard has seen that there is nothing to strip.
        peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    }
    peer
}

/// How long a body may take to come, at the least.
fn slowest(arrival: &Arrival, route: &Route) -> Duration {
    let length = match arrival.head.framing {
        BodyFraming::Length(length) => length,
        _ => route.bounds.request_body,
    };
    Duration::from_secs(length / SLOWEST)
}

/// The endpoint, for a request of our own that is no upgrade.
pub(super) fn of_copy(
    endpoint: &Endpoint,
    upstream: &Upstream,
    timeouts: &UpstreamTimeouts,
    time: (Instant, Duration),
) -> Box<HttpPeer> {
    let mut peer = plain(endpoint, upstream, timeouts, time);
    in_version(&mut peer, upstream);
    peer
}

fn plain(
    endpoint: &Endpoint,
    upstream: &Upstream,
    timeouts: &UpstreamTimeouts,
    (now, left): (Instant, Duration),
) -> Box<HttpPeer> {
    let mut peer = match upstream.tls() {
        None => Box::new(HttpPeer::new(endpoint.address(), false, String::new())),
        Some(tls) => tls.peer(endpoint.address()),
    };
    let connect = timeouts.connect.min(left);
    peer.options.connection_timeout = Some(connect);
    peer.options.total_connection_timeout = Some(connect);
    peer.options.write_timeout = Some(timeouts.write);
    peer.options.idle_timeout = Some(timeouts.idle);
    if let Some(lifetime) = timeouts.lifetime {
        peer.group_key ^= lifetime::key(endpoint.address(), endpoint.standing().known_since(), lifetime, now);
        peer.options.idle_timeout = Some(timeouts.idle.min(lifetime));
    }
    peer
}

/// Has the upstream spoken to in its version of HTTP.
fn in_version(peer: &mut HttpPeer, upstream: &Upstream) {
    let oldest = match upstream.protocol() {
        Protocol::Http2 => 2,
        Protocol::Auto if upstream.tls().is_some() => 1,
        Protocol::Auto | Protocol::Http1 => return,
    };
    peer.options.set_http_version(2, oldest);
    // Clocks that run out end streams, not the connection: one that is dead has to be found out.
    peer.options.h2_ping_interval = Some(PING);
    peer.options.max_h2_streams = STREAMS as usize;
    peer.options.h2_stream_window_size = Some(STREAM_WINDOW);
    peer.options.h2_connection_window_size = Some(CONNECTION_WINDOW);
}
