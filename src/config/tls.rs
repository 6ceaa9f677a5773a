//! `listeners[].tls`, what is spoken with clients.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::Duration;

/// TLS with the clients of a listener.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificates, chosen by the host that a client asks for (SNI). The first is for those who ask for another, or
    /// none. Files are watched.
    pub certificates: Vec<CertificateSource>,
    /// The oldest version that is spoken: `"1.2"`, the default, or `"1.3"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// The cipher suites: `intermediate`, the default, `modern` (TLS 1.3 alone), or a list of names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ciphers: Option<Ciphers>,
    /// Certificates of clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// `Strict-Transport-Security` on every response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,
    /// What is different for some hosts: `api.example.com`, or `*.example.com` for all below. What is not said there
    /// is the listener's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, HostTls>,
}

/// Where a certificate comes from: from files, or from an authority by ACME.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SourceWords", into = "SourceWords")]
pub enum CertificateSource {
    /// `{ cert: FILE, key: FILE }`
    Files {
        /// The PEM file of the certificate, and after it those that lead to an authority.
        cert: PathBuf,
        /// The PEM file of its private key, not encrypted.
        key: PathBuf,
    },
    /// `{ acme: NAME, hosts: [HOST] }`
    Acme {
        /// The name of the authority, under `acme`.
        acme: String,
        /// The hosts that it is for.
        hosts: Vec<String>,
    },
}

/// The words of a [`CertificateSource`], in any combination.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SourceWords {
    #[serde(skip_serializing_if = "Option::is_none")]
    cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hosts: Option<Vec<String>>,
}

impl TryFrom<SourceWords> for CertificateSource {
    type Error = &'static str;

    fn try_from(words: SourceWords) -> Result<Self, Self::Error> {
        match words {
            SourceWords { cert: Some(cert), key: Some(key), acme: None, hosts: None } => {
                Ok(Self::Files { cert, key })
            }
            SourceWords { cert: None, key: None, acme: Some(acme), hosts: Some(hosts) } => {
                Ok(Self::Acme { acme, hosts })
            }
            SourceWords { cert: Some(_), key: None, acme: None, hosts: None } => Err("missing key `key`"),
            SourceWords { cert: None, key: Some(_), acme: None, hosts: None } => Err("missing key `cert`"),
            SourceWords { cert: None, key: None, acme: Some(_), hosts: None } => Err("missing key `hosts`"),
            _ => Err("a certificate is `{ cert: FILE, key: FILE }` or `{ acme: NAME, hosts: [HOST] }`"),
        }
    }
}

impl From<CertificateSource> for SourceWords {
    fn from(source: CertificateSource) -> Self {
        match source {
            CertificateSource::Files { cert, key } => {
                Self { cert: Some(cert), key: Some(key), ..Self::default() }
            }
            CertificateSource::Acme { acme, hosts } => {
                Self { acme: Some(acme), hosts: Some(hosts), ..Self::default() }
            }
        }
    }
}

impl JsonSchema for CertificateSource {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CertificateSource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Where a certificate comes from: `{ cert: FILE, key: FILE }`, or `{ acme: NAME, hosts: [HOST] }`.",
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "cert": {
                            "type": "string",
                            "description": "The PEM file of the certificate, and after it those that lead to an authority.",
                        },
                        "key": {
                            "type": "string",
                            "description": "The PEM file of its private key, not encrypted.",
                        },
                    },
                    "required": ["cert", "key"],
                    "additionalProperties": false,
                },
                {
                    "type": "object",
                    "properties": {
                        "acme": { "type": "string", "description": "The name of an authority under `acme`." },
                        "hosts": {
                            "type": "array",
                            "items": { "type": "string" },
                            "minItems": 1,
                            "description": "The hosts that it is for.",
                        },
                    },
                    "required": ["acme", "hosts"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The PEM file of the certificate, and after it those that lead to an authority.
    pub cert: PathBuf,
    /// The PEM file of its private key, not encrypted.
    pub key: PathBuf,
}

/// What is different for a host.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HostTls {
    /// The oldest version that is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// The cipher suites.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ciphers: Option<Ciphers>,
    /// Certificates of clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuth {
    /// The PEM file of the authorities that may issue them. It is watched.
    pub ca: PathBuf,
    /// Whether a client must have one.
    #[serde(default)]
    pub mode: ClientAuthMode,
}

/// Whether a client must have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMode {
    /// A client may have none; one that it shows must be good.
    Optional,
    /// A client without one is turned away in the handshake.
    #[default]
    Require,
}

/// `Strict-Transport-Security` (RFC 6797).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hsts {
    /// How long browsers are to come with TLS only.
    pub max_age: Duration,
    /// Whether that holds for all hosts below, too.
    #[serde(default)]
    pub include_subdomains: bool,
    /// Whether browsers may be built with the host in their list. Takes a `max_age` of a year, and subdomains.
    #[serde(default)]
    pub preload: bool,
}

/// `redirect_to_https`, on a listener without TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedirectToHttps {
    /// The port of the listener with TLS, as clients see it.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// 301, 302, 307 or 308. With 307 and 308 the method and body stay.
    #[schemars(extend("enum" = [301, 302, 307, 308]))]
    pub status: u16,
}

impl Default for RedirectToHttps {
    fn default() -> Self {
        Self { port: 443, status: 308 }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum TlsVersion {
    /// `"1.2"`
    Tls12,
    /// `"1.3"`
    Tls13,
}

impl TryFrom<String> for TlsVersion {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            _ => Err(format!("`{text}` is not a version of TLS that is spoken: `\"1.2\"` or `\"1.3\"`")),
        }
    }
}

impl From<TlsVersion> for &'static str {
    fn from(version: TlsVersion) -> Self {
        match version {
            TlsVersion::Tls12 => "1.2",
            TlsVersion::Tls13 => "1.3",
        }
    }
}

impl JsonSchema for TlsVersion {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TlsVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "A version of TLS.", "enum": ["1.2", "1.3", 1.2, 1.3] })
    }
}

/// Cipher suites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ciphers {
    /// Mozilla's `modern`: TLS 1.3 alone.
    Modern,
    /// Mozilla's `intermediate`: TLS 1.2 and 1.3.
    Intermediate,
    /// These, by their IANA names.
    Named(Vec<String>),
}

impl Serialize for Ciphers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Modern => serializer.serialize_str("modern"),
            Self::Intermediate => serializer.serialize_str("intermediate"),
            Self::Named(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Ciphers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(CiphersForm)
    }
}

struct CiphersForm;

impl<'de> Visitor<'de> for CiphersForm {
    type Value = Ciphers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`modern`, `intermediate` or a list of cipher suites")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Ciphers, E> {
        match word {
            "modern" => Ok(Ciphers::Modern),
            "intermediate" => Ok(Ciphers::Intermediate),
            _ => Err(E::custom(format!(
                "`{word}` is not a set of cipher suites: `modern`, `intermediate` or a list of names"
            ))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Ciphers, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = list.next_element()? {
            names.push(name);
        }
        Ok(Ciphers::Named(names))
    }
}

impl JsonSchema for Ciphers {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ciphers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`modern`, `intermediate`, or a list of cipher suites by their IANA names.",
            "anyOf": [
                { "enum": ["modern", "intermediate"] },
                { "type": "array", "items": { "type": "string" }, "minItems": 1 },
            ],
        })
    }
}
