//! Reading PEM files.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The most that a file of certificates or a key may have.
const MOST: u64 = 4 << 20;

/// Why a file, or what is in it, cannot be used; for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<&'static str>,
}

impl Unusable {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The certificates in a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    certificates_in(&read(path)?, path)
}

/// The certificates in a text, at least one; `path` is where it is from.
pub(super) fn certificates_in(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let shown = path.display();
    let found = found.map_err(|error| Unusable::new(format!("`{shown}` is not PEM: {error}")))?;
    if !found.is_empty() {
        return Ok(found);
    }
    let nothing = Unusable::new(format!("there is no certificate in `{shown}`"));
    Err(match has(text, b"PRIVATE KEY-----") {
        true => nothing.hint("there is a private key in it: are `cert` and `key` swapped?"),
        false => nothing.hint("a PEM file has `-----BEGIN CERTIFICATE-----` in it"),
    })
}

/// The private key in a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Unusable> {
    private_key_in(&read(path)?, path)
}

/// The private key in a text; `path` is where it is from.
pub(super) fn private_key_in(text: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, Unusable> {
    let shown = path.display();
    if has(text, b"ENCRYPTED PRIVATE KEY-----") || has(text, b"Proc-Type: 4,ENCRYPTED") {
        return Err(Unusable::new(format!("the key in `{shown}` is encrypted")).hint(
            "decrypt it, as with `openssl pkey -in KEY -out PLAIN`, and let nobody else read the file",
        ));
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|_| {
        let nothing = Unusable::new(format!("there is no private key in `{shown}`"));
        match has(text, b"BEGIN CERTIFICATE-----") {
            true => nothing.hint("there is a certificate in it: are `cert` and `key` swapped?"),
            false => nothing.hint("a PEM file has `-----BEGIN PRIVATE KEY-----` in it"),
        }
    })
}

/// The text of a file with the certificates of authorities.
///
/// # Errors
///
/// When there is none in the file, or one that cannot be an authority's.
pub fn authorities_text(path: &Path) -> Result<Vec<u8>, Unusable> {
    let text = read(path)?;
    let mut roots = RootCertStore::empty();
    for (at, certificate) in certificates_in(&text, path)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            Unusable::new(format!("certificate {} in `{}` cannot be used: {error}", at + 1, path.display()))
        })?;
    }
    Ok(text)
}

/// A regular file: whoever names another is mistaken.
fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    let read = || {
        let data = fs::metadata(path)?;
        if !data.is_file() || data.len() > MOST {
            return Err(io::Error::other("it is not a file of at most 4 MiB"));
        }
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| {
        let unread = Unusable::new(format!("cannot read `{}`: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::NotFound if path.is_relative() => {
                unread.hint("the path is taken from the directory that the gateway was started in")
            }
            _ => unread,
        }
    })
}

fn has(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}
