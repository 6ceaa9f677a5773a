//! `0.0.0.0:8080`, `unix:/run/portcullis/web.sock`: where a listener is.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";
/// The kernel takes paths of at most so many bytes.
const LONGEST_PATH: usize = 107;

/// Where a listener is: an IP address with a port, or the path of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ListenAddress {
    /// An IP address and a TCP port; port 0 takes any free one.
    Tcp(SocketAddr),
    /// An absolute path.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The IP address and port.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The path of the Unix socket.
    pub fn unix(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// Whether it names one place: any free port may be another one each time.
    pub fn is_certain(&self) -> bool {
        self.tcp().is_none_or(|address| address.port() != 0)
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix(UNIX) else {
            return text.parse().map(Self::Tcp).map_err(|_| {
                format!(
                    "`{text}` is not an IP address with a port, nor a Unix socket: write it like `127.0.0.1:8080`, \
                     `[::1]:8080` or `unix:/run/web.sock`"
                )
            });
        };
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(format!("`{text}` has no absolute path of a socket after `unix:`"));
        }
        if path.len() > LONGEST_PATH {
            return Err(format!(
                "`{text}` is too long: the path of a socket has at most {LONGEST_PATH} bytes"
            ));
        }
        Ok(Self::Unix(path.into()))
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ListenAddress> for String {
    fn from(address: ListenAddress) -> Self {
        address.to_string()
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl JsonSchema for ListenAddress {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ListenAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An IP address with a port, or `unix:` and the absolute path of a socket.",
            "pattern": r"^((\[[0-9A-Fa-f:.]+\]|[0-9]+(\.[0-9]+){3}):[0-9]{1,5}|unix:/.*[^/])$",
            "examples": ["0.0.0.0:8080", "[::]:8443", "unix:/run/portcullis/web.sock"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["127.0.0.1:0", "[::1]:80", "unix:/run/web.sock"] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.is_certain(), text != "127.0.0.1:0");
        }
    }

    #[test]
    fn refuses_what_is_no_place() {
        let long = format!("unix:/{}", "a".repeat(LONGEST_PATH));
        for text in
            ["", "web:80", "127.0.0.1", "unix:", "unix:web.sock", "unix:/", "unix:/run/", long.as_str()]
        {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
