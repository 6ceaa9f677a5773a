//! `acme:`, authorities that issue certificates by themselves.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::SecretSource;

/// An authority that issues certificates by itself (RFC 8555).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// The URL of its directory, as `https://acme-v02.api.letsencrypt.org/directory`. Naming it is to agree to its
    /// terms of service.
    #[schemars(regex(pattern = "^https://"))]
    pub directory: String,
    /// Whom it may write to when something is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Where the account, certificates and keys are kept.
    pub store: AcmeStore,
    /// How hosts are proved: `tls_alpn` in the handshake, on port 443, or `http` on port 80. By either, unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<AcmeChallenge>,
    /// The PEM file of the authorities that may have issued the directory's own certificate, where it is not one that
    /// the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// An account that was made elsewhere, where the authority asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_account: Option<ExternalAccount>,
}

/// Where the account, certificates and keys are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AcmeStore {
    /// A folder, which is made for the gateway's user alone. Several gateways on one machine may share it.
    File(PathBuf),
    /// The name of a store under `stores`: many machines may share it, and answer for each other's proofs.
    Redis(String),
}

impl Serialize for AcmeStore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(folder) => serializer.collect_map([("file", folder)]),
            Self::Redis(name) => serializer.collect_map([("redis", name)]),
        }
    }
}

/// How hosts are proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AcmeChallenge {
    /// HTTP-01: the authority asks on port 80.
    Http,
    /// TLS-ALPN-01: the authority asks on port 443.
    TlsAlpn,
}

/// An account that was made elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccount {
    /// Which account.
    pub key_id: String,
    /// The secret that goes with it, as the authority shows it (base64url).
    pub hmac_key: SecretSource,
}
