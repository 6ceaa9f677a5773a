//! The gateway inside Pingora's server: one service for the listeners, one for the operator.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::configuration::ServerConf;
use pingora::server::{ListenFds, RunArgs, Server, ShutdownWatch};
use pingora::services::Service;
use pingora_proxy::HttpProxy;

use super::frame::Frame;
use super::handover::Handover;
use super::life::{Commands, Life, Signals};
use super::sockets::Sockets;
use super::{Parts, Reloader, threads, watch};
use crate::admin::Admin;
use crate::config::Server as ServerWords;
use crate::edge::{Drain, Edge, ListenerMetrics};
use crate::proxy::Gateway;
use crate::snapshot::Live;

/// Everything put together, nothing accepted yet.
pub(super) struct Engine {
    pub(super) frame: Frame,
    pub(super) parts: Arc<Parts>,
    pub(super) live: Arc<Live>,
    pub(super) drain: Drain,
    pub(super) reloader: Arc<Reloader>,
    pub(super) commands: Commands,
    pub(super) admin: Option<Arc<Admin>>,
    pub(super) sockets: Sockets,
    /// The files that the configuration was read from.
    pub(super) seen: watch::Seen,
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

    /// Serves until it is ended.
    pub(super) fn serve(self, signals: Signals, handover: Option<Handover>) {
        let mut server = Server::new_with_opt_and_conf(None, engine_words(&self.frame.server));
        let mut proxy =
            HttpProxy::new(Gateway::new(Arc::clone(&self.live)), Arc::clone(&server.configuration));
        proxy.handle_init_modules();
        let proxy = Arc::new(proxy);

        let mut listeners = Vec::new();
        for (index, (name, address)) in self.sockets.addresses().into_iter().enumerate() {
            let bound = self.sockets.listener(index);
            let metrics = ListenerMetrics::new(&self.parts.metrics, &name);
            match (bound, metrics) {
                (Ok(socket), Ok(metrics)) => {
                    log::info!("listener {name} on {address}");
                    let edge = Edge {
                        app: Arc::clone(&proxy),
                        listener: index,
                        live: Arc::clone(&self.live),
                        metrics: Arc::new(metrics),
                        drain: self.drain.clone(),
                    };
                    listeners.push((socket, Arc::new(edge)));
                }
                (bound, metrics) => {
                    log::error!("listener {name} cannot be used: {:?} {:?}", bound.err(), metrics.err());
                    return;
                }
            }
        }
        server.add_service(Front { listeners });
        if let (Some(admin), Ok(socket)) = (&self.admin, self.sockets.admin()) {
            server.add_service(Operator { admin: Arc::clone(admin), socket: Some(socket) });
        }
        let _watcher = watch::start(self.seen, &self.reloader);
        server.bootstrap();
        let life = Life {
            signals,
            commands: self.commands,
            drain: self.drain,
            reloader: self.reloader,
            live: self.live,
            sockets: self.sockets,
            handover: parking_lot::Mutex::new(handover),
            upgrade_socket: self.frame.server.upgrade_socket,
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

/// The listeners for clients.
struct Front {
    listeners: Vec<(TcpListener, Arc<Edge<HttpProxy<Gateway>>>)>,
}

#[async_trait]
impl Service for Front {
    async fn start_service(&mut self, _: Option<ListenFds>, mut shutdown: ShutdownWatch, _: usize) {
        let mut tasks = Vec::new();
        for (socket, edge) in self.listeners.drain(..) {
            match tokio::net::TcpListener::from_std(socket) {
                Ok(listener) => tasks.push(tokio::spawn(edge.listen(listener))),
                Err(error) => log::error!("a listener cannot be used: {error}"),
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
struct Operator {
    admin: Arc<Admin>,
    socket: Option<TcpListener>,
}

#[async_trait]
impl Service for Operator {
    async fn start_service(&mut self, _: Option<ListenFds>, shutdown: ShutdownWatch, _: usize) {
        let Some(socket) = self.socket.take() else { return };
        match tokio::net::TcpListener::from_std(socket) {
            Ok(listener) => Arc::clone(&self.admin).listen(listener, shutdown).await,
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
