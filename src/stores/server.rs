//! Where a server is, and how to be let in.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use redis::io::tcp::TcpSettings;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisResult, TlsCertificates, parse_redis_url,
};

use super::cluster;
use super::sentinel::{self, Sentinels};
use crate::types::Secret;

/// Where a server is, and how to be let in.
#[derive(Clone)]
pub struct Server {
    found: Found,
    /// Host and port.
    pub(super) place: Box<str>,
    fingerprint: Box<str>,
}

/// How it is found.
#[derive(Clone)]
enum Found {
    /// It is always there.
    There(Client),
    /// Others know.
    By(Sentinels),
    /// One of several, whichever is there.
    Among(Vec<ConnectionInfo>),
}

/// Why there can be no such server, for the operator. Says nothing of the URL: there may be a password in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unusable {
    /// What is wrong.
    pub message: &'static str,
    /// What to do about it.
    pub hint: &'static str,
    /// Whether it is the authorities, not the URL.
    pub of_ca: bool,
}

const FORM: &str = "write `redis://HOST:PORT`, or `rediss://USER:PASSWORD@HOST:PORT/DATABASE` for TLS; special \
                    characters in a password are written as `%40`";

/// What is spoken in the clear has no certificate.
const CLEAR: Unusable = Unusable {
    message: "without TLS there is no certificate that an authority could have issued",
    hint: "let the URL begin with `rediss`, or leave `ca` out",
    of_ca: true,
};
const NO_AUTHORITIES: Unusable = Unusable {
    message: "these authorities cannot be used",
    hint: "name a PEM file of certificates",
    of_ca: true,
};

impl Server {
    /// The server at a URL; `ca` is the PEM text of those who may have issued its certificate.
    ///
    /// # Errors
    ///
    /// When there can be no such server.
    pub fn new(url: &Secret, ca: Option<&[u8]>) -> Result<Self, Unusable> {
        let bad = |message| Unusable { message, hint: FORM, of_ca: false };
        let text = url.expose().trim();
        if let Some((scheme, kind, rest)) = of_several(text) {
            let tls = scheme == "rediss";
            if ca.is_some() && !tls {
                return Err(CLEAR);
            }
            let (text, ca) = (fingerprint(text, ca), ca.filter(|_| tls));
            return match kind {
                Several::Watched => Self::watched(scheme, rest, text, ca),
                Several::Clustered => Self::clustered(scheme, rest, text, ca),
            };
        }
        let parsed = parse_redis_url(text).ok_or(bad("this is not the URL of a Redis server"))?;
        if !matches!(parsed.scheme(), "redis" | "rediss") {
            return Err(bad("the URL of a Redis server begins with `redis://` or `rediss://`"));
        }
        if parsed.host().is_none() {
            return Err(bad("there is no host in the URL"));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(bad("nothing follows `?` or `#` in the URL of a store"));
        }
        let tls = parsed.scheme() == "rediss";
        let info = parsed.into_connection_info();
        let info = info.map_err(|_| bad("host, user, password or database in the URL cannot be used"))?;
        if info.redis_settings().db() < 0 {
            return Err(bad("a database is a number from 0"));
        }
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let place = info.addr().to_string().into();
        let fingerprint = fingerprint(text, ca);
        Ok(Self { found: Found::There(client(info, tls, ca)?), place, fingerprint })
    }

    /// The server that sentinels know of.
    fn watched(scheme: &str, rest: &str, fingerprint: Box<str>, ca: Option<&[u8]>) -> Result<Self, Unusable> {
        let (message, hint) = ("this is not the URL of sentinels", sentinel::FORM);
        let sentinels = Sentinels::parse(scheme, rest).ok_or(Unusable { message, hint, of_ca: false })?;
        let sentinels = sentinels.trusting(ca).ok_or(NO_AUTHORITIES)?;
        let place = sentinels.place().into();
        Ok(Self { found: Found::By(sentinels), place, fingerprint })
    }

    /// Any server of a cluster, of which some are named.
    fn clustered(
        scheme: &str,
        rest: &str,
        fingerprint: Box<str>,
        ca: Option<&[u8]>,
    ) -> Result<Self, Unusable> {
        let (who, hosts) = rest.rsplit_once('@').map_or(("", rest), |(who, hosts)| (who, hosts));
        let who = if who.is_empty() { String::new() } else { format!("{who}@") };
        let at = |host: &str| {
            let named = !host.is_empty() && !host.contains('/');
            named.then(|| format!("{scheme}://{who}{host}").into_connection_info().ok()).flatten()
        };
        let servers: Option<Vec<_>> = hosts.split(',').map(at).collect();
        let message = "this is not the URL of a cluster";
        let servers = servers.ok_or(Unusable { message, hint: cluster::FORM, of_ca: false })?;
        let servers: Option<Vec<_>> = servers.into_iter().map(|server| trusting(server, ca)).collect();
        let servers = servers.ok_or(NO_AUTHORITIES)?;
        let places: Vec<_> = servers.iter().map(|server| server.addr().to_string()).collect();
        let place = format!("the cluster of {}", places.join(", ")).into();
        Ok(Self { found: Found::Among(servers), place, fingerprint })
    }

    /// Whether there are others that have other keys.
    pub(super) fn is_of_a_cluster(&self) -> bool {
        matches!(self.found, Found::Among(_))
    }

    /// Another server of the same cluster.
    pub(super) fn at(&self, place: &str) -> Option<Self> {
        let Found::Among(servers) = &self.found else { return None };
        let (host, port) = place.rsplit_once(':')?;
        let info = moved(servers.first()?, host.to_owned(), port.parse().ok()?);
        let client = Client::open(info).ok()?;
        Some(Self { found: Found::There(client), place: place.into(), fingerprint: self.fingerprint.clone() })
    }

    /// Where it is now.
    pub(super) async fn find(&self) -> RedisResult<Client> {
        match &self.found {
            Found::There(client) => Ok(client.clone()),
            Found::By(sentinels) => sentinels.find().await,
            Found::Among(servers) => sentinel::first_of(servers).await,
        }
    }

    /// Tells a handle for this server from others.
    pub fn key(&self, timeout: Duration) -> String {
        format!("redis {} {}", self.fingerprint, timeout.as_nanos())
    }

    /// Tells this server, and who we are to it, from others.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// How several servers are found.
#[derive(Clone, Copy)]
enum Several {
    /// As sentinels say.
    Watched,
    /// As those say who do not have a key.
    Clustered,
}

/// The scheme without its kind, the kind, and what follows, of a URL that leads to several servers.
fn of_several(url: &str) -> Option<(&str, Several, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (scheme, kind) = scheme.split_once('+')?;
    let kind = match kind {
        sentinel::KIND => Several::Watched,
        cluster::KIND => Several::Clustered,
        _ => return None,
    };
    matches!(scheme, "redis" | "rediss").then_some((scheme, kind, rest))
}

fn client(info: ConnectionInfo, tls: bool, ca: Option<&[u8]>) -> Result<Client, Unusable> {
    if ca.is_some() && !tls {
        return Err(CLEAR);
    }
    let unusable = Unusable { message: "this is not the URL of a Redis server", hint: FORM, of_ca: false };
    trusting(info, ca).and_then(|info| Client::open(info).ok()).ok_or(unusable)
}

/// The same server, whose certificate one of these may have issued; the system's authorities where none are named.
pub(super) fn trusting(info: ConnectionInfo, ca: Option<&[u8]>) -> Option<ConnectionInfo> {
    let Some(ca) = ca else { return Some(info) };
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) };
    Some(Client::build_with_tls(info, certificates).ok()?.get_connection_info().clone())
}

/// Another server that is spoken to in the same way.
pub(super) fn moved(info: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(address)
}

fn fingerprint(url: &str, ca: Option<&[u8]>) -> Box<str> {
    let mut context = Context::new(&SHA256);
    context.update(url.as_bytes());
    context.update(&[0]);
    context.update(ca.unwrap_or_default());
    context.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("place", &self.place).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Result<Server, Unusable> {
        Server::new(&Secret::new(url), None)
    }

    #[test]
    fn a_url_says_where_and_who() {
        for (url, place) in [
            ("redis://127.0.0.1", "127.0.0.1:6379"),
            ("redis://:secret@cache.test:7000/3", "cache.test:7000"),
            ("rediss://gate:s%40cret@cache.test", "cache.test:6379"),
        ] {
            let server = server(url).unwrap();
            assert_eq!(&*server.place, place);
            assert!(!format!("{server:?}").contains("cret"), "{server:?}");
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused_and_not_repeated() {
        for url in [
            "",
            "secret",
            "http://secret@cache.test",
            "redis+unix:///run/secret",
            "redis://",
            "redis://user:sec/ret@cache.test",
            "redis://:secret@cache.test/secret",
            "redis://:secret@cache.test/-1",
            "rediss://:secret@cache.test#insecure",
            "redis://:secret@cache.test?protocol=resp3",
            "redis://:secret@cache.test:99999",
        ] {
            let refused = server(url).unwrap_err();
            assert!(!refused.message.contains("secret"), "{url}");
        }
    }

    #[test]
    fn another_password_or_timeout_is_another_handle() {
        let (one, other) = (server("redis://:a@h").unwrap(), server("redis://:b@h").unwrap());
        let second = Duration::from_secs(1);
        assert_ne!(one.key(second), other.key(second));
        assert_ne!(one.key(second), one.key(second * 2));
        assert_eq!(one.key(second), server("redis://:a@h").unwrap().key(second));
    }
}
