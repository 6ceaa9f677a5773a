//! The certificate that every proxy shows: ECDSA on P-256, made anew for each run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};

use super::Result;

/// Both in PEM.
pub struct Certificate {
    pub certificate: String,
    pub key: String,
}

/// Where they lie for one proxy.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// One after the other, as HAProxy reads them.
    pub both: PathBuf,
}

impl Certificate {
    pub fn create() -> Result<Self> {
        let mut params = CertificateParams::new(vec!["bench.test".into()])?;
        params.distinguished_name.push(DnType::CommonName, "bench.test");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// Into a folder of their own: Portcullis watches the one that its certificate lies in, and a log is written in the one
    /// above.
    pub fn write(&self, directory: &Path) -> io::Result<Files> {
        let directory = directory.join("tls");
        fs::create_dir(&directory)?;
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).map(|()| path)
        };
        Ok(Files {
            certificate: file("certificate.pem", &self.certificate)?,
            key: file("key.pem", &self.key)?,
            both: file("both.pem", &format!("{}{}", self.certificate, self.key))?,
        })
    }
}
