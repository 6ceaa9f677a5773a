//! Why a handshake came to nothing.

use std::io;

use rustls::{Error, PeerIncompatible};

/// Why a handshake came to nothing. Each has one word, which is its label in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It took too long.
    Timeout,
    /// The client left.
    ClientGone,
    /// What came is not TLS.
    NotTls,
    /// What came is HTTP in the clear.
    PlainHttp,
    /// The client speaks no version that is spoken here.
    NoSharedVersion,
    /// The client knows no suite, group or signature that is known here.
    NoSharedCipher,
    /// The client and the listener have no protocol in common (ALPN).
    NoSharedProtocol,
    /// The certificate for the host has not been issued yet, and there is no other.
    NoCertificate,
    /// A client certificate is required, and there was none.
    NoClientCertificate,
    /// The client's certificate is not valid, or not from who may issue it.
    BadClientCertificate,
    /// The client said that it does not go on; often it does not believe our certificate.
    RefusedByClient,
    /// The client broke the rules.
    BadHandshake,
}

impl Failure {
    /// The word for it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::ClientGone => "client_gone",
            Self::NotTls => "not_tls",
            Self::PlainHttp => "plain_http",
            Self::NoSharedVersion => "no_shared_version",
            Self::NoSharedCipher => "no_shared_cipher",
            Self::NoSharedProtocol => "no_shared_protocol",
            Self::NoCertificate => "no_certificate",
            Self::NoClientCertificate => "no_client_certificate",
            Self::BadClientCertificate => "bad_client_certificate",
            Self::RefusedByClient => "refused_by_client",
            Self::BadHandshake => "bad_handshake",
        }
    }

    /// The failure behind an error of the stream.
    pub fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
            None => Self::ClientGone,
            Some(Error::NoApplicationProtocol) => Self::NoSharedProtocol,
            Some(Error::NoCertificatesPresented) => Self::NoClientCertificate,
            Some(Error::InvalidCertificate(_)) => Self::BadClientCertificate,
            Some(Error::AlertReceived(_)) => Self::RefusedByClient,
            Some(Error::PeerIncompatible(peer)) => of_incompatible(peer),
            Some(_) => Self::BadHandshake,
        }
    }
}

fn of_incompatible(peer: &PeerIncompatible) -> Failure {
    match peer {
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::ServerDoesNotSupportTls12Or13 => Failure::NoSharedVersion,
        PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon
        | PeerIncompatible::NoCipherSuitesInCommon
        | PeerIncompatible::NoEcPointFormatsInCommon
        | PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon => Failure::NoSharedCipher,
        _ => Failure::BadHandshake,
    }
}
