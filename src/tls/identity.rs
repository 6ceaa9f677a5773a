//! Who a certificate stands for, as text.
//!
//! All text made here is printable ASCII, whatever an authority signed: it can be a header's value and a word in a
//! log line as it is. What is longer than [`LONGEST`] is left out, for part of a name is another name.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

use super::certificate::time;

/// The longest subject, and the longest list of alternative names, that is told.
const LONGEST: usize = 4096;

/// A client's certificate that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject (RFC 4514): `CN=billing,O=Example`. Empty when it has none.
    pub subject: Box<str>,
    /// The subject's alternative names: `DNS:a.example.com,URI:spiffe://example.com/a`. Empty when it has none.
    pub sans: Box<str>,
    /// The SHA-256 of the certificate in lower case hexadecimal.
    pub fingerprint: Box<str>,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

impl ClientCertificate {
    /// Reads a certificate that was verified before. `None` when it has no form that is known here.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let sans: Vec<String> = names.filter_map(alternative_name).collect();
        Some(Self {
            subject: bounded(distinguished_name(parsed.subject())),
            sans: bounded(sans.join(",")),
            fingerprint: fingerprint(certificate).into(),
            not_after: time(parsed.validity().not_after.timestamp()),
        })
    }
}

fn bounded(text: String) -> Box<str> {
    if text.len() > LONGEST { Box::default() } else { text.into() }
}

/// A name in the text form of RFC 4514: the most specific part first, what is special or not ASCII escaped.
pub(super) fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| {
            let attributes = part.iter().map(|attribute| {
                let kind = attribute.attr_type();
                let kind =
                    oid2abbrev(kind, oid_registry()).map_or_else(|_| kind.to_id_string(), str::to_owned);
                format!("{kind}={}", escaped(attribute.as_slice()))
            });
            attributes.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// The value of an attribute (RFC 4514, section 2.4).
fn escaped(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for (at, byte) in value.iter().enumerate() {
        let edge = at == 0 || at + 1 == value.len();
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b' ' if edge => text.push_str("\\ "),
            b'#' if at == 0 => text.push_str("\\#"),
            b' '..=b'~' => text.push(char::from(*byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(text, "\\{byte:02x}")),
        }
    }
    text
}

/// An alternative name with its kind; `None` for the kinds that have no text.
pub(super) fn alternative_name(name: &GeneralName<'_>) -> Option<String> {
    Some(match name {
        GeneralName::DNSName(name) => format!("DNS:{}", plain(name)),
        GeneralName::URI(name) => format!("URI:{}", plain(name)),
        GeneralName::RFC822Name(name) => format!("email:{}", plain(name)),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(v4), _) => format!("IP:{}", Ipv4Addr::from(v4)),
            (_, Ok(v6)) => format!("IP:{}", Ipv6Addr::from(v6)),
            _ => return None,
        },
        _ => return None,
    })
}

/// Text in which a comma is nothing but the end of a name.
fn plain(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut plain, byte| {
        match byte {
            b'%' | b',' | ..=b' ' | 0x7f.. => drop(write!(plain, "%{byte:02X}")),
            byte => plain.push(char::from(byte)),
        }
        plain
    })
}

pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(digest(&SHA256, certificate).as_ref())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_printable_ascii() {
        assert_eq!(escaped("a,b=Zürich\n ".as_bytes()), "a\\,b\\=Z\\c3\\bcrich\\0a\\ ");
        assert_eq!(escaped(b"#1"), "\\#1");
        assert_eq!(plain("a, b%é\r\n"), "a%2C%20b%25%C3%A9%0D%0A");
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        assert_eq!(&*bounded("a".repeat(LONGEST)), "a".repeat(LONGEST));
        assert_eq!(&*bounded("a".repeat(LONGEST + 1)), "");
    }
}
