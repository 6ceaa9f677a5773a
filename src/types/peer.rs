//! Who is at the other end of a connection.

use std::net::{IpAddr, SocketAddr};

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// It has an address.
    Ip(SocketAddr),
    /// It connected over a Unix socket, and has none.
    Unix,
    /// A proxy in front has one that it does not tell.
    Unnamed,
}

impl Peer {
    /// Its address, IPv4-mapped addresses in their IPv4 form.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip().to_canonical()),
            Self::Unix | Self::Unnamed => None,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}
