//! `server.trusted_proxies`: whose word on the client is believed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{Cidr, Peer};

const UNIX: &str = "unix";

/// A proxy that is believed, or a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TrustedProxy {
    /// Those with these addresses.
    Range(Cidr),
    /// Whoever connects over a Unix socket.
    Unix,
}

/// All proxies that are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    ranges: Box<[Cidr]>,
    unix: bool,
}

impl Trust {
    /// Whether the peer is a proxy that is believed. One that is not named is not.
    pub fn covers(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ip(address) => self.covers_ip(address.ip()),
            Peer::Unix => self.unix,
            Peer::Unnamed => false,
        }
    }

    /// Whether this address is that of a proxy that is believed.
    pub fn covers_ip(&self, ip: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(ip))
    }
}

impl FromIterator<TrustedProxy> for Trust {
    fn from_iter<I: IntoIterator<Item = TrustedProxy>>(proxies: I) -> Self {
        let mut unix = false;
        let ranges = proxies.into_iter().filter_map(|proxy| match proxy {
            TrustedProxy::Range(range) => Some(range),
            TrustedProxy::Unix => {
                unix = true;
                None
            }
        });
        let ranges = ranges.collect();
        Self { ranges, unix }
    }
}

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            UNIX => Ok(Self::Unix),
            _ if text.starts_with(UNIX) => {
                Err(format!("`{text}` is one socket: write `unix` for whoever connects over a Unix socket"))
            }
            _ => text.parse().map(Self::Range),
        }
    }
}

impl TryFrom<String> for TrustedProxy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TrustedProxy> for String {
    fn from(proxy: TrustedProxy) -> Self {
        proxy.to_string()
    }
}

impl From<Cidr> for TrustedProxy {
    fn from(range: Cidr) -> Self {
        Self::Range(range)
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => range.fmt(f),
            Self::Unix => f.write_str(UNIX),
        }
    }
}

impl JsonSchema for TrustedProxy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TrustedProxy".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An address or a range of addresses in CIDR form, or `unix` for Unix sockets.",
            "examples": ["10.0.0.0/8", "2001:db8::/32", "unix"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_tells_the_kinds_apart() {
        let proxies = ["10.0.0.0/8", "unix"].map(|text| text.parse::<TrustedProxy>().unwrap());
        assert_eq!(proxies.map(String::from), ["10.0.0.0/8", "unix"]);
        let trust: Trust = proxies.into_iter().collect();
        let covered = |peer: &str| trust.covers(Peer::Ip(peer.parse().unwrap()));
        assert!(covered("[::ffff:10.1.1.1]:1") && !covered("11.1.1.1:1"));
        assert!(trust.covers(Peer::Unix) && !trust.covers(Peer::Unnamed));
        assert!(!Trust::default().covers(Peer::Unix));
        assert!("unix:/run/x".parse::<TrustedProxy>().is_err());
    }
}
