//! `text/*`, `application/*+json`: which media types a rule is for.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A set of media types: one (`text/css`), all of a kind (`text/*`), or those with a structured syntax
/// (`application/*+json`). Parameters and case do not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MediaRange {
    kind: Box<str>,
    subtype: Subtype,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subtype {
    Any,
    Is(Box<str>),
    /// With its `+`.
    EndsWith(Box<str>),
}

impl MediaRange {
    /// Whether a `Content-Type` is in this set.
    pub fn contains(&self, content_type: &str) -> bool {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let Some((kind, subtype)) = essence.split_once('/') else { return false };
        kind.eq_ignore_ascii_case(&self.kind)
            && match &self.subtype {
                Subtype::Any => !subtype.is_empty(),
                Subtype::Is(same) => subtype.eq_ignore_ascii_case(same),
                Subtype::EndsWith(suffix) => {
                    let split = subtype.len().checked_sub(suffix.len()).filter(|at| *at > 0);
                    let end = split.and_then(|at| subtype.get(at..));
                    end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
                }
            }
    }
}

impl FromStr for MediaRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is not a media type: write it like `text/css`, `text/*` or `application/*+json`"
            )
        };
        let (kind, subtype) = text.split_once('/').filter(|(kind, _)| is_token(kind)).ok_or_else(bad)?;
        let subtype = match subtype.strip_prefix('*') {
            Some("") => Subtype::Any,
            Some(suffix) if suffix.strip_prefix('+').is_some_and(is_token) => {
                Subtype::EndsWith(suffix.into())
            }
            None if is_token(subtype) => Subtype::Is(subtype.into()),
            _ => return Err(bad()),
        };
        Ok(Self { kind: kind.into(), subtype })
    }
}

/// The characters of a registered name (RFC 6838, section 4.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
}

impl TryFrom<String> for MediaRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MediaRange> for String {
    fn from(range: MediaRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for MediaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subtype {
            Subtype::Any => write!(f, "{}/*", self.kind),
            Subtype::Is(subtype) => write!(f, "{}/{subtype}", self.kind),
            Subtype::EndsWith(suffix) => write!(f, "{}/*{suffix}", self.kind),
        }
    }
}

impl JsonSchema for MediaRange {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MediaRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Media types: `text/css`, `text/*`, `application/*+json`.",
            "pattern": r"^[A-Za-z0-9!#$&^_.+-]+/(\*(\+[A-Za-z0-9!#$&^_.+-]+)?|[A-Za-z0-9!#$&^_.+-]+)$",
            "examples": ["text/*", "application/*+json"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_what_it_names() {
        for (range, inside, outside) in [
            (
                "text/css",
                vec!["text/css", "TEXT/CSS; charset=utf-8", " text/css ;a=b"],
                vec!["text/cs", "text/css+x"],
            ),
            (
                "text/*",
                vec!["text/html", "Text/x"],
                vec!["text/", "text", "", "application/text", "textual/x"],
            ),
            (
                "application/*+json",
                vec!["application/ld+json", "application/a+JSON;q"],
                vec!["application/json", "application/+json", "text/a+json", "application/json+é"],
            ),
        ] {
            let parsed: MediaRange = range.parse().unwrap();
            assert_eq!(parsed.to_string(), range);
            inside.iter().for_each(|kind| assert!(parsed.contains(kind), "{kind} in {range}"));
            outside.iter().for_each(|kind| assert!(!parsed.contains(kind), "{kind} not in {range}"));
        }
    }

    #[test]
    fn refuses_what_is_no_range() {
        for text in
            ["", "text", "*/*", "*", "text/", "/css", "text/*json", "text/*+", "te xt/css", "text/css;q=1"]
        {
            assert!(text.parse::<MediaRange>().is_err(), "{text}");
        }
    }
}
