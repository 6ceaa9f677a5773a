//! What the configuration says of active health, and the means to ask.

use std::fmt;
use std::sync::{Arc, OnceLock};

use http::uri::Authority;

use super::{
    GrpcProbe, HealthCheck, HttpExpected, HttpProbe, HttpProbeRequest, Policy, ProbeConnector, TcpProbe,
};
use crate::tls::UpstreamTls;
use crate::types::Duration;
use crate::upstream::Protocol;

/// How the endpoints of an upstream are asked whether they are well, and what follows.
pub struct ActiveHealth {
    /// How often, and what follows.
    pub policy: Policy,
    /// What they are asked.
    pub question: Question,
    /// What tells this question from others: what is known of an endpoint is known under it.
    pub fingerprint: Box<str>,
}

/// What an endpoint is asked.
pub enum Question {
    /// For a connection, and nothing else.
    Tcp,
    /// By HTTP, with the trust and in the version of the upstream's requests.
    Http {
        /// What is sent.
        request: Box<HttpProbeRequest>,
        /// What must come back.
        expected: HttpExpected,
    },
    /// By gRPC's own health protocol.
    Grpc {
        /// The service that is asked for; an empty name is the server as a whole.
        service: Box<str>,
        /// The host that is asked for; the endpoint's address without one.
        host: Option<Authority>,
    },
    /// As code says that goes by this name.
    Custom(Box<str>, Arc<dyn HealthCheck>),
}

impl ActiveHealth {
    pub(in crate::upstream) fn probe(
        &self,
        probers: &Probers,
        tls: Option<&Arc<UpstreamTls>>,
        protocol: Protocol,
    ) -> Arc<dyn HealthCheck> {
        match &self.question {
            Question::Tcp => probers.tcp(),
            Question::Http { request, expected } => {
                let (request, expected) = (HttpProbeRequest::clone(request), expected.clone());
                Arc::new(HttpProbe::new(probers.connector(), tls.cloned(), protocol, request, expected))
            }
            Question::Grpc { service, host } => {
                Arc::new(GrpcProbe::new(probers.connector(), tls.cloned(), host.clone(), service))
            }
            Question::Custom(_, check) => Arc::clone(check),
        }
    }
}

/// In short: `http GET /healthz every 5s, within 2s`.
impl fmt::Display for ActiveHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |f: &mut fmt::Formatter<'_>, host: &Option<Authority>| match host {
            Some(host) => write!(f, " at {host}"),
            None => Ok(()),
        };
        match &self.question {
            Question::Tcp => f.write_str("tcp")?,
            Question::Http { request, .. } => {
                write!(f, "http {} {}", request.method, request.path)?;
                at(f, &request.host)?;
            }
            Question::Grpc { service, host } => {
                f.write_str("grpc")?;
                if !service.is_empty() {
                    write!(f, " {service}")?;
                }
                at(f, host)?;
            }
            Question::Custom(name, _) => write!(f, "custom {name}")?,
        }
        let Policy { interval, timeout, .. } = self.policy;
        write!(f, " every {}, within {}", Duration::from(interval), Duration::from(timeout))
    }
}

impl PartialEq for ActiveHealth {
    fn eq(&self, other: &Self) -> bool {
        self.policy == other.policy && self.fingerprint == other.fingerprint
    }
}

impl fmt::Debug for ActiveHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveHealth").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// What all probes share, made when it is needed first: each part reads the system's authorities.
pub struct Probers {
    authorities: bool,
    connector: OnceLock<Arc<ProbeConnector>>,
    tcp: OnceLock<Arc<TcpProbe>>,
}

impl Probers {
    /// `authorities` is whether those of the system can be read: the engine gives up where it needs them in vain.
    pub fn new(authorities: bool) -> Self {
        Self { authorities, connector: OnceLock::new(), tcp: OnceLock::new() }
    }

    fn connector(&self) -> Arc<ProbeConnector> {
        let make =
            if self.authorities { ProbeConnector::default } else { ProbeConnector::without_authorities };
        Arc::clone(self.connector.get_or_init(|| Arc::new(make())))
    }

    fn tcp(&self) -> Arc<dyn HealthCheck> {
        if self.authorities {
            let tcp = self.tcp.get_or_init(Arc::default);
            return Arc::clone(tcp) as Arc<dyn HealthCheck>;
        }
        // The engine's check makes a connector of its own first of all.
        self.connector()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::Target;
    use super::*;

    #[tokio::test]
    async fn a_connection_is_enough_with_authorities_and_without() {
        crate::tls::install_provider();
        for authorities in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = Target { address: listener.local_addr().unwrap() };
            let probe = Probers::new(authorities).tcp();
            assert_eq!(probe.probe(&target).await, Ok(()));
            drop(listener);
            assert_eq!(probe.probe(&target).await.unwrap_err().code(), "connect");
        }
    }
}
