//! The shapes a line may have: `json`, `combined`, or a template.

use std::str::FromStr;

use super::clock::Clock;
use super::record::{Field, Record};
use super::redact::Redact;
use super::template::{Template, TemplateError};
use crate::telemetry::encode;

/// How a record becomes a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object; keys of missing values are left out.
    Json,
    /// Apache's and nginx's combined format.
    Combined,
    /// The operator's own.
    Template(Template),
}

impl FromStr for Format {
    type Err = TemplateError;

    /// Reads what stands under `format:`. Anything but `json` and `combined` is a template, and a template without a
    /// field is an error, so that a misspelt word is one.
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        match text {
            "json" => Ok(Self::Json),
            "combined" => Ok(Self::Combined),
            template => template.parse().map(Self::Template),
        }
    }
}

impl Format {
    /// Whether lines may show response headers.
    pub(super) fn shows_response_headers(&self) -> bool {
        matches!(self, Self::Template(template) if template.shows_response_headers())
    }

    /// Appends the line for `record`, its newline included.
    pub(super) fn write(&self, record: &Record<'_>, redact: &Redact, clock: &mut Clock, out: &mut Vec<u8>) {
        match self {
            Self::Json => write_json(record, redact, clock, out),
            Self::Combined => write_combined(record, redact, clock, out),
            Self::Template(template) => template.write(record, redact, clock, out),
        }
        out.push(b'\n');
    }
}

fn write_json(record: &Record<'_>, redact: &Redact, clock: &mut Clock, out: &mut Vec<u8>) {
    let start = out.len();
    record.write_json(redact, clock, out);
    for (name, value) in record.fields {
        out.extend_from_slice(b",");
        encode::json_string(out, name.as_bytes());
        out.push(b':');
        encode::json_string(out, value.as_bytes());
    }
    // The comma before the first key.
    out[start] = b'{';
    out.push(b'}');
}

/// What stands before each field of the combined format.
const COMBINED: [(&[u8], Field); 10] = [
    (b"", Field::ClientIp),
    (b" - ", Field::Consumer),
    (b" [", Field::ClfTime),
    (b"] \"", Field::Method),
    (b" ", Field::Target),
    (b" ", Field::Protocol),
    (b"\" ", Field::Status),
    (b" ", Field::BytesOut),
    (b" \"", Field::Referer),
    (b"\" \"", Field::UserAgent),
];

fn write_combined(record: &Record<'_>, redact: &Redact, clock: &mut Clock, out: &mut Vec<u8>) {
    for (before, field) in COMBINED {
        out.extend_from_slice(before);
        field.value(record, redact).write_text(clock, out);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{bare, full};
    use super::super::record::{Address, Value};
    use super::*;
    use http::header::{REFERER, USER_AGENT};
    use proptest::option;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};
    use std::net::{IpAddr, SocketAddr};
    use std::time::{Duration, SystemTime};

    fn line(format: &str, record: &Record<'_>) -> String {
        redacted(format, record, &Redact::default())
    }

    fn redacted(format: &str, record: &Record<'_>, redact: &Redact) -> String {
        let mut out = b"before\n".to_vec();
        format.parse::<Format>().unwrap().write(record, redact, &mut Clock::default(), &mut out);
        String::from_utf8(out.split_off(7)).unwrap()
    }

    #[test]
    fn json_shows_everything() {
        let read: Json = serde_json::from_str(&line("json", &full())).unwrap();
        let expected = json!({
            "time": "2023-11-14T22:13:20.042Z", "request_id": "0190-aa", "client_ip": "203.0.113.7",
            "listener": "web", "route": "orders", "method": "GET", "host": "api.example.com", "path": "/orders/7",
            "query": "page=2", "protocol": "HTTP/1.1", "status": 502, "grpc_status": 14, "reason": "upstream_reset",
            "duration_ms": 12.345, "variant": "canary", "upstream": "orders", "endpoint": "10.0.0.1:8080",
            "upstream_duration_ms": 11.007, "tries": 2, "bytes_in": 0, "bytes_out": 512, "user_agent": "curl/8",
            "referer": "https://example.com/", "consumer": "mobile", "tls_version": "TLSv1.3",
            "tls_cipher": "TLS_AES_128_GCM_SHA256", "tls_sni": "api.example.com", "tls_client_subject": "CN=mobile",
            "tls_client_sans": "DNS:mobile.example.com", "tls_client_fingerprint": "00ff",
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn json_leaves_out_what_is_missing() {
        let expected = r#"{"time":"2023-11-14T22:13:20.042Z","request_id":"0190-aa","listener":"web","method":"GET","path":"/orders/7","protocol":"HTTP/1.1","status":404,"duration_ms":12.345,"tries":0,"bytes_in":0,"bytes_out":512}"#;
        assert_eq!(line("json", &bare()), format!("{expected}\n"));
    }

    #[test]
    fn combined_is_what_log_readers_expect() {
        assert_eq!(
            line("combined", &full()),
            "203.0.113.7 - mobile [14/Nov/2023:22:13:20 +0000] \"GET /orders/7?page=2 HTTP/1.1\" 502 512 \
             \"https://example.com/\" \"curl/8\"\n"
        );
        assert_eq!(
            line("combined", &bare()),
            "- - - [14/Nov/2023:22:13:20 +0000] \"GET /orders/7 HTTP/1.1\" 404 512 \"-\" \"-\"\n"
        );
    }

    #[test]
    fn redacted_headers_are_hidden_in_every_format() {
        let redact = Redact::new([USER_AGENT, REFERER]);
        for format in ["json", "combined", "{user_agent} {referer}"] {
            let line = redacted(format, &full(), &redact);
            assert_eq!(line.matches("[redacted]").count(), 2, "{line}");
            assert!(!line.contains("curl") && !line.contains("https"), "{line}");
        }
    }

    #[test]
    fn a_misspelt_format_is_an_error() {
        assert!(matches!("jsno".parse::<Format>(), Err(TemplateError::NoFields { .. })));
    }

    /// A field as the standard library spells it: a JSON line is made of nothing but these.
    fn spelled(field: Field, record: &Record<'_>) -> Option<String> {
        let millis =
            |duration: Duration| format!("{}.{:03}", duration.as_millis(), duration.as_micros() % 1000);
        let text = |text: &[u8]| {
            let mut json = Vec::new();
            encode::json_string(&mut json, text);
            String::from_utf8(json).unwrap()
        };
        let mut shown = Vec::new();
        match field.value(record, &Redact::default()) {
            Value::Missing => None,
            Value::Text(bytes) | Value::Plain(bytes) => Some(text(bytes)),
            Value::Number(number) => Some(number.to_string()),
            Value::Millis(duration) => Some(millis(duration)),
            Value::Ip(address) => Some(format!("\"{address}\"")),
            Value::Socket(address) => Some(format!("\"{address}\"")),
            time @ Value::Rfc3339(_) => {
                time.write_text(&mut Clock::default(), &mut shown);
                Some(text(&shown))
            }
            Value::Clf(_) | Value::Target(..) => None,
        }
    }

    proptest! {
        #[test]
        fn a_json_line_is_its_fields_in_their_order(
            id in "[a-z0-9-]{1,40}", listener in "[A-Z0-9_.]{1,9}", route in option::of("[a-z.]{1,9}"),
            texts: [Option<String>; 3], bytes: [Option<Vec<u8>>; 5], client_ip: Option<IpAddr>,
            endpoint: Option<SocketAddr>, upstream_duration: Option<Duration>, millis in 0..4_000_000_000_000_u64,
            status: u16, tries: u32, sizes: [u64; 2], duration: Duration,
        ) {
            let text = |index: usize| texts[index].as_deref();
            let client = |index: usize| bytes[index].as_deref();
            let record = Record {
                time: SystemTime::UNIX_EPOCH + Duration::from_millis(millis),
                request_id: &id, client_ip: client_ip.map(Address::Ip), listener: &listener, route: route.as_deref(),
                host: client(0), path: client(1).unwrap_or(b"/"), query: client(2), status, reason: text(0), duration,
                upstream: text(1), endpoint, upstream_duration, tries, bytes_in: sizes[0], bytes_out: sizes[1],
                user_agent: client(3), referer: client(4), consumer: text(2), ..full()
            };
            let fields = Field::ALL.iter().filter_map(|field| {
                Some(format!("\"{}\":{}", field.name(), spelled(*field, &record)?))
            });
            let expected = format!("{{{}}}\n", fields.collect::<Vec<_>>().join(","));
            prop_assert_eq!(line("json", &record), expected);
        }

        #[test]
        fn no_client_can_forge_a_line_or_a_quote(host: Vec<u8>, path: Vec<u8>, query: Vec<u8>, agent: Vec<u8>) {
            let record = Record {
                host: Some(&host), path: &path, query: Some(&query), user_agent: Some(&agent), ..full()
            };
            let json = line("json", &record);
            prop_assert!(!json.trim_end_matches('\n').chars().any(char::is_control));
            let read: Json = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read["user_agent"].as_str().unwrap(), String::from_utf8_lossy(&agent));
            prop_assert_eq!(read.as_object().unwrap().len(), 30);

            let combined = line("combined", &record);
            prop_assert_eq!(combined.matches('"').count(), 6);
            prop_assert!(combined.trim_end_matches('\n').bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        }
    }
}
