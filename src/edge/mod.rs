//! The wire before HTTP: who may connect, for how long, and the guard over what they send.
//!
//! Connections come in here, are counted, and their requests pass the [`guard`](crate::guard) one by one on their
//! way to the proxy engine. What never becomes a request is answered and logged here.

mod accept;
mod alarm;
mod announce;
mod body_clock;
mod connection;
mod drain;
mod handshake;
mod http2;
mod metrics;
mod preread;
pub mod proxy_protocol;
mod serve;
mod shedding;
mod socket;
mod transport;
mod websocket;
mod wire;

use std::sync::Arc;
use std::time::Instant;

use crate::guard::{BodyFraming, Head};

pub use connection::{Connection, Timer};
pub use drain::Drain;
pub use metrics::ListenerMetrics;
pub use serve::{Edge, reason_of};
pub use shedding::Shedding;
pub use transport::{Ends, Listener};

/// A request that passed the guard, as the proxy learns of it.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The connection it came on.
    pub connection: Arc<Connection>,
    /// What the guard read in its head. The ranges in it mean nothing any more.
    pub head: Head,
    /// When the head was complete.
    pub at: Instant,
}

impl Arrival {
    /// Whether a body comes with the request.
    pub fn has_body(&self) -> bool {
        !matches!(self.head.framing, BodyFraming::None | BodyFraming::Length(0))
    }
}
