//! What selectors find in a request.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use super::Exchange;
use crate::route::query_value;
use crate::types::Selector;

/// What a selector found: never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected<'a> {
    /// Bytes, as they came or decoded.
    Bytes(Cow<'a, [u8]>),
    /// The four bytes of an address.
    V4([u8; 4]),
    /// The sixteen bytes of an address.
    V6([u8; 16]),
}

impl AsRef<[u8]> for Selected<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::V4(bytes) => bytes,
            Self::V6(bytes) => bytes,
        }
    }
}

impl Exchange<'_> {
    /// What a selector finds in this request; `None` when there is nothing, or it is empty. Addresses, hosts and paths are
    /// those that are known for sure: canonical, and from trusted proxies only.
    pub fn select(&self, selector: &Selector) -> Option<Selected<'_>> {
        let bytes = match selector {
            Selector::Ip => return self.client_ip().map(of_address),
            Selector::Host => Cow::Borrowed(self.host().as_bytes()),
            Selector::Path => Cow::Borrowed(self.path().as_bytes()),
            Selector::Route => Cow::Borrowed(self.route().as_bytes()),
            // Whoever has proved nothing is not all one client.
            Selector::Consumer if self.is_anonymous() => return None,
            Selector::Consumer => Cow::Borrowed(self.consumer()?.name.as_bytes()),
            Selector::BasicUsername => Cow::Borrowed(self.username()?.as_bytes()),
            Selector::Header(name) => Cow::Borrowed(self.header(name)?.as_bytes()),
            Selector::Query(name) => query_value(self.query()?, name)?,
            Selector::Form(name) => query_value(self.form()?, name)?,
            Selector::Cookie(name) => Cow::Borrowed(cookies(&self.request().headers, name).next()?),
        };
        Some(Selected::Bytes(bytes)).filter(|found| !found.as_ref().is_empty())
    }
}

/// An IPv4 address is the same whether it came mapped into IPv6 or not.
fn of_address(ip: IpAddr) -> Selected<'static> {
    match ip.to_canonical() {
        IpAddr::V4(v4) => Selected::V4(v4.octets()),
        IpAddr::V6(v6) => Selected::V6(v6.octets()),
    }
}

/// The values of the cookies of a name (RFC 6265, section 5.4), as they came: a client may send several.
pub fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    pairs(headers).filter_map(move |pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The names of the cookies, in the order they came.
pub fn cookie_names(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    pairs(headers)
        .filter_map(|pair| pair.split(|byte| *byte == b'=').next().filter(|name| name.len() < pair.len()))
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_by_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; ab=2;a=3 ; b"));
        headers.append(COOKIE, HeaderValue::from_static("=; a=\"4\"; A=5; a=b=c"));
        let of = |name: &str| {
            cookies(&headers, name)
                .map(|value| String::from_utf8_lossy(value).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("a"), ["1", "3", "\"4\"", "b=c"]);
        assert_eq!(of("ab"), ["2"]);
        assert_eq!(of("b"), [""; 0]);
        assert_eq!(
            cookie_names(&headers).collect::<Vec<_>>(),
            [&b"a"[..], b"ab", b"a", b"", b"a", b"A", b"a"]
        );
    }

    #[test]
    fn a_mapped_address_is_an_address_of_ipv4() {
        let mapped = of_address("::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(mapped, of_address("10.0.0.1".parse().unwrap()));
        assert_eq!(mapped.as_ref(), [10, 0, 0, 1]);
        assert_eq!(of_address("::1".parse().unwrap()).as_ref().len(), 16);
    }
}
