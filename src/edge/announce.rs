//! What a proxy in front says of a connection before the client's first byte, read off the socket.
//!
//! 1. Only the peers in `trusted_proxies` are listened to. From strangers a listener that requires a header takes no
//!    connection; one that does not takes their bytes for what they are.
//! 2. The header is looked at, and taken off the socket only when it is whole: what comes after it, and what is none,
//!    is left for TLS or HTTP.
//! 3. The ends that it tells are those of the connection from here on. The proxy is not: a client behind it is a
//!    stranger, unless its own address is that of a trusted proxy.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::proxy_protocol::{self, Fault, LONGEST, Told, Verdict};
use super::transport::{Ends, Transport};
use crate::snapshot::ProxyProtocol;
use crate::types::Peer;

/// How much is looked at at first: enough for most headers.
const USUAL: usize = 256;

/// Why a connection comes to nothing before its client has said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unannounced {
    /// A header is required, and the peer is none of the trusted proxies.
    Untrusted,
    /// A header is required, and there is none.
    Missing,
    /// What begins like a header is none.
    Invalid(Fault),
    /// No whole header came in time.
    Slow,
    /// The peer left, or the gateway is draining.
    Quiet,
}

impl Unannounced {
    /// The reason code.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Untrusted => "proxy_header_untrusted",
            Self::Missing => "proxy_header_missing",
            Self::Invalid(_) => "proxy_header_invalid",
            Self::Slow => "proxy_header_timeout",
            Self::Quiet => "client_closed",
        }
    }
}

/// Whether a header is to be waited for.
pub(super) fn is_awaited(policy: ProxyProtocol, trusted: bool) -> Result<bool, Unannounced> {
    match policy {
        ProxyProtocol::Off => Ok(false),
        ProxyProtocol::Required if !trusted => Err(Unannounced::Untrusted),
        ProxyProtocol::Optional | ProxyProtocol::Required => Ok(trusted),
    }
}

/// Takes the header off the socket. Returns the ends of the connection as they are told, or as they are if nothing is.
pub(super) async fn read(
    socket: &mut Transport,
    ends: Ends,
    policy: ProxyProtocol,
    patience: Duration,
) -> Result<Ends, Unannounced> {
    match tokio::time::timeout(patience, header(socket)).await {
        Ok(Ok(Some(Told::Client { source, destination }))) => {
            Ok(Ends { peer: Peer::Ip(source), local: Some(destination) })
        }
        Ok(Ok(Some(Told::Unnamed))) => Ok(Ends { peer: Peer::Unnamed, local: None }),
        Ok(Ok(Some(Told::Itself))) => Ok(ends),
        Ok(Ok(None)) if policy == ProxyProtocol::Optional => Ok(ends),
        Ok(Ok(None)) => Err(Unannounced::Missing),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(Unannounced::Slow),
    }
}

/// What the header tells; `None` when there is none.
async fn header(socket: &mut Transport) -> Result<Option<Told>, Unannounced> {
    let mut bytes = vec![0; USUAL];
    let mut seen = 0;
    loop {
        seen = socket.peek_beyond(seen, &mut bytes).await.map_err(|_| Unannounced::Quiet)?;
        let looked_at = bytes.get(..seen).unwrap_or_default();
        match proxy_protocol::parse(looked_at) {
            Verdict::Header { len, told } => {
                let header = bytes.get_mut(..len).unwrap_or_default();
                socket.read_exact(header).await.map_err(|_: io::Error| Unannounced::Quiet)?;
                return Ok(Some(told));
            }
            Verdict::Absent => return Ok(None),
            Verdict::Invalid(fault) => {
                log::debug!("no PROXY protocol: {fault}");
                return Err(Unannounced::Invalid(fault));
            }
            // What fills the buffer would never be more than was seen.
            Verdict::NeedMore if seen == bytes.len() => bytes.resize(LONGEST, 0),
            Verdict::NeedMore => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_not_listened_to() {
        use ProxyProtocol::{Off, Optional, Required};
        let rows = [
            (Off, true, Ok(false)),
            (Off, false, Ok(false)),
            (Optional, true, Ok(true)),
            (Optional, false, Ok(false)),
            (Required, true, Ok(true)),
            (Required, false, Err(Unannounced::Untrusted)),
        ];
        for (policy, trusted, expected) in rows {
            assert_eq!(is_awaited(policy, trusted), expected, "{policy:?} {trusted}");
        }
    }
}
