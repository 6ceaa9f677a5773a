//! Words that may be written in two ways; addresses.

use std::net::SocketAddr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

pub(super) use crate::document::word_or_map;

/// What an address with a port looks like.
pub(super) const ADDRESS: &str = r"^(\[[0-9A-Fa-f:.]+\]|[0-9]+(\.[0-9]+){3}):[0-9]{1,5}$";

/// Reads an address with a port.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// An address with a port, or what to write instead.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is not an IP address with a port: write it like `127.0.0.1:8080` or `[::1]:8080`")
    })
}
