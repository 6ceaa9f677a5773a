//! An authority to ask, as it is configured.

use std::path::PathBuf;

use instant_acme::ChallengeType;

use super::store::Store;

/// An authority to ask.
#[derive(Debug)]
pub struct Directory {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// Where it begins.
    pub url: Box<str>,
    /// Whom it writes to when something is wrong.
    pub email: Option<Box<str>>,
    /// How hosts are proved; by either, when nothing is said.
    pub challenge: Option<Challenge>,
    /// Who may have issued its own certificate; those whom the system trusts, when nothing is said.
    pub ca: Option<PathBuf>,
    /// Who is known to it already.
    pub external_account: Option<ExternalAccount>,
    /// Where account, certificates and keys are kept.
    pub store: Store,
}

/// How a host is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// HTTP-01, over plaintext HTTP.
    Http,
    /// TLS-ALPN-01, in the handshake.
    TlsAlpn,
}

/// An account that was made elsewhere (RFC 8555, section 7.3.4).
pub struct ExternalAccount {
    /// Which one.
    pub key_id: String,
    /// What proves it.
    pub hmac_key: Vec<u8>,
}

impl Directory {
    /// How to prove hosts, the favourite first. The handshake comes first: where there is TLS there is one.
    pub(super) fn challenges(&self) -> &'static [Challenge] {
        match self.challenge {
            None => &[Challenge::TlsAlpn, Challenge::Http],
            Some(Challenge::Http) => &[Challenge::Http],
            Some(Challenge::TlsAlpn) => &[Challenge::TlsAlpn],
        }
    }
}

impl Challenge {
    pub(super) fn kind(self) -> ChallengeType {
        match self {
            Self::Http => ChallengeType::Http01,
            Self::TlsAlpn => ChallengeType::TlsAlpn01,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
        }
    }
}

impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalAccount").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}
