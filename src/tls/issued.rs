//! A certificate that comes, and is renewed, while the gateway runs.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::certificate::Certificate;

/// The place of a certificate for some hosts; empty until there is one. Handshakes see a new one at once.
#[derive(Debug)]
pub struct Issued {
    hosts: Box<[Box<str>]>,
    certificate: ArcSwapOption<Certificate>,
}

impl Issued {
    /// An empty place for these hosts, in lower case.
    pub fn new(hosts: Box<[Box<str>]>) -> Self {
        Self { hosts, certificate: ArcSwapOption::empty() }
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Box<str>] {
        &self.hosts
    }

    /// The certificate, once there is one.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.certificate.load_full()
    }

    /// Serves a certificate from the next handshake on.
    pub fn serve(&self, certificate: Arc<Certificate>) {
        self.certificate.store(Some(certificate));
    }
}
