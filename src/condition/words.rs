//! What there is to know of an exchange, by name, and of what kind it is.

use std::fmt;

/// The kind of a value, as far as it is known when an expression is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    List(Box<Kind>),
    Map(View),
    Part(Part),
    /// Known when it is looked at.
    Any,
}

impl Kind {
    pub(super) fn list(of: Self) -> Self {
        Self::List(Box::new(of))
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double | Self::Any)
    }

    /// Whether a value of one kind may be a value of the other.
    pub(super) fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::List(one), Self::List(other)) => one.meets(other),
            _ => self == other || self.is_number() && other.is_number(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("true or false"),
            Self::Int => f.write_str("an int"),
            Self::Uint => f.write_str("a uint"),
            Self::Double => f.write_str("a double"),
            Self::Text => f.write_str("a string"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(view) => write!(f, "the map `{}`", view.name()),
            Self::Part(part) => write!(f, "`{}`", part.name()),
            Self::Any => f.write_str("any value"),
        }
    }
}

/// A map that is looked into where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Headers,
    Query,
    Cookies,
    Parameters,
    Claims,
    ResponseHeaders,
}

impl View {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Headers => "request.headers",
            Self::Query => "request.query",
            Self::Cookies => "request.cookies",
            Self::Parameters => "request.path_params",
            Self::Claims => "claims",
            Self::ResponseHeaders => "response.headers",
        }
    }

    /// The kind of its values.
    pub(super) fn of(self) -> Kind {
        if self == Self::Claims { Kind::Any } else { Kind::Text }
    }

    /// Whether its keys are names of header fields.
    pub(super) fn of_fields(self) -> bool {
        matches!(self, Self::Headers | Self::ResponseHeaders)
    }
}

/// A part of what is known, with fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Request,
    Client,
    Tls,
    Certificate,
    Consumer,
    Route,
    Response,
}

/// A single thing that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    Method,
    Path,
    Host,
    Scheme,
    Protocol,
    Size,
    Ip,
    TlsVersion,
    Sni,
    Subject,
    Sans,
    Fingerprint,
    ConsumerName,
    Anonymous,
    Groups,
    RouteName,
    Status,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Text(Fact),
    Bool(Fact),
    Int(Fact),
    /// A whole number that may be missing.
    MaybeInt(Fact),
    Texts(Fact),
    Map(View),
    Part(Part),
}

/// Names that stand by themselves.
pub(super) const VARIABLES: [(&str, Word); 6] = [
    ("request", Word::Part(Part::Request)),
    ("client", Word::Part(Part::Client)),
    ("consumer", Word::Part(Part::Consumer)),
    ("claims", Word::Map(View::Claims)),
    ("route", Word::Part(Part::Route)),
    ("response", Word::Part(Part::Response)),
];

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Client => "client",
            Self::Tls => "client.tls",
            Self::Certificate => "client.tls.certificate",
            Self::Consumer => "consumer",
            Self::Route => "route",
            Self::Response => "response",
        }
    }

    /// Whether it may be missing as a whole.
    pub(super) fn may_be_null(self) -> bool {
        matches!(self, Self::Tls | Self::Certificate | Self::Consumer)
    }

    pub(super) fn fields(self) -> &'static [(&'static str, Word)] {
        match self {
            Self::Request => &[
                ("method", Word::Text(Fact::Method)),
                ("path", Word::Text(Fact::Path)),
                ("host", Word::Text(Fact::Host)),
                ("scheme", Word::Text(Fact::Scheme)),
                ("protocol", Word::Text(Fact::Protocol)),
                ("size", Word::MaybeInt(Fact::Size)),
                ("query", Word::Map(View::Query)),
                ("headers", Word::Map(View::Headers)),
                ("cookies", Word::Map(View::Cookies)),
                ("path_params", Word::Map(View::Parameters)),
            ],
            Self::Client => &[("ip", Word::Text(Fact::Ip)), ("tls", Word::Part(Self::Tls))],
            Self::Tls => &[
                ("version", Word::Text(Fact::TlsVersion)),
                ("sni", Word::Text(Fact::Sni)),
                ("certificate", Word::Part(Self::Certificate)),
            ],
            Self::Certificate => &[
                ("subject", Word::Text(Fact::Subject)),
                ("sans", Word::Texts(Fact::Sans)),
                ("fingerprint", Word::Text(Fact::Fingerprint)),
            ],
            Self::Consumer => &[
                ("name", Word::Text(Fact::ConsumerName)),
                ("groups", Word::Texts(Fact::Groups)),
                ("anonymous", Word::Bool(Fact::Anonymous)),
            ],
            Self::Route => &[("name", Word::Text(Fact::RouteName))],
            Self::Response => {
                &[("status", Word::Int(Fact::Status)), ("headers", Word::Map(View::ResponseHeaders))]
            }
        }
    }
}
