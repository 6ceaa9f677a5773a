//! The gateway inside Pingora's server: one service for the listeners, one for the operator.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::configuration::ServerConf;
use pingora::server::{ListenFds, RunArgs, Server, ShutdownWatch};
use pingora::services::Service;
use pingora_proxy::HttpProxy;
use prometheus::IntGauge;

use super::frame::Frame;
use super::life::{Audience, Commands, Life};
use super::pressure::PressureWatch;
use super::readiness::{Listeners, Readiness, Start, Word};
use super::sockets::{Bound, Sockets};
use super::upgrade_socket::UpgradeSocket;
use super::{Reloader, StartError, threads, watch};
use crate::admin::Admin;
use crate::config::Server as ServerWords;
use crate::edge::{Drain, Edge, ListenerMetrics, Shedding};
use crate::proxy::Gateway;
use crate::snapshot::Live;
use crate::telemetry::Metrics;
use crate::tls;
use crate::types::ListenAddress;
use crate::upstream::Changes;

/// A file without a certificate.
const NO_AUTHORITIES: &str = "/dev/null";

/// Everything put together, nothing accepted yet.
pub(super) struct Engine {
    pub(super) frame: Frame,
    pub(super) live: Arc<Live>,
    pub(super) drain: Drain,
    pub(super) changes: Changes,
    /// How much of request bodies is kept.
    pub(super) kept: IntGauge,
    pub(super) reloader: Arc<Reloader>,
    pub(super) commands: Commands,
    pub(super) doors: Vec<Door>,
    /// The API and its listener, where there is one.
    pub(super) operator: Option<(Arc<Admin>, Bound)>,
    /// All listening sockets, to hand over.
    pub(super) sockets: Sockets,
    pub(super) upgrade_socket: Option<UpgradeSocket>,
    /// The files that the configuration was read from.
    pub(super) seen: watch::Seen,
}

/// A bound listener for clients.
pub(super) struct Door {
    socket: Bound,
    metrics: ListenerMetrics,
}

impl Door {
    /// One for each listener of the configuration, in its order.
    pub(super) fn all(sockets: &Sockets, metrics: &Metrics) -> Result<Vec<Self>, StartError> {
        let doors = sockets.listeners().map(|socket| {
            let socket = socket?;
            let metrics = ListenerMetrics::new(metrics, &socket.name);
            let metrics = metrics.map_err(|error| StartError::Bug(error.to_string()))?;
            Ok(Self { socket, metrics })
        });
        doors.collect()
    }
}

impl Engine {
    pub(super) fn addresses(&self) -> Vec<(String, ListenAddress)> {
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

    /// Serves until it is ended. The audience hears when this one is ready.
    ///
    /// # Errors
    ///
    /// When a listener cannot be used; nobody heard that this one is ready then.
    pub(super) fn serve(self, audience: Audience) -> Result<(), StartError> {
        for (name, address) in self.addresses() {
            log::info!("listener {name} on {address}");
        }
        tls::install_provider();
        let mut server = Server::new_with_opt_and_conf(None, engine_words(&self.frame.server));
        let shedding = Shedding::default();
        let mut proxy = HttpProxy::new(
            Gateway::new(
                Arc::clone(&self.live),
                shedding.clone(),
                self.drain.clone(),
                self.kept,
                &server.configuration,
            ),
            Arc::clone(&server.configuration),
        );
        proxy.handle_init_modules();
        let proxy = Arc::new(proxy);
        let listeners = self.doors.into_iter().enumerate().map(|(listener, door)| {
            let edge = Edge {
                app: Arc::clone(&proxy),
                listener,
                live: Arc::clone(&self.live),
                metrics: Arc::new(door.metrics),
                drain: self.drain.clone(),
                shedding: shedding.clone(),
            };
            (door.socket, Arc::new(edge))
        });
        let mut readiness = Readiness::default();
        let word = Some(readiness.one_more());
        let pressure = PressureWatch {
            live: Arc::clone(&self.live),
            drain: self.drain.clone(),
            shedding: shedding.clone(),
            events: self.reloader.events(),
        };
        server.add_service(Front {
            listeners: listeners.collect(),
            pressure,
            word,
            start: readiness.start(),
        });
        if let Some((admin, socket)) = self.operator {
            let word = Some(readiness.one_more());
            server.add_service(Operator { admin, socket: Some(socket), word, start: readiness.start() });
        }
        let watch = watch::start(self.seen, &self.reloader);
        server.bootstrap();
        let failure = Arc::default();
        let life = Life {
            commands: self.commands,
            readiness: Mutex::new(readiness),
            failure: Arc::clone(&failure),
            drain: self.drain,
            changes: self.changes,
            reloader: self.reloader,
            watch: Mutex::new(watch),
            live: self.live,
            renewing: Mutex::default(),
            sockets: Mutex::new(Some(self.sockets)),
            audience,
            upgrade_socket: self.upgrade_socket,
        };
        server.run(RunArgs { shutdown_signal: Box::new(life) });
        failure.lock().take().map_or(Ok(()), Err)
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
        // Without authorities of the system nobody is believed, but for those whom the configuration names.
        ca_file: (!tls::system_roots()).then(|| NO_AUTHORITIES.to_owned()),
        ..ServerConf::default()
    }
}

/// A wire front before the proxy.
type ProxyEdge = Edge<HttpProxy<Gateway>>;

/// The listeners for clients.
struct Front {
    listeners: Vec<(Bound, Arc<ProxyEdge>)>,
    pressure: PressureWatch,
    word: Option<Word>,
    start: Start,
}

#[async_trait]
impl Service for Front {
    async fn start_service(&mut self, _: Option<ListenFds>, mut shutdown: ShutdownWatch, _: usize) {
        let registered = self.listeners.drain(..).map(|(socket, edge)| Ok((socket.register()?, edge)));
        let listening = registered.collect::<Result<Vec<_>, _>>().map(|listeners| {
            let listen = |(socket, edge): (_, Arc<ProxyEdge>)| {
                let start = self.start.clone();
                tokio::spawn(async move {
                    if start.comes().await {
                        edge.listen(socket).await;
                    }
                })
            };
            listeners.into_iter().map(listen).collect()
        });
        tell(self.word.take(), listening);
        tokio::spawn(self.pressure.clone().run());
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
    socket: Option<Bound>,
    word: Option<Word>,
    start: Start,
}

#[async_trait]
impl Service for Operator {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        let Some(socket) = self.socket.take() else { return };
        match socket.register_tcp() {
            Ok(listener) => {
                tell(self.word.take(), Ok(Listeners::new()));
                if self.start.clone().comes().await {
                    Arc::clone(&self.admin).listen(listener).await;
                }
            }
            Err(error) => tell(self.word.take(), Err(error)),
        }
    }

    fn name(&self) -> &'static str {
        "operator"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// Says whether a service listens. Nobody hears it when the server has ended before.
fn tell(word: Option<Word>, listening: Result<Listeners, StartError>) {
    if let Some(word) = word {
        let _ = word.send(listening);
    }
}
