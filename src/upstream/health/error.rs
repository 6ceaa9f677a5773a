//! Why a probe failed.

use pingora::ErrorType;
use thiserror::Error;

/// Why a probe failed, in the words that operators are told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// No connection was made.
    #[error("cannot connect: {0}")]
    Connect(Box<str>),
    /// There was no whole answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The two sides did not come to speak TLS, or the endpoint is not who it must be.
    #[error("TLS failed: {0}")]
    Tls(Box<str>),
    /// The connection ended, or what came is not what the protocol allows.
    #[error("the exchange broke: {0}")]
    Protocol(Box<str>),
    /// An answer with another HTTP status.
    #[error("status {0} is not expected")]
    Status(u16),
    /// An answer without what its body must have.
    #[error("the body does not match")]
    Body,
    /// An answer with a gRPC status other than OK; 12 (unimplemented) means that there is no health service, 5 (not found)
    /// that the server does not know the service that was asked for.
    #[error("gRPC status {0}")]
    GrpcStatus(u32),
    /// The server says that it does not serve.
    #[error("the server says {0}")]
    NotServing(Serving),
    /// What a check made in code says.
    #[error("{0}")]
    Custom(Box<str>),
    /// The probe itself broke.
    #[error("the probe itself broke")]
    Broken,
}

/// What a gRPC server says of itself (`grpc.health.v1.HealthCheckResponse.ServingStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Serving {
    /// It serves.
    #[error("SERVING")]
    Serving,
    /// It does not serve.
    #[error("NOT_SERVING")]
    NotServing,
    /// It does not know the service.
    #[error("SERVICE_UNKNOWN")]
    ServiceUnknown,
    /// It does not say.
    #[error("UNKNOWN")]
    Unknown,
}

impl ProbeError {
    /// One word for it: a metric's label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout => "timeout",
            Self::Tls(_) => "tls",
            Self::Protocol(_) => "protocol",
            Self::Status(_) => "status",
            Self::Body => "body",
            Self::GrpcStatus(_) => "grpc_status",
            Self::NotServing(_) => "not_serving",
            Self::Custom(_) => "custom",
            Self::Broken => "broken",
        }
    }

    /// What the engine says when it could not connect.
    pub(super) fn of_connecting(error: &pingora::Error) -> Self {
        use ErrorType::{
            ConnectTimedout, HandshakeError, InvalidCert, TLSHandshakeFailure, TLSHandshakeTimedout,
            TLSWantX509Lookup,
        };
        match error.etype() {
            ConnectTimedout | TLSHandshakeTimedout => Self::Timeout,
            HandshakeError | InvalidCert | TLSHandshakeFailure | TLSWantX509Lookup => Self::Tls(cause(error)),
            _ => Self::Connect(cause(error)),
        }
    }

    /// What the engine says when an exchange broke.
    pub(super) fn of_exchange(error: &pingora::Error) -> Self {
        Self::Protocol(cause(error))
    }

    /// What an HTTP/2 exchange broke by.
    pub(super) fn of_http2(error: &h2::Error) -> Self {
        Self::Protocol(error.to_string().into())
    }
}

/// What lies at the bottom of an error of the engine, without the places it went through.
fn cause(error: &pingora::Error) -> Box<str> {
    let root = error.root_cause();
    if let Some(error) = root.downcast_ref::<std::io::Error>() {
        return error.to_string().into();
    }
    match root.downcast_ref::<pingora::Error>() {
        Some(own) => match &own.context {
            Some(context) => format!("{} {}", own.etype().as_str(), context.as_str()).into(),
            None => own.etype().as_str().into(),
        },
        None => root.to_string().into(),
    }
}
