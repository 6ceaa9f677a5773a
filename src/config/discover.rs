//! `upstreams.*.discover`, endpoints that are not written down but found.

use std::net::{IpAddr, SocketAddr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where endpoints are looked for.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Discover {
    /// By DNS.
    Dns(DnsNames),
    /// By a discovery that was registered in code under this name.
    Custom(String),
}

impl Serialize for Discover {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Dns(words) => serializer.collect_map([("dns", words)]),
            Self::Custom(name) => serializer.collect_map([("custom", name)]),
        }
    }
}

/// A name in DNS. It is asked for again when its answer is over, by its TTL, but no sooner than after 1s and no later than
/// after 5m.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsNames {
    /// The name. With a dot at its end no domain of the system is tried with it.
    pub name: String,
    /// The port of all endpoints, whose addresses are the name's (A and AAAA). Without it ports, weights and priorities come
    /// from the name's SRV records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The name servers that are asked: `10.0.0.2`, or `"10.0.0.2:5353"`. Those of the system (`/etc/resolv.conf`) unless
    /// named.
    #[serde(default)]
    pub resolver: Vec<NameServer>,
}

/// The address of a name server; its port is 53 unless named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct NameServer(pub SocketAddr);

impl<'de> Deserialize<'de> for NameServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bare = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53));
        text.parse().ok().or_else(bare).map(Self).ok_or_else(|| {
            let message = format!(
                "`{text}` is not the address of a name server: write it like `10.0.0.2` or `10.0.0.2:53`"
            );
            serde::de::Error::custom(message)
        })
    }
}

impl JsonSchema for NameServer {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NameServer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The address of a name server: `10.0.0.2`, or `\"10.0.0.2:5353\"`.",
            "type": "string",
        })
    }
}
