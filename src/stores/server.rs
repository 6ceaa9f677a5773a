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

impl Server {
    /// The server at a URL; `ca` is the PEM text of those who may have issued its certificate.
    ///
    /// # Errors
    ///
    /// When there can be no such server.
    pub fn new(url: &Secret, ca: Option<&[u8]>) -> Result<Self, Unusable> {
        let bad = |message| Unusable { message, hint: FORM, of_ca: false };
        let text = url.expose().trim();
        if let Some(rest) = text.strip_prefix(sentinel::SCHEME) {
            return Self::watched(rest, text, ca);
        }
        if let Some(rest) = text.strip_prefix(cluster::SCHEME) {
            return Self::clustered(rest, text, ca);
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
    fn watched(rest: &str, text: &str, ca: Option<&[u8]>) -> Result<Self, Unusable> {
        let hint = sentinel::FORM;
        if ca.is_some() {
            let message = "servers behind sentinels are spoken to in the clear: there is no certificate";
            return Err(Unusable { message, hint: "leave `ca` out", of_ca: true });
        }
        let message = "this is not the URL of sentinels";
        let sentinels = Sentinels::parse(rest).ok_or(Unusable { message, hint, of_ca: false })?;
        let (place, fingerprint) = (sentinels.place().into(), fingerprint(text, None));
        Ok(Self { found: Found::By(sentinels), place, fingerprint })
    }

    /// Any server of a cluster, of which some are named.
    fn clustered(rest: &str, text: &str, ca: Option<&[u8]>) -> Result<Self, Unusable> {
        if ca.is_some() {
            let message = "clusters are spoken to in the clear: there is no certificate";
            return Err(Unusable { message, hint: "leave `ca` out", of_ca: true });
        }
        let (who, hosts) = rest.rsplit_once('@').map_or(("", rest), |(who, hosts)| (who, hosts));
        let who = if who.is_empty() { String::new() } else { format!("{who}@") };
        let at = |host: &str| {
            let named = !host.is_empty() && !host.contains('/');
            named.then(|| format!("redis://{who}{host}").into_connection_info().ok()).flatten()
        };
        let servers: Option<Vec<_>> = hosts.split(',').map(at).collect();
        let message = "this is not the URL of a cluster";
        let servers = servers.ok_or(Unusable { message, hint: cluster::FORM, of_ca: false })?;
        let places: Vec<_> = servers.iter().map(|server| server.addr().to_string()).collect();
        let place = format!("the cluster of {}", places.join(", ")).into();
        Ok(Self { found: Found::Among(servers), place, fingerprint: fingerprint(text, None) })
    }

    /// Whether there are others that have other keys.
    pub(super) fn is_of_a_cluster(&self) -> bool {
        matches!(self.found, Found::Among(_))
    }

    /// Another server of the same cluster.
    pub(super) fn at(&self, place: &str) -> Option<Self> {
        let Found::Among(servers) = &self.found else { return None };
        let (host, port) = place.rsplit_once(':')?;
        let address = ConnectionAddr::Tcp(host.to_owned(), port.parse().ok()?);
        let client = Client::open(servers.first()?.clone().set_addr(address)).ok()?;
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

fn client(info: ConnectionInfo, tls: bool, ca: Option<&[u8]>) -> Result<Client, Unusable> {
    let made = match ca {
        None => Client::open(info),
        Some(_) if !tls => {
            let message =
                "`redis://` is not TLS: there is no certificate that an authority could have issued";
            return Err(Unusable { message, hint: "write `rediss://`, or leave `ca` out", of_ca: true });
        }
        Some(ca) => {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) };
            Client::build_with_tls(info, certificates)
        }
    };
    made.map_err(|_| Unusable { message: "this is not the URL of a Redis server", hint: FORM, of_ca: false })
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
