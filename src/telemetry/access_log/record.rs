//! What one access log line may show, and the names its parts go by.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::clock::Clock;
use super::redact::Redact;
use crate::telemetry::encode;

/// An address, which its owner may have spelled already.
#[derive(Debug, Clone, Copy)]
pub enum Address<'a> {
    /// As text.
    Text(&'a [u8]),
    /// To be spelled.
    Ip(IpAddr),
}

/// One finished exchange, borrowed from wherever its parts live. What a client wrote is bytes: it need not be UTF-8.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// When the request head had been read.
    pub time: SystemTime,
    /// The id that the reply, the span and the error body carry, too: letters, digits and `-_.:=+/@`.
    pub request_id: &'a str,
    /// The client behind trusted proxies; none on a Unix socket.
    pub client_ip: Option<Address<'a>>,
    /// Name of the listener that accepted the connection: letters, digits and `-_.`.
    pub listener: &'a str,
    /// Name of the route, of such letters too; none when no route matched.
    pub route: Option<&'a str>,
    /// Request method, as sent.
    pub method: &'a str,
    /// `Host` or `:authority`.
    pub host: Option<&'a [u8]>,
    /// Canonical path.
    pub path: &'a [u8],
    /// Query without its `?`.
    pub query: Option<&'a [u8]>,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: &'a str,
    /// Status sent to the client; 0 when none was.
    pub status: u16,
    /// How a gRPC call ended.
    pub grpc_status: Option<u16>,
    /// Reason code of a reply that the gateway made itself.
    pub reason: Option<&'a str>,
    /// From the request head to the last byte of the response.
    pub duration: Duration,
    /// Name of the variant of the route.
    pub variant: Option<&'a str>,
    /// Name of the upstream.
    pub upstream: Option<&'a str>,
    /// The endpoint that was tried last.
    pub endpoint: Option<SocketAddr>,
    /// From the first try to the upstream's response head.
    pub upstream_duration: Option<Duration>,
    /// Tries at an upstream, the first included; 0 when the gateway answered itself.
    pub tries: u32,
    /// Bytes of request body read from the client.
    pub bytes_in: u64,
    /// Bytes of response body sent to the client.
    pub bytes_out: u64,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `Referer`.
    pub referer: Option<&'a [u8]>,
    /// Name of the verified consumer.
    pub consumer: Option<&'a str>,
    /// How the connection is encrypted; none in the clear.
    pub tls: Option<TlsRecord<'a>>,
    /// The request's headers, for templates.
    pub request_headers: Option<&'a HeaderMap>,
    /// The headers of the response as sent, for templates.
    pub response_headers: Option<&'a HeaderMap>,
    /// What filters add, for JSON lines.
    pub fields: &'a [(&'static str, String)],
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy)]
pub struct TlsRecord<'a> {
    /// `TLSv1.3`.
    pub version: &'a str,
    /// The cipher suite's IANA name.
    pub cipher: &'a str,
    /// The host that the client's greeting asked for.
    pub sni: Option<&'a str>,
    /// The subject of the client's certificate.
    pub client_subject: Option<&'a str>,
    /// The alternative names in it.
    pub client_sans: Option<&'a str>,
    /// Its SHA-256.
    pub client_fingerprint: Option<&'a str>,
}

/// Declares [`Field`]: each variant, the name users write, and (from the name) its JSON key. The JSON line is the same
/// list written out, a field after the other, so that the compiler knows each one's key and kind.
macro_rules! fields {
    ($($variant:ident = $name:literal,)+) => {
        /// A part of a [`Record`] that a template may name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Field { $($variant,)+ }

        impl Field {
            /// Every field, in the order of a JSON line.
            pub(super) const ALL: &[Field] = &[$(Field::$variant,)+];

            /// The name in templates and in JSON.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Field::$variant => $name,)+ }
            }

            /// `,"name":"`, for a string.
            const fn json_key(self) -> &'static [u8] {
                match self { $(Field::$variant => concat!(",\"", $name, "\":\"").as_bytes(),)+ }
            }
        }

        impl Record<'_> {
            /// Appends `,"name":value` for each field that there is.
            pub(super) fn write_json(&self, redact: &Redact, clock: &mut Clock, out: &mut Vec<u8>) {
                $(Field::$variant.write_json(self, redact, clock, out);)+
            }
        }
    };
}

fields! {
    Time = "time",
    RequestId = "request_id",
    ClientIp = "client_ip",
    Listener = "listener",
    Route = "route",
    Method = "method",
    Host = "host",
    Path = "path",
    Query = "query",
    Protocol = "protocol",
    Status = "status",
    GrpcStatus = "grpc_status",
    Reason = "reason",
    DurationMs = "duration_ms",
    Variant = "variant",
    Upstream = "upstream",
    Endpoint = "endpoint",
    UpstreamDurationMs = "upstream_duration_ms",
    Tries = "tries",
    BytesIn = "bytes_in",
    BytesOut = "bytes_out",
    UserAgent = "user_agent",
    Referer = "referer",
    Consumer = "consumer",
    TlsVersion = "tls_version",
    TlsCipher = "tls_cipher",
    TlsSni = "tls_sni",
    TlsClientSubject = "tls_client_subject",
    TlsClientSans = "tls_client_sans",
    TlsClientFingerprint = "tls_client_fingerprint",
    ClfTime = "clf_time",
    Target = "target",
}

impl Field {
    /// Appends `,"name":value`, or nothing when there is no value. Inlined where the field is known: one arm of both
    /// matches is left, and the key is a constant.
    #[inline(always)]
    fn write_json(self, record: &Record<'_>, redact: &Redact, clock: &mut Clock, out: &mut Vec<u8>) {
        let key = self.json_key();
        match self.value(record, redact) {
            _ if self.is_alias() => {}
            Value::Missing => {}
            number @ (Value::Number(_) | Value::Millis(_)) => {
                out.extend_from_slice(&key[..key.len() - 1]);
                number.write_plain(clock, out);
            }
            Value::Text(text) => {
                out.extend_from_slice(key);
                encode::json_escaped(out, text);
                out.push(b'"');
            }
            Value::Plain(text) => {
                out.extend_from_slice(key);
                out.extend_from_slice(text);
                out.push(b'"');
            }
            other => {
                out.extend_from_slice(key);
                other.write_plain(clock, out);
                out.push(b'"');
            }
        }
    }

    /// Whether it only spells another field differently, for text forms.
    const fn is_alias(self) -> bool {
        matches!(self, Field::ClfTime | Field::Target)
    }

    /// What `record` has to show for this field.
    #[inline(always)]
    pub(super) fn value<'a>(self, record: &Record<'a>, redact: &Redact) -> Value<'a> {
        match self {
            Field::Time => Value::Rfc3339(record.time),
            Field::ClfTime => Value::Clf(record.time),
            Field::RequestId => Value::Plain(record.request_id.as_bytes()),
            Field::ClientIp => record.client_ip.map_or(Value::Missing, Value::from),
            Field::Listener => Value::name(Some(record.listener)),
            Field::Route => Value::name(record.route),
            Field::Method => record.method.into(),
            Field::Host => redact.host(record.host).into(),
            Field::Path => Value::Text(record.path),
            Field::Query => record.query.into(),
            Field::Target => Value::Target(record.path, record.query),
            Field::Protocol => record.protocol.into(),
            Field::Status => Value::Number(record.status.into()),
            Field::GrpcStatus => {
                record.grpc_status.map_or(Value::Missing, |status| Value::Number(status.into()))
            }
            Field::Reason => record.reason.into(),
            Field::DurationMs => Value::Millis(record.duration),
            Field::Variant => record.variant.into(),
            Field::Upstream => record.upstream.into(),
            Field::Endpoint => record.endpoint.map_or(Value::Missing, Value::Socket),
            Field::UpstreamDurationMs => record.upstream_duration.map_or(Value::Missing, Value::Millis),
            Field::Tries => Value::Number(record.tries.into()),
            Field::BytesIn => Value::Number(record.bytes_in),
            Field::BytesOut => Value::Number(record.bytes_out),
            Field::UserAgent => redact.user_agent(record.user_agent).into(),
            Field::Referer => redact.referer(record.referer).into(),
            Field::Consumer => record.consumer.into(),
            Field::TlsVersion => record.tls.map(|tls| tls.version).into(),
            Field::TlsCipher => record.tls.map(|tls| tls.cipher).into(),
            Field::TlsSni => record.tls.and_then(|tls| tls.sni).into(),
            Field::TlsClientSubject => record.tls.and_then(|tls| tls.client_subject).into(),
            Field::TlsClientSans => record.tls.and_then(|tls| tls.client_sans).into(),
            Field::TlsClientFingerprint => record.tls.and_then(|tls| tls.client_fingerprint).into(),
        }
    }
}

/// A field's value, not yet spelled.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Missing,
    /// What anyone may have written.
    Text(&'a [u8]),
    /// What is known to need no escape in any form: letters, digits and `-_.:=+/@`.
    Plain(&'a [u8]),
    Number(u64),
    Millis(Duration),
    Ip(IpAddr),
    Socket(SocketAddr),
    Rfc3339(SystemTime),
    Clf(SystemTime),
    Target(&'a [u8], Option<&'a [u8]>),
}

impl Value<'_> {
    /// Appends the value to a line of text; `-` stands for what is missing.
    pub(super) fn write_text(self, clock: &mut Clock, out: &mut Vec<u8>) {
        match self {
            Value::Missing => out.push(b'-'),
            Value::Text(text) => encode::text(out, text),
            Value::Target(path, query) => {
                encode::text(out, path);
                if let Some(query) = query {
                    out.push(b'?');
                    encode::text(out, query);
                }
            }
            plain => plain.write_plain(clock, out),
        }
    }

    /// The values that are spelled alike everywhere: digits, addresses, times.
    #[inline(always)]
    fn write_plain(self, clock: &mut Clock, out: &mut Vec<u8>) {
        match self {
            Value::Number(number) => encode::integer(out, number),
            Value::Millis(duration) => encode::millis(out, duration),
            Value::Ip(address) => encode::ip(out, address),
            Value::Socket(address) => encode::socket(out, address),
            Value::Rfc3339(time) => clock.write_rfc3339(time, out),
            Value::Clf(time) => clock.write_clf(time, out),
            Value::Plain(text) => out.extend_from_slice(text),
            Value::Missing | Value::Text(_) | Value::Target(..) => {}
        }
    }
}

impl<'a> Value<'a> {
    /// The name of a listener or a route.
    fn name(name: Option<&'a str>) -> Self {
        name.map_or(Value::Missing, |name| Value::Plain(name.as_bytes()))
    }
}

impl<'a> From<Address<'a>> for Value<'a> {
    fn from(address: Address<'a>) -> Self {
        match address {
            Address::Text(text) => Value::Plain(text),
            Address::Ip(ip) => Value::Ip(ip),
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(text.as_bytes())
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Value::Missing, Value::from)
    }
}

impl<'a> From<Option<&'a [u8]>> for Value<'a> {
    fn from(bytes: Option<&'a [u8]>) -> Self {
        bytes.map_or(Value::Missing, Value::Text)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record with every field present.
    pub(in super::super) fn full() -> Record<'static> {
        Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_042),
            request_id: "0190-aa",
            client_ip: Some(Address::Ip(IpAddr::from([203, 0, 113, 7]))),
            listener: "web",
            route: Some("orders"),
            method: "GET",
            host: Some(b"api.example.com"),
            path: b"/orders/7",
            query: Some(b"page=2"),
            protocol: "HTTP/1.1",
            status: 502,
            grpc_status: Some(14),
            reason: Some("upstream_reset"),
            duration: Duration::from_micros(12_345),
            variant: Some("canary"),
            upstream: Some("orders"),
            endpoint: Some(SocketAddr::from(([10, 0, 0, 1], 8080))),
            upstream_duration: Some(Duration::from_micros(11_007)),
            tries: 2,
            bytes_in: 0,
            bytes_out: 512,
            user_agent: Some(b"curl/8"),
            referer: Some(b"https://example.com/"),
            consumer: Some("mobile"),
            tls: Some(TlsRecord {
                version: "TLSv1.3",
                cipher: "TLS_AES_128_GCM_SHA256",
                sni: Some("api.example.com"),
                client_subject: Some("CN=mobile"),
                client_sans: Some("DNS:mobile.example.com"),
                client_fingerprint: Some("00ff"),
            }),
            request_headers: None,
            response_headers: None,
            fields: &[],
        }
    }

    /// A record with only what every exchange has.
    pub(in super::super) fn bare() -> Record<'static> {
        Record {
            client_ip: None,
            grpc_status: None,
            route: None,
            host: None,
            query: None,
            reason: None,
            variant: None,
            upstream: None,
            endpoint: None,
            upstream_duration: None,
            tries: 0,
            user_agent: None,
            referer: None,
            consumer: None,
            tls: None,
            status: 404,
            ..full()
        }
    }

    #[test]
    fn names_are_unique_and_are_the_json_keys() {
        for (index, field) in Field::ALL.iter().enumerate() {
            assert_eq!(field.json_key(), format!(",\"{}\":\"", field.name()).as_bytes());
            assert!(Field::ALL[..index].iter().all(|other| other.name() != field.name()));
        }
    }
}
