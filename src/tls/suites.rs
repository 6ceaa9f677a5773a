//! Versions and cipher suites, by the names that IANA gave them.

use rustls::crypto::aws_lc_rs::cipher_suite as aws;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion};

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl Version {
    /// The number: `1.3`.
    pub fn number(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }

    /// The name in logs and headers: `TLSv1.3`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }

    pub(super) fn negotiated(version: ProtocolVersion) -> Option<Self> {
        match version {
            ProtocolVersion::TLSv1_2 => Some(Self::Tls12),
            ProtocolVersion::TLSv1_3 => Some(Self::Tls13),
            _ => None,
        }
    }

    pub(super) fn supported(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::Tls12 => &TLS12,
            Self::Tls13 => &TLS13,
        }
    }
}

/// Every suite that can be spoken, with its name; those of TLS 1.3 first. All have forward secrecy and an AEAD.
const ALL: [(&str, SupportedCipherSuite); 9] = [
    ("TLS_AES_128_GCM_SHA256", aws::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", aws::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", aws::TLS13_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", aws::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", aws::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", aws::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", aws::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", aws::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", aws::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// The suites that are spoken, the client's favourite among them first.
#[derive(Debug, Clone, PartialEq)]
pub struct Suites(Vec<SupportedCipherSuite>);

impl Suites {
    /// Mozilla's `modern`: TLS 1.3 alone.
    pub fn modern() -> Self {
        Self(ALL.iter().map(|(_, suite)| *suite).filter(|suite| version(*suite) == Version::Tls13).collect())
    }

    /// Mozilla's `intermediate`, without finite-field Diffie-Hellman: TLS 1.2 and 1.3.
    pub fn intermediate() -> Self {
        Self(ALL.iter().map(|(_, suite)| *suite).collect())
    }

    /// The suites of these names, in their order.
    ///
    /// # Errors
    ///
    /// The place of the first name that is not known.
    pub fn named<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, usize> {
        let known = |name: &str| ALL.iter().find(|(known, _)| *known == name).map(|(_, suite)| *suite);
        let suites = names.into_iter().enumerate().map(|(at, name)| known(name).ok_or(at));
        suites.collect::<Result<_, _>>().map(Self)
    }

    /// The names that there are.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ALL.iter().map(|(name, _)| *name)
    }

    /// Whether there is a suite for a version.
    pub fn speaks(&self, wanted: Version) -> bool {
        self.0.iter().any(|suite| version(*suite) == wanted)
    }

    /// Those that are spoken in one of these versions.
    pub(super) fn of(&self, versions: &[Version]) -> Vec<SupportedCipherSuite> {
        self.0.iter().copied().filter(|suite| versions.contains(&version(*suite))).collect()
    }
}

fn version(suite: SupportedCipherSuite) -> Version {
    if suite.tls13().is_some() { Version::Tls13 } else { Version::Tls12 }
}

/// The name of a suite.
pub(super) fn name(suite: SupportedCipherSuite) -> &'static str {
    ALL.iter().find(|(_, known)| known.suite() == suite.suite()).map_or("unknown", |(name, _)| name)
}

/// Whether a key, of RSA or of another kind, can sign for a suite. TLS 1.2 names the kind in the suite, 1.3 does not.
pub(super) fn is_signed_by(suite: CipherSuite, rsa: bool) -> bool {
    let signs =
        |name: &str, known: SupportedCipherSuite| known.tls13().is_some() || name.contains("_RSA_") == rsa;
    ALL.iter().any(|(name, known)| known.suite() == suite && signs(name, *known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_what_they_say() {
        assert!(Suites::modern().speaks(Version::Tls13) && !Suites::modern().speaks(Version::Tls12));
        assert!(Suites::intermediate().speaks(Version::Tls12));
        assert_eq!(Suites::named(Suites::names()), Ok(Suites::intermediate()));
        assert_eq!(Suites::named(["TLS_AES_128_GCM_SHA256", "RC4"]), Err(1));
    }

    #[test]
    fn every_suite_of_the_library_has_a_name() {
        for suite in rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES {
            assert_ne!(name(*suite), "unknown", "{suite:?}");
        }
    }
}
