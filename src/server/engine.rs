//! The gateway inside Pingora's server: one service for the listeners, one for the operator.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::configuration::ServerConf;
use pingora::server::{ListenFds, RunArgs, Server, ShutdownWatch};
use pingora::services::Service;
use pingora_proxy::HttpProxy;

use super::frame::Frame;
use super::handover::Predecessor;
use super::life::{Commands, Life};
use super::sockets::Sockets;
use super::upgrade_socket::UpgradeSocket;
use super::{Reloader, StartError, threads, watch};
use crate::admin::Admin;
use crate::config::Server as ServerWords;
use crate::edge::{Drain, Edge, ListenerMetrics};
use crate::proxy::Gateway;
use crate::snapshot::Live;
use crate::telemetry::Metrics;

/// Everything put together, nothing accepted yet.
pub(super) struct Engine {
    pub(super) frame: Frame,
    pub(super) live: Arc<Live>,
    pub(super) drain: Drain,
    pub(super) reloader: Arc<Reloader>,
    pub(super) commands: Commands,
    pub(super) doors: Vec<Door>,
    pub(super) operator: Option<Operator>,
    /// All listening sockets, to hand over.
    pub(super) sockets: Sockets,
    pub(super) upgrade_socket: Option<UpgradeSocket>,
    /// The files that the configuration was read from.
    pub(super) seen: watch::Seen,
}

/// A bound listener for clients.
pub(super) struct Door {
    name: String,
    socket: TcpListener,
    metrics: ListenerMetrics,
}

impl Door {
    /// One for each listener of the configuration, in its order.
    pub(super) fn all(sockets: &Sockets, metrics: &Metrics) -> Result<Vec<Self>, StartError> {
        let doors = sockets.listeners().map(|(name, socket)| {
            let metrics = ListenerMetrics::new(metrics, name);
            let metrics = metrics.map_err(|error| StartError::Bug(error.to_string()))?;
            Ok(Self { name: name.to_owned(), socket: socket?, metrics })
        });
        doors.collect()
    }
}

impl Engine {
    pub(super) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.sockets.addresses()
    }

    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        self.sockets.admin_address()
    }

    pub(super) fn commands(&self) -> Commands {
        self.commands.clone()
    }

    pub(super) fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }

    pub(super) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Serves until it is ended. An older process hears when this one is ready.
    pub(super) fn serve(self, predecessor: Option<Arc<Predecessor>>) {
        for (name, address) in self.addresses() {
            log::info!("listener {name} on {address}");
        }
        let mut server = Server::new_with_opt_and_conf(None, engine_words(&self.frame.server));
        let mut proxy =
            HttpProxy::new(Gateway::new(Arc::clone(&self.live)), Arc::clone(&server.configuration));
        proxy.handle_init_modules();
        let proxy = Arc::new(proxy);
        let listeners = self.doors.into_iter().enumerate().map(|(listener, door)| {
            let edge = Edge {
                app: Arc::clone(&proxy),
                listener,
                live: Arc::clone(&self.live),
                metrics: Arc::new(door.metrics),
                drain: self.drain.clone(),
            };
            (door.name, door.socket, Arc::new(edge))
        });
        server.add_service(Front { listeners: listeners.collect() });
        if let Some(operator) = self.operator {
            server.add_service(operator);
        }
        let watch = watch::start(self.seen, &self.reloader);
        server.bootstrap();
        let life = Life {
            commands: self.commands,
            drain: self.drain,
            reloader: self.reloader,
            watch: Mutex::new(watch),
            live: self.live,
            sockets: Mutex::new(Some(self.sockets)),
            predecessor,
            upgrade_socket: self.upgrade_socket,
        };
        server.run(RunArgs { shutdown_signal: Box::new(life) });
    }
}

/// Our words in the engine's. Its grace periods are zero: the end is waited for in `life`.
fn engine_words(words: &ServerWords) -> ServerConf {
    ServerConf {
        threads: threads(words.threads),
        work_stealing: words.work_stealing,
        upstream_keepalive_pool_size: words.upstream_keepalive,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    }
}

/// A wire front before the proxy.
type ProxyEdge = Edge<HttpProxy<Gateway>>;

/// The listeners for clients.
struct Front {
    listeners: Vec<(String, TcpListener, Arc<ProxyEdge>)>,
}

#[async_trait]
impl Service for Front {
    async fn start_service(&mut self, _: Option<ListenFds>, mut shutdown: ShutdownWatch, _: usize) {
        let mut tasks = Vec::new();
        for (name, socket, edge) in self.listeners.drain(..) {
            match tokio::net::TcpListener::from_std(socket) {
                Ok(listener) => tasks.push(tokio::spawn(edge.listen(listener))),
                Err(error) => log::error!("listener {name} cannot be used: {error}"),
            }
        }
        // The service lives as long as the server: its connections are counted elsewhere.
        let _ = shutdown.wait_for(|shutdown| *shutdown).await;
    }

    fn name(&self) -> &'static str {
        "front"
    }
}

/// The listener for the operator, on a thread of its own: it answers when the workers are busy.
pub(super) struct Operator {
    admin: Arc<Admin>,
    socket: Option<TcpListener>,
}

impl Operator {
    pub(super) fn new(admin: Arc<Admin>, socket: TcpListener) -> Self {
        Self { admin, socket: Some(socket) }
    }
}

#[async_trait]
impl Service for Operator {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        let Some(socket) = self.socket.take() else { return };
        match tokio::net::TcpListener::from_std(socket) {
            Ok(listener) => Arc::clone(&self.admin).listen(listener).await,
            Err(error) => log::error!("the admin listener cannot be used: {error}"),
        }
    }

    fn name(&self) -> &'static str {
        "operator"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}
