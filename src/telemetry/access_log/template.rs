//! Lines of the operator's own shape: `'{status} {method} {path} {request_header.x-env}'`. Compiled when the
//! configuration is; `{{` and `}}` stand for braces.

use std::str::FromStr;

use http::{HeaderMap, HeaderName};

use super::clock::Clock;
use super::record::{Field, Record};
use super::redact::{REDACTED, Redact};
use crate::telemetry::encode;

/// A compiled line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Field(Field),
    RequestHeader(HeaderName),
    ResponseHeader(HeaderName),
}

/// Why a template does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name in braces that no record has.
    #[error("unknown field `{name}`{hint}; fields: {known}, request_header.NAME, response_header.NAME",
        hint = did_you_mean(suggestion), known = field_names().join(", "))]
    UnknownField {
        /// The name as written.
        name: String,
        /// The known name nearest to it.
        suggestion: Option<&'static str>,
    },
    /// `{request_header.NAME}` with a name that no header can have (RFC 9110).
    #[error("`{name}` is not a header name")]
    HeaderName {
        /// The name as written.
        name: String,
    },
    /// A `{` without its `}`, or a `}` alone.
    #[error("unbalanced `{brace}` at byte {at}; write `{brace}{brace}` for a brace")]
    Unbalanced {
        /// The brace.
        brace: char,
        /// Where it stands.
        at: usize,
    },
    /// A literal control character, which would break the line apart.
    #[error("control character {character:?} in a template")]
    Control {
        /// The character.
        character: char,
    },
    /// Every line would be the same.
    #[error("`{text}` is neither `json` nor `combined`, nor a template: it shows no field{hint}",
        hint = did_you_mean(suggestion))]
    NoFields {
        /// The text as written.
        text: String,
        /// The format's name nearest to it.
        suggestion: Option<&'static str>,
    },
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if let Some(character) = text.chars().find(|c| c.is_control() && *c != '\t') {
            return Err(TemplateError::Control { character });
        }
        let pieces = parse(text)?;
        if pieces.iter().all(|piece| matches!(piece, Piece::Literal(_))) {
            let suggestion = nearest(text, &["json", "combined"]);
            return Err(TemplateError::NoFields { text: text.to_owned(), suggestion });
        }
        Ok(Self(pieces))
    }
}

impl Template {
    /// Whether it names a response header.
    pub(super) fn shows_response_headers(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::ResponseHeader(_)))
    }

    /// Appends the line for `record`, without its newline.
    pub(super) fn write(&self, record: &Record<'_>, redact: &Redact, clock: &mut Clock, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Field(field) => field.value(record, redact).write_text(clock, out),
                Piece::RequestHeader(name) => write_header(record.request_headers, name, redact, out),
                Piece::ResponseHeader(name) => write_header(record.response_headers, name, redact, out),
            }
        }
    }
}

/// Appends a header's values, joined as one field line would be (RFC 9110, 5.3).
fn write_header(headers: Option<&HeaderMap>, name: &HeaderName, redact: &Redact, out: &mut Vec<u8>) {
    let mut values = headers.into_iter().flat_map(|headers| headers.get_all(name));
    let Some(first) = values.next() else {
        return out.push(b'-');
    };
    if redact.hides(name) {
        return out.extend_from_slice(REDACTED);
    }
    encode::text(out, first.as_bytes());
    for value in values {
        out.extend_from_slice(b", ");
        encode::text(out, value.as_bytes());
    }
}

fn parse(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(offset) = rest.find(['{', '}']) {
        literal.push_str(&rest[..offset]);
        let at = text.len() - rest.len() + offset;
        rest = &rest[offset..];
        if let Some(after) = rest.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('{').and_then(|after| after.split_once('}')) {
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(piece(name)?);
            rest = after;
        } else {
            let brace = if rest.starts_with('{') { '{' } else { '}' };
            return Err(TemplateError::Unbalanced { brace, at });
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// What stands between a pair of braces.
fn piece(name: &str) -> Result<Piece, TemplateError> {
    if let Some(header) = name.strip_prefix("request_header.") {
        return header_name(header).map(Piece::RequestHeader);
    }
    if let Some(header) = name.strip_prefix("response_header.") {
        return header_name(header).map(Piece::ResponseHeader);
    }
    Field::ALL.iter().find(|field| field.name() == name).map(|field| Piece::Field(*field)).ok_or_else(|| {
        TemplateError::UnknownField { name: name.to_owned(), suggestion: nearest(name, &field_names()) }
    })
}

fn header_name(name: &str) -> Result<HeaderName, TemplateError> {
    name.parse().map_err(|_| TemplateError::HeaderName { name: name.to_owned() })
}

fn field_names() -> Vec<&'static str> {
    Field::ALL.iter().map(|field| field.name()).collect()
}

/// The candidate most like `word`, when any is like it at all.
fn nearest(word: &str, candidates: &[&'static str]) -> Option<&'static str> {
    candidates
        .iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), *candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    suggestion.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{bare, full};
    use super::*;
    use http::HeaderValue;
    use http::header::{AUTHORIZATION, CONTENT_TYPE};
    use proptest::prelude::*;

    fn line(template: &str, record: &Record<'_>, redact: &Redact) -> String {
        let mut out = Vec::new();
        template.parse::<Template>().unwrap().write(record, redact, &mut Clock::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn plain(template: &str, record: &Record<'_>) -> String {
        line(template, record, &Redact::default())
    }

    fn error(template: &str) -> String {
        template.parse::<Template>().unwrap_err().to_string()
    }

    #[test]
    fn fields_and_braces() {
        assert_eq!(plain("{status} {method} {target}", &full()), "502 GET /orders/7?page=2");
        assert_eq!(plain("{{{status}}} {{}}", &full()), "{502} {}");
        assert_eq!(plain("{route}|{upstream}|{reason}", &bare()), "-|-|-");
    }

    #[test]
    fn every_field_can_be_named() {
        for field in Field::ALL {
            let shown = plain(&format!("{{{}}}", field.name()), &full());
            assert!(!shown.is_empty() && shown != "-", "{}", field.name());
        }
    }

    #[test]
    fn headers_are_looked_up_joined_escaped_and_redacted() {
        let mut request = HeaderMap::new();
        request.append("x-env", HeaderValue::from_static("canary"));
        request.append("x-env", HeaderValue::from_bytes(b"\"\xff").unwrap());
        request.insert(AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        let response = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
        let record = Record { request_headers: Some(&request), response_headers: Some(&response), ..full() };
        let redact = Redact::new([AUTHORIZATION]);

        let show = |template| line(template, &record, &redact);
        assert_eq!(show("{request_header.X-Env}"), r"canary, \x22\xff");
        assert_eq!(show("{response_header.content-type}"), "text/plain");
        assert_eq!(show("{request_header.authorization}"), "[redacted]");
        assert_eq!(show("{response_header.authorization}"), "-");
        assert_eq!(plain("{request_header.x-env}", &full()), "-");
    }

    #[test]
    fn an_unknown_field_names_the_known_ones() {
        let message = error("{stauts}");
        assert!(
            message.starts_with("unknown field `stauts` (did you mean `status`?); fields: time, "),
            "{message}"
        );
        assert!(message.ends_with("request_header.NAME, response_header.NAME"), "{message}");
        assert!(!error("{qqqq}").contains("did you mean"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert_eq!(error("a {status"), "unbalanced `{` at byte 2; write `{{` for a brace");
        assert_eq!(error("{status} }"), "unbalanced `}` at byte 9; write `}}` for a brace");
        assert_eq!(error("{request_header.a b}"), "`a b` is not a header name");
        assert_eq!(error("{status}\n"), "control character '\\n' in a template");
        assert!(error("jsno").contains("(did you mean `json`?)"));
        assert!(error("").contains("shows no field"));
    }

    proptest! {
        #[test]
        fn compiling_never_panics(text: String) {
            let _ = text.parse::<Template>();
        }

        #[test]
        fn a_literal_comes_out_as_written(text in "[^\\p{Cc}]*") {
            let template = format!("{}{{tries}}", text.replace('{', "{{").replace('}', "}}"));
            prop_assert_eq!(plain(&template, &full()), format!("{text}2"));
        }
    }
}
