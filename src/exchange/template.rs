//! Text with holes for captured path parameters, `https://new.example.com/{rest}`, and in headers for what is known of
//! the connection: `{tls.client.subject}`.

use std::fmt;

use super::Exchange;
use crate::tls::Session;

/// Literal text with the names of path parameters in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Capture(Box<str>),
    Tls(TlsWord),
}

/// What a header may say of an encrypted connection. Empty where there is nothing to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TlsWord {
    Version,
    Cipher,
    Sni,
    ClientSubject,
    ClientSans,
    ClientFingerprint,
}

impl TlsWord {
    const ALL: [(&str, Self); 6] = [
        ("tls.version", Self::Version),
        ("tls.cipher", Self::Cipher),
        ("tls.sni", Self::Sni),
        ("tls.client.subject", Self::ClientSubject),
        ("tls.client.sans", Self::ClientSans),
        ("tls.client.fingerprint", Self::ClientFingerprint),
    ];

    fn of(self, session: &Session) -> &str {
        let client = session.client.as_ref();
        match self {
            Self::Version => session.version.name(),
            Self::Cipher => session.cipher,
            Self::Sni => session.sni.as_deref().unwrap_or_default(),
            Self::ClientSubject => client.map_or("", |client| &client.subject),
            Self::ClientSans => client.map_or("", |client| &client.sans),
            Self::ClientFingerprint => client.map_or("", |client| &client.fingerprint),
        }
    }
}

impl Template {
    /// Reads a template. `{{` and `}}` stand for the braces themselves.
    ///
    /// # Errors
    ///
    /// A sentence, when a brace is left open or a name is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let (name, after) = rest
                .split_once('}')
                .filter(|(name, _)| brace == "{" && !name.is_empty() && !name.contains('{'))
                .ok_or_else(|| {
                    // The text is not repeated: it may be a secret.
                    format!("there is a stray `{brace}`: write `{{name}}`, or `{brace}{brace}` for the brace")
                })?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Capture(name.into()));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self(parts))
    }

    /// Reads a template of a header's value, which may name what is known of the connection, too.
    ///
    /// # Errors
    ///
    /// As of [`Template::parse`]; and when it names what is not known of a connection.
    pub fn parse_header(text: &str) -> Result<Self, String> {
        let mut template = Self::parse(text)?;
        for part in &mut template.0 {
            if let Part::Capture(name) = part
                && name.starts_with("tls.")
            {
                let word = TlsWord::ALL.iter().find(|(known, _)| **known == **name).map(|(_, word)| *word);
                *part = Part::Tls(word.ok_or_else(|| {
                    let known = TlsWord::ALL.map(|(known, _)| known).join("`, `");
                    format!("`{name}` is not known of a connection: there is `{known}`")
                })?);
            }
        }
        Ok(template)
    }

    /// The names of the path parameters in it.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Capture(name) => Some(&**name),
            Part::Literal(_) | Part::Tls(_) => None,
        })
    }

    /// The text itself, when it has no holes.
    pub fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The text with its holes filled. Captures are canonical and still percent-encoded.
    pub fn fill(&self, exchange: &Exchange<'_>) -> String {
        self.0.iter().fold(String::new(), |text, part| {
            text + match part {
                Part::Literal(literal) => literal,
                Part::Capture(name) => exchange.capture(name).unwrap_or_default(),
                Part::Tls(word) => exchange.tls().map_or("", |tls| word.of(tls)),
            }
        })
    }
}

/// As it is written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Part::Capture(name) => write!(f, "{{{name}}}"),
            Part::Tls(word) => {
                let name = TlsWord::ALL.iter().find(|(_, known)| known == word).map_or("", |(name, _)| name);
                write!(f, "{{{name}}}")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_names_or_doubled() {
        let template = Template::parse("/a/{id}/{{x}}/{rest}").unwrap();
        assert_eq!(template.captures().collect::<Vec<_>>(), ["id", "rest"]);
        assert_eq!(template.to_string(), "/a/{id}/{{x}}/{rest}");
        assert_eq!(Template::parse("{{}}").unwrap().literal(), Some("{}"));
        for bad in ["{", "}", "{}", "a{b", "{a{b}}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_may_name_what_is_known_of_the_connection() {
        for (name, _) in TlsWord::ALL {
            let text = format!("a {{{name}}} {{id}}");
            let template = Template::parse_header(&text).unwrap();
            assert_eq!(template.captures().collect::<Vec<_>>(), ["id"]);
            assert_eq!(template.to_string(), text);
            assert_eq!(Template::parse(&text).unwrap().captures().count(), 2, "elsewhere it is a parameter");
        }
        assert!(Template::parse_header("{tls.client}").unwrap_err().contains("`tls.client.subject`"));
    }
}
