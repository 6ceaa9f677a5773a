//! `header:x-user`: what of a request a rule goes by.

use std::fmt;
use std::str::FromStr;

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Something of a request: where it comes from, where it goes, or what it says under a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Selector {
    /// The client's address, as trusted proxies tell it.
    Ip,
    /// The host asked for, in its canonical form.
    Host,
    /// The path asked for, in its canonical form.
    Path,
    /// The route's name.
    Route,
    /// The consumer that the client has proved to be.
    Consumer,
    /// The name that the client came with and has the password of.
    BasicUsername,
    /// A header field.
    Header(HeaderName),
    /// A parameter of the query; its name is decoded.
    Query(Box<str>),
    /// A field of the form that is the body; its name is decoded.
    Form(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
}

/// What may be written.
const KNOWN: &str = "`ip`, `host`, `path`, `route`, `consumer`, `basic:username`, `header:NAME`, `query:NAME` or \
                     `cookie:NAME`";
const PATTERN: &str = r"^(ip|host|path|route|consumer|basic:username|(header|query|cookie):.+)$";

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "ip" => Ok(Self::Ip),
            None if text == "host" => Ok(Self::Host),
            None if text == "path" => Ok(Self::Path),
            None if text == "route" => Ok(Self::Route),
            None if text == "consumer" => Ok(Self::Consumer),
            Some(("basic", "username")) => Ok(Self::BasicUsername),
            Some((kind @ ("header" | "query" | "cookie" | "form"), "")) => {
                Err(format!("`{kind}:` needs a name"))
            }
            Some(("header", name)) => HeaderName::try_from(name)
                .map(Self::Header)
                .map_err(|_| format!("`{name}` is not the name of a header field")),
            Some(("query", name)) => Ok(Self::Query(name.into())),
            Some(("form", name)) => Ok(Self::Form(name.into())),
            // A cookie's name is a token, as a field's is, but its case counts.
            Some(("cookie", name)) if HeaderName::try_from(name).is_ok() => Ok(Self::Cookie(name.into())),
            Some(("cookie", name)) => Err(format!("`{name}` is not the name of a cookie")),
            _ => Err(format!("`{text}` is nothing of a request: write {KNOWN}")),
        }
    }
}

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip => f.write_str("ip"),
            Self::Host => f.write_str("host"),
            Self::Path => f.write_str("path"),
            Self::Route => f.write_str("route"),
            Self::Consumer => f.write_str("consumer"),
            Self::BasicUsername => f.write_str("basic:username"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Form(name) => write!(f, "form:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

impl JsonSchema for Selector {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Selector".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Something of a request: `ip`, `host`, `path`, `route`, `consumer`, `basic:username`, `header:NAME`, `query:NAME`, `cookie:NAME`.",
            "pattern": PATTERN,
            "examples": ["ip", "header:x-user", "query:id", "cookie:session"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "ip",
            "host",
            "path",
            "route",
            "consumer",
            "basic:username",
            "header:x-user",
            "query:a b",
            "query:a:b",
            "form:a b",
            "cookie:Sid",
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
        assert_eq!("header:X-User".parse::<Selector>().unwrap().to_string(), "header:x-user");
    }

    #[test]
    fn refuses_what_is_nothing_of_a_request() {
        for text in [
            "",
            "Ip",
            "ip:1",
            "header",
            "header:",
            "header:a b",
            "query:",
            "cookie:",
            "cookie:a=b",
            "consumer:a",
            "basic:password",
            "form:",
            "jwt:sub",
        ] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
        assert!("user".parse::<Selector>().unwrap_err().contains("`cookie:NAME`"));
    }
}
