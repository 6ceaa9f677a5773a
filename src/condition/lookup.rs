//! Where the things are that expressions name.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{CONTENT_LENGTH, COOKIE, TRANSFER_ENCODING};
use http::{HeaderMap, Version};

use super::eval::Run;
use super::node::Name;
use super::trouble::Trouble;
use super::value::Value;
use super::words::{Fact, Part, View};
use crate::exchange::{ResponseHeader, cookie_names, cookies};
use crate::route::{query_names, query_value};
use crate::tls::ClientCertificate;

impl<'a> Run<'a> {
    /// A single thing that is known.
    pub(super) fn fact(&self, fact: Fact) -> Result<Value<'a>, Trouble> {
        let exchange = self.exchange;
        Ok(match fact {
            Fact::Method => Value::text(exchange.method().as_str()),
            Fact::Path => Value::text(exchange.path()),
            Fact::Host => Value::text(exchange.host()),
            Fact::Size => self.size()?,
            Fact::RouteName => Value::text(exchange.route()),
            Fact::Protocol => Value::text(match self.later(exchange.request().version)? {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            }),
            Fact::Scheme => Value::text(if self.later(exchange.client().https)? { "https" } else { "http" }),
            Fact::Ip => match self.later(exchange.client_ip())? {
                Some(ip) => Value::Text(Cow::Owned(ip.to_string())),
                None => Value::text(""),
            },
            Fact::TlsVersion => Value::text(self.later(exchange.tls())?.map_or("", |tls| tls.version.name())),
            Fact::Sni => {
                Value::text(self.later(exchange.tls())?.and_then(|tls| tls.sni.as_deref()).unwrap_or(""))
            }
            Fact::Subject => Value::text(self.certificate()?.map_or("", |certificate| &certificate.subject)),
            Fact::Fingerprint => {
                Value::text(self.certificate()?.map_or("", |certificate| &certificate.fingerprint))
            }
            Fact::Sans => {
                let sans = self.certificate()?.map_or("", |certificate| &certificate.sans);
                Value::List(sans.split(',').filter(|san| !san.is_empty()).map(Value::text).collect())
            }
            Fact::ConsumerName => {
                Value::text(self.later(exchange.consumer())?.map_or("", |consumer| &consumer.name))
            }
            Fact::Anonymous => Value::Bool(self.later(exchange.is_anonymous())?),
            Fact::Groups => {
                Value::Names(self.later(exchange.consumer())?.map_or(&[], |consumer| &consumer.groups))
            }
            Fact::Status => Value::Int(self.response()?.status.as_u16().into()),
        })
    }

    /// What only the exchange itself will show.
    fn later<T>(&self, found: T) -> Result<T, Trouble> {
        if self.head_only { Err(Trouble::Unknown) } else { Ok(found) }
    }

    fn certificate(&self) -> Result<Option<&'a ClientCertificate>, Trouble> {
        Ok(self.later(self.exchange.tls())?.and_then(|tls| tls.client.as_ref()))
    }

    fn response(&self) -> Result<&'a ResponseHeader, Trouble> {
        self.later(())?;
        self.response.ok_or(Trouble::NoResponse)
    }

    /// The length that the request's body says it has; a request that says nothing over HTTP/1 has none.
    fn size(&self) -> Result<Value<'a>, Trouble> {
        let head = self.exchange.request();
        Ok(match head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()) {
            Some(length) => Value::Int(length),
            None if head.headers.contains_key(TRANSFER_ENCODING) => Value::Null,
            None if self.later(head.version)? == Version::HTTP_2 && self.exchange.may_have_body() => {
                Value::Null
            }
            None => Value::Int(0),
        })
    }

    /// The client's address.
    pub(super) fn ip(&self) -> Result<IpAddr, Trouble> {
        self.later(self.exchange.client_ip())?.ok_or(Trouble::NotAnAddress)
    }

    /// A part as a whole: null, or there.
    pub(super) fn part(&self, part: Part) -> Result<Value<'a>, Trouble> {
        let there = match part {
            Part::Tls => self.later(self.exchange.tls().is_some())?,
            Part::Certificate => self.certificate()?.is_some(),
            Part::Consumer => self.later(self.exchange.consumer().is_some())?,
            Part::Request | Part::Client | Part::Route | Part::Response => true,
        };
        Ok(if there { Value::There } else { Value::Null })
    }

    /// What a map has under a name.
    pub(super) fn entry(&self, view: View, name: &'a Name) -> Result<Value<'a>, Trouble> {
        match name {
            Name::Field(name) => {
                let value = self.headers(view)?.get(name).map_or(&b""[..], |value| value.as_bytes());
                self.draw(value.len())?;
                Ok(Value::lossy(value))
            }
            Name::Other(name) => self.under(view, name),
        }
    }

    fn under(&self, view: View, name: &str) -> Result<Value<'a>, Trouble> {
        let found = self.found(view, name)?;
        self.draw(found.as_ref().map_or(0, |bytes| bytes.len()))?;
        Ok(match found {
            Some(Cow::Borrowed(bytes)) => Value::lossy(bytes),
            Some(Cow::Owned(bytes)) => Value::Text(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())),
            None if view == View::Claims => Value::Null,
            None => Value::text(""),
        })
    }

    /// Whether a map has anything under a name.
    pub(super) fn has(&self, view: View, name: &Name) -> Result<bool, Trouble> {
        match name {
            Name::Field(name) => Ok(self.headers(view)?.contains_key(name)),
            Name::Other(name) => self.has_text(view, name),
        }
    }

    pub(super) fn has_text(&self, view: View, name: &str) -> Result<bool, Trouble> {
        Ok(self.found(view, name)?.is_some())
    }

    /// What something has at a place that is known only now.
    pub(super) fn at(&self, of: Value<'a>, at: &Value<'_>) -> Result<Value<'a>, Trouble> {
        match (of, at) {
            (Value::Map(view), at) => self.under(view, at.as_text()?),
            (Value::List(mut list), Value::Int(at)) => {
                let at = usize::try_from(*at).ok().filter(|at| *at < list.len());
                at.map(|at| list.swap_remove(at)).ok_or(Trouble::Index)
            }
            (Value::Names(names), Value::Int(at)) => {
                let name = usize::try_from(*at).ok().and_then(|at| names.get(at));
                name.map(|name| Value::text(name)).ok_or(Trouble::Index)
            }
            (Value::Null, _) => Ok(Value::Null),
            _ => Err(Trouble::Kind),
        }
    }

    fn found(&self, view: View, name: &str) -> Result<Option<Cow<'a, [u8]>>, Trouble> {
        let exchange = self.exchange;
        self.draw(self.length(view))?;
        Ok(match view {
            View::Headers | View::ResponseHeaders => {
                self.headers(view)?.get(name).map(|value| Cow::Borrowed(value.as_bytes()))
            }
            View::Query => exchange.query().and_then(|query| query_value(query, name)),
            View::Cookies => cookies(&exchange.request().headers, name).next().map(Cow::Borrowed),
            View::Parameters => exchange.capture(name).map(|value| Cow::Borrowed(value.as_bytes())),
            View::Claims => self.later(None)?,
        })
    }

    /// How much has to be looked at to find a name.
    fn length(&self, view: View) -> usize {
        match view {
            View::Query => self.exchange.query().map_or(0, str::len),
            View::Cookies => {
                self.exchange.request().headers.get_all(COOKIE).iter().map(|line| 8 + line.len()).sum()
            }
            View::Headers | View::ResponseHeaders | View::Parameters | View::Claims => 0,
        }
    }

    fn headers(&self, view: View) -> Result<&'a HeaderMap, Trouble> {
        match view {
            View::ResponseHeaders => Ok(&self.response()?.headers),
            _ => Ok(&self.exchange.request().headers),
        }
    }

    /// The names that a map has, each once.
    pub(super) fn names(&self, view: View) -> Result<Vec<Cow<'a, str>>, Trouble> {
        let exchange = self.exchange;
        self.draw(self.length(view))?;
        let mut names: Vec<Cow<'a, str>> = match view {
            View::Headers | View::ResponseHeaders => {
                let headers = self.headers(view)?;
                self.draw(headers.len() * size_of::<Value<'_>>())?;
                return Ok(headers.keys().map(|name| Cow::Borrowed(name.as_str())).collect());
            }
            View::Query => query_names(exchange.query().unwrap_or_default()).collect(),
            View::Cookies => cookie_names(&exchange.request().headers).map(String::from_utf8_lossy).collect(),
            View::Parameters => exchange.captures().map(|(name, _)| Cow::Borrowed(name)).collect(),
            View::Claims => self.later(Vec::new())?,
        };
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}
