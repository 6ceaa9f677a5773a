//! Who the client is: the peer, or what a trusted proxy in front says of it.
//!
//! 1. Nothing a client sends is believed unless its address is in `trusted_proxies`.
//! 2. From a trusted peer, `X-Forwarded-For` is read if present, else `Forwarded` (RFC 7239). Most proxies write the
//!    former alone and pass the latter on as the client wrote it. The list is walked from the right, past addresses
//!    that are trusted too; the first stranger is the client.
//! 3. What is not an address ends the walk: the last address known for sure is the client.
//! 4. `proto`, `host` and `port` are taken from a trusted peer only.
//! 5. Where a proxy in front told who the client is (PROXY protocol), the peer is that client: it is believed if its own
//!    address is a trusted proxy's, whatever the proxy that passes its bytes on. A peer without an address (a Unix socket)
//!    is believed where `trusted_proxies` says `unix`.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::types::{Peer, Trust};

/// Who the client is and how it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The client's address, IPv4-mapped addresses in their IPv4 form. On a Unix socket there is none, unless a proxy in
    /// front tells it.
    pub ip: Option<IpAddr>,
    /// The other end of the connection: the client, or a proxy before us.
    pub peer: Peer,
    /// Whether the peer is one of `trusted_proxies`.
    pub peer_trusted: bool,
    /// Whether the client's own connection is encrypted, as far as we can know.
    pub https: bool,
    /// The port the client connected to, as far as we can know.
    pub port: Option<u16>,
}

impl Client {
    /// Finds the client behind `peer`, which connected to our `local` address, by TLS if it is `encrypted`.
    pub fn identify(
        peer: Peer,
        local: Option<SocketAddr>,
        encrypted: bool,
        headers: &HeaderMap,
        trust: &Trust,
    ) -> Self {
        let port = local.map(|local| local.port());
        let mut client = Self { ip: peer.ip(), peer, peer_trusted: false, https: encrypted, port };
        if !trust.covers(peer) {
            return client;
        }
        let is_trusted = |ip| trust.covers_ip(ip);
        client.peer_trusted = true;
        if headers.contains_key("x-forwarded-for") || !headers.contains_key(http::header::FORWARDED) {
            client.read_x_forwarded(headers, is_trusted);
        } else {
            client.read_forwarded(headers, is_trusted);
        }
        client
    }

    fn read_x_forwarded(&mut self, headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) {
        for value in headers.get_all("x-forwarded-for").iter().rev() {
            for part in value.as_bytes().rsplit(|byte| *byte == b',') {
                let Some(ip) = std::str::from_utf8(part).ok().and_then(|text| node_ip(text.trim())) else {
                    return self.read_proto(headers);
                };
                self.ip = Some(ip);
                if !is_trusted(ip) {
                    return self.read_proto(headers);
                }
            }
        }
        self.read_proto(headers);
    }

    fn read_proto(&mut self, headers: &HeaderMap) {
        let last = |name: &str| {
            let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
            value.rsplit(',').next().map(str::trim)
        };
        if let Some(proto) = last("x-forwarded-proto") {
            self.https = proto.eq_ignore_ascii_case("https");
            self.port = if self.https { Some(443) } else { self.port };
        }
        if let Some(port) = last("x-forwarded-port").and_then(|port| port.parse().ok()) {
            self.port = Some(port);
        }
    }

    fn read_forwarded(&mut self, headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) {
        for value in headers.get_all(http::header::FORWARDED).iter().rev() {
            let Ok(value) = value.to_str() else { return };
            for element in split_quoted(value, ',').into_iter().rev() {
                let mut next = None;
                for pair in split_quoted(element, ';') {
                    let Some((name, value)) = pair.split_once('=') else {
                        continue;
                    };
                    let value = value.trim().trim_matches('"');
                    match name.trim().to_ascii_lowercase().as_str() {
                        "for" => next = node_ip(value),
                        "proto" => self.https = value.eq_ignore_ascii_case("https"),
                        _ => {}
                    }
                }
                let Some(ip) = next else { return };
                self.ip = Some(ip);
                self.port = if self.https { Some(443) } else { self.port };
                if !is_trusted(ip) {
                    return;
                }
            }
        }
    }
}

/// The address of a node: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node_ip(text: &str) -> Option<IpAddr> {
    let bare = |text: &str| text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    text.parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| bare(text))
        .map(|ip| ip.to_canonical())
}

/// Splits at `separator`, except inside double quotes.
fn split_quoted(text: &str, separator: char) -> Vec<&str> {
    let mut quoted = false;
    text.split(move |c: char| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TrustedProxy;

    fn identify(peer: &str, headers: &[(&'static str, &'static str)]) -> Client {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|range| range.parse::<TrustedProxy>().unwrap());
        let local = "192.0.2.1:8080".parse().unwrap();
        Client::identify(
            Peer::Ip(peer.parse().unwrap()),
            Some(local),
            false,
            &map,
            &trusted.into_iter().collect(),
        )
    }

    fn ip(client: &Client) -> String {
        client.ip.unwrap().to_string()
    }

    #[test]
    fn a_peer_without_an_address_is_believed_only_where_that_is_said() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "1.2.3.4".parse().unwrap());
        headers.insert("x-forwarded-port", "8443".parse().unwrap());
        let unix: Trust = [TrustedProxy::Unix].into_iter().collect();
        let believed = Client::identify(Peer::Unix, None, false, &headers, &unix);
        assert_eq!((ip(&believed).as_str(), believed.port), ("1.2.3.4", Some(8443)));
        for (peer, trust) in [(Peer::Unix, Trust::default()), (Peer::Unnamed, unix)] {
            let stranger = Client::identify(peer, None, false, &headers, &trust);
            assert_eq!((stranger.ip, stranger.port, stranger.peer_trusted), (None, None, false), "{peer:?}");
        }
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let headers =
            [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("forwarded", "for=1.2.3.4")];
        let client = identify("203.0.113.9:1", &headers);
        assert_eq!((ip(&client).as_str(), client.https, client.peer_trusted), ("203.0.113.9", false, false));
    }

    #[test]
    fn the_first_stranger_from_the_right_is_the_client() {
        let client = identify(
            "10.0.0.1:1",
            &[("x-forwarded-for", "6.6.6.6, 1.2.3.4"), ("x-forwarded-for", "10.0.0.2")],
        );
        assert_eq!(ip(&client), "1.2.3.4");
        let client = identify("[::ffff:10.0.0.1]:1", &[("x-forwarded-for", "::ffff:1.2.3.4")]);
        assert_eq!(ip(&client), "1.2.3.4");
    }

    #[test]
    fn garbage_ends_the_walk() {
        let client = identify("10.0.0.1:1", &[("x-forwarded-for", "1.2.3.4, unknown, 10.0.0.2")]);
        assert_eq!(ip(&client), "10.0.0.2");
    }

    #[test]
    fn forwarded_is_read_with_its_quotes() {
        let value = "for=6.6.6.6, for=\"[2001:4860::1]:4711\";proto=https;by=10.0.0.9, for=\"[2001:db8::7]\"";
        let client = identify("10.0.0.1:1", &[("forwarded", value)]);
        assert_eq!(ip(&client), "2001:4860::1");
        assert!(client.https);
    }

    #[test]
    fn what_a_proxy_passes_on_unread_counts_for_nothing() {
        let headers = [("forwarded", "for=10.1.2.3;proto=https"), ("x-forwarded-for", "1.2.3.4")];
        let client = identify("10.0.0.1:1", &headers);
        assert_eq!((ip(&client).as_str(), client.https), ("1.2.3.4", false));
    }

    #[test]
    fn the_scheme_comes_from_the_nearest_proxy() {
        let client =
            identify("10.0.0.1:1", &[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "http, https")]);
        assert!(client.https);
        assert_eq!(client.port, Some(443));
    }
}
