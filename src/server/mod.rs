//! Assembles everything: listeners, background tasks, reload, shutdown, upgrade. The only wiring room.

mod discovery;
mod engine;
mod error;
mod expiry;
mod frame;
mod handover;
mod life;
mod notify;
mod panics;
mod pressure;
mod probing;
mod readiness;
mod reload;
mod renewal;
mod signals;
mod sockets;
mod source;
mod successors;
mod telling;
mod upgrade_socket;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use crate::admin::{Admin, Status};
use crate::compile::{Compiled, Inputs, admin_token, compile};
use crate::config::{Config, Threads};
use crate::document::{Environment, Errors};
use crate::edge::Drain;
use crate::registry::Registry;
use crate::snapshot::{Live, Snapshot};
use crate::state::State;
use crate::telemetry::{AccessLog, Buckets, Events, Inbox, Metrics, process_log};
use crate::tls::Tickets;
use crate::types::ListenAddress;
use crate::upstream::{Changes, Handed, Roster, StickyKey};

pub use error::StartError;
pub use life::{Command, Commands};
pub use reload::Reloader;
pub use source::{Checked, Source, check};
pub use upgrade_socket::ask as ask_upgrade;

use engine::{Door, Engine};
use frame::Frame;
use handover::{Inheritance, Predecessor};
use life::Audience;
use sockets::Sockets;
use upgrade_socket::UpgradeSocket;

/// A gateway that is ready to be started.
pub struct Server {
    source: Source,
    registry: Registry,
    environment: Environment,
}

/// A gateway that runs in a thread of its own. Dropping it stops the gateway at once.
pub struct Running {
    listeners: Vec<(String, ListenAddress)>,
    admin: Option<SocketAddr>,
    commands: Commands,
    reloader: Arc<Reloader>,
    thread: Option<JoinHandle<Result<(), StartError>>>,
}

/// Everything that is decided before the first socket listens.
struct Plan {
    frame: Frame,
    /// Where `portcullis upgrade` asks.
    upgrade_socket: Option<PathBuf>,
    /// The files it was read from.
    seen: watch::Seen,
    snapshot: Arc<Snapshot>,
    parts: Arc<Parts>,
}

/// What outlives snapshots and is shared by all of the gateway.
pub(crate) struct Parts {
    pub(crate) source: Source,
    pub(crate) registry: Registry,
    pub(crate) environment: Environment,
    pub(crate) state: State,
    pub(crate) metrics: Metrics,
    pub(crate) events: Events,
    /// Taken by who tells events to webhooks.
    inbox: Mutex<Option<Inbox>>,
}

impl Server {
    /// A gateway with a configuration from `source`; the filters and handlers that it can name are in `registry`.
    pub fn new(source: Source, registry: Registry) -> Self {
        Self { source, registry, environment: Environment::of_process() }
    }

    /// Runs until a signal ends it. With listeners handed over by an older process, takes over from it.
    ///
    /// # Errors
    ///
    /// What kept it from starting; nothing was served then.
    pub fn run(self) -> Result<(), StartError> {
        let commands = Commands::default();
        signals::forward(&commands)?;
        panics::log_them();
        let (predecessor, inheritance) = Predecessor::inherited()?.unzip();
        let predecessor = predecessor.map(Arc::new);
        let served = self.serve(&commands, predecessor.clone(), inheritance.unwrap_or_default());
        if let (Err(error), Some(predecessor)) = (&served, predecessor) {
            predecessor.refuse(error);
        }
        served?;
        if commands.handed_over() && successors::is_needed() {
            std::process::exit(successors::outlive());
        }
        Ok(())
    }

    fn serve(
        self,
        commands: &Commands,
        predecessor: Option<Arc<Predecessor>>,
        inheritance: Inheritance,
    ) -> Result<(), StartError> {
        let started = Instant::now();
        let plan = self.plan(&inheritance)?;
        let engine = assemble(plan, inheritance.sockets, commands.clone(), started)?;
        let log = engine.live();
        let served = engine.serve(predecessor.map_or(Audience::ServiceManager, Audience::Predecessor));
        close(&log);
        served
    }

    /// Starts in a thread of its own, without taking the process's signals.
    ///
    /// # Errors
    ///
    /// What kept it from starting.
    pub fn start(self) -> Result<Running, StartError> {
        let started = Instant::now();
        let mut plan = self.plan(&Inheritance::default())?;
        // A new process would be the embedding program anew, which knows nothing of a handover.
        plan.upgrade_socket = None;
        let assembled = assemble(plan, Sockets::default(), Commands::default(), started)?;
        let mut running = Running {
            listeners: assembled.addresses(),
            admin: assembled.admin_address(),
            commands: assembled.commands(),
            reloader: assembled.reloader(),
            thread: None,
        };
        let log = assembled.live();
        let (program, ready) = mpsc::channel();
        let serve = move || {
            let served = assembled.serve(Audience::Program(program));
            close(&log);
            served
        };
        let thread = std::thread::Builder::new().name("gateway".into()).spawn(serve);
        let thread = thread.map_err(StartError::Thread)?;
        if ready.recv().is_ok() {
            running.thread = Some(thread);
            return Ok(running);
        }
        match thread.join() {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Err(StartError::Bug("the gateway ended before it was ready".into())),
        }
    }

    /// Reads and compiles, with what an older process knew.
    fn plan(self, inheritance: &Inheritance) -> Result<Plan, StartError> {
        let mut seen = watch::Seen::default();
        seen.add(self.source.path());
        let loaded = self.source.load(&self.environment).map_err(StartError::Config)?;
        let words = &loaded.config.telemetry;
        let log = &words.log;
        process_log::init(log.level, log.format);
        let buckets: Vec<_> = words.metrics.buckets.iter().map(|bucket| bucket.get()).collect();
        let buckets =
            if buckets.is_empty() { Buckets::default() } else { Buckets::new(&buckets).unwrap_or_default() };
        let parts = Parts::new(self.source, self.registry, self.environment, buckets);
        let parts = Arc::new(parts.map_err(|error| StartError::Bug(error.to_string()))?);
        seen.add(loaded.files(&parts.registry).iter().map(PathBuf::as_path));
        // Kept until the snapshot has adopted them.
        let adopt = |(listener, keys): (&String, &Vec<_>)| {
            parts.state.adopt(Tickets::key(listener), || Tickets::inherited(keys))
        };
        let _inherited: Vec<_> = inheritance.tickets.iter().map(adopt).collect();
        let adopt = |(name, handed): (&String, &Handed)| {
            let key = handed.sticky().map(|key| parts.state.adopt(StickyKey::key(name), || key));
            (key, parts.state.adopt(Roster::key(name), || handed.roster()))
        };
        let _known: Vec<_> = inheritance.upstreams.iter().map(adopt).collect();
        let (frame, compiled) = loaded.compile(&parts).map_err(StartError::Config)?;
        let snapshot = parts.open(compiled, 1).map_err(StartError::AccessLog)?;
        parts.state.sweep();
        let upgrade_socket = frame.server.upgrade_socket.clone();
        Ok(Plan { frame, upgrade_socket, seen, snapshot: Arc::new(snapshot), parts })
    }
}

impl Parts {
    pub(crate) fn new(
        source: Source,
        registry: Registry,
        environment: Environment,
        buckets: Buckets,
    ) -> prometheus::Result<Self> {
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), buckets)?;
        let (events, inbox) = Events::open(metrics.events_dropped());
        let inbox = Mutex::new(Some(inbox));
        Ok(Self { source, registry, environment, state: State::default(), metrics, events, inbox })
    }

    /// Compiles against what is shared; `certificates` says whether their files may be read.
    pub(crate) fn compile(&self, config: &Config, certificates: bool) -> Result<Compiled, Errors> {
        compile(
            config,
            Inputs {
                registry: &self.registry,
                state: &self.state,
                metrics: &self.metrics,
                events: &self.events,
                environment: &self.environment,
                certificates,
            },
        )
    }

    /// Tells what is in force from now on.
    fn published(&self, snapshot: &Snapshot) {
        self.metrics.config_published(snapshot.generation);
        self.metrics.certificates(expiry::by_host(snapshot));
        self.metrics.acme_directories(snapshot.acme.iter().map(|managed| &*managed.directory.name));
        self.events.want(!snapshot.webhooks.is_empty());
        expiry::tell(snapshot, &self.events);
        for upstream in snapshot.upstreams.values() {
            // What was changed or found while it was compiled; and what holds no more with it.
            upstream.refresh();
        }
    }

    /// Makes a snapshot fit to be put in force.
    fn open(&self, compiled: Compiled, generation: u64) -> std::io::Result<Snapshot> {
        let Compiled { mut snapshot, access_log } = compiled;
        snapshot.generation = generation;
        snapshot.access_log = Arc::new(AccessLog::open(access_log, self.metrics.access_log_dropped())?);
        Ok(snapshot)
    }
}

/// Binds what is not inherited and puts the parts together. Nothing is accepted yet.
fn assemble(
    plan: Plan,
    inherited: Sockets,
    commands: Commands,
    started: Instant,
) -> Result<Engine, StartError> {
    let Plan { frame, upgrade_socket, seen, snapshot, parts } = plan;
    let sockets = Sockets::bind(&frame, inherited)?;
    let upgrade_socket = upgrade_socket.as_ref().map(|path| {
        UpgradeSocket::bind(path).map_err(|error| StartError::UpgradeSocket { path: path.clone(), error })
    });
    let live = Arc::new(Live::new(Arc::clone(&snapshot)));
    parts.published(&snapshot);
    let drain = Drain::default();
    let changes = Changes::default();
    let status = Arc::new(Status::new(started));
    let reloader =
        Arc::new(Reloader::new(Arc::clone(&parts), Arc::clone(&live), frame.clone(), Arc::clone(&status)));
    let admin = match &frame.admin {
        None => None,
        Some(words) => Some(Arc::new(Admin {
            token: admin_token(words, &parts.environment).map_err(StartError::Bug)?,
            live: Arc::clone(&live),
            drain: drain.clone(),
            changes: changes.clone(),
            status,
            control: Arc::clone(&reloader) as Arc<dyn crate::admin::Control>,
        })),
    };
    let doors = Door::all(&sockets, &parts.metrics)?;
    let operator = admin.map(|admin| Ok::<_, StartError>((admin, sockets.admin()?))).transpose()?;
    Ok(Engine {
        frame,
        live,
        drain,
        changes,
        kept: parts.metrics.retry_memory(),
        reloader,
        commands,
        doors,
        operator,
        sockets,
        upgrade_socket: upgrade_socket.transpose()?,
        seen,
    })
}

/// Worker threads for these words.
fn threads(threads: Threads) -> usize {
    match threads {
        Threads::Count(count) => count,
        Threads::Auto => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

fn close(live: &Live) {
    live.load_full().access_log.close(std::time::Duration::from_secs(2));
}

impl Running {
    /// The address of the TCP listener with this name; of the first one when the name is empty.
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        let mut listeners = self.listeners.iter().filter_map(|(name, address)| Some((name, address.tcp()?)));
        listeners.find(|(known, _)| name.is_empty() || *known == name).map(|(_, address)| address)
    }

    /// The address of the admin listener.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Reads the configuration again and puts it in force.
    ///
    /// # Errors
    ///
    /// Why it was refused; the old one stays in force.
    pub fn reload(&self) -> Result<u64, String> {
        self.reloader.reload().map_err(|error| error.to_string())
    }

    /// Ends gracefully: as on SIGTERM. Waits until it has.
    pub fn shutdown(mut self) {
        self.end(Command::Shutdown);
    }

    fn end(&mut self, command: Command) {
        self.commands.send(command);
        if let Some(thread) = self.thread.take() {
            // A gateway that panicked has ended, too.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(Command::Stop);
    }
}
