//! Asks an endpoint for a connection, and nothing else.

use futures_util::future::BoxFuture;
use pingora::protocols::l4::socket::SocketAddr;
use pingora_load_balancing::health_check::{HealthCheck as _, TcpHealthCheck};
use pingora_load_balancing::{Backend, Extensions};

use super::{HealthCheck, ProbeError, Target};

/// Passes when a TCP connection can be made. It knows nothing of an upstream: one serves all, and should, for it holds the
/// engine's connector.
pub struct TcpProbe(TcpHealthCheck);

impl Default for TcpProbe {
    fn default() -> Self {
        let mut check = TcpHealthCheck::default();
        // Whoever asks has a clock.
        check.peer_template.options.connection_timeout = None;
        Self(check)
    }
}

impl HealthCheck for TcpProbe {
    fn probe<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), ProbeError>> {
        Box::pin(async move {
            let address = SocketAddr::Inet(target.address);
            let backend = Backend { addr: address, weight: 1, ext: Extensions::new() };
            self.0.check(&backend).await.map_err(|error| ProbeError::of_connecting(&error))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_enough() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { address: listener.local_addr().unwrap() };
        let probe = TcpProbe::default();
        assert_eq!(probe.probe(&target).await, Ok(()));
        drop(listener);
        let refused = probe.probe(&target).await.unwrap_err();
        assert_eq!(refused.code(), "connect");
        assert!(refused.to_string().contains("refused"), "{refused}");
    }
}
