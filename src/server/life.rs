//! The life of the process: signals and commands, draining, the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::handover::{self, Handover};
use super::sockets::Sockets;
use super::{Reloader, notify};
use crate::edge::Drain;
use crate::snapshot::Live;

/// What a gateway can be told to do.
#[derive(Debug)]
pub enum Command {
    /// End gracefully, as on SIGTERM.
    Shutdown,
    /// End at once.
    Stop,
    /// Read the configuration again, as on SIGHUP.
    Reload,
    /// Start a new process and hand over to it, as on SIGUSR2. The answer goes to whoever asked.
    Upgrade(Option<tokio::sync::oneshot::Sender<Result<u32, String>>>),
}

/// Where commands are sent. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    sender: UnboundedSender<Command>,
    receiver: Arc<Mutex<Option<UnboundedReceiver<Command>>>>,
}

impl Default for Commands {
    fn default() -> Self {
        let (sender, receiver) = unbounded_channel();
        Self { sender, receiver: Arc::new(Mutex::new(Some(receiver))) }
    }
}

impl Commands {
    /// Sends a command. One that comes after the end is lost.
    pub fn send(&self, command: Command) {
        let _ = self.sender.send(command);
    }
}

/// Whose signals a gateway listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signals {
    /// The process's: it is the gateway's own.
    Process,
    /// Nobody's: the gateway is part of another program.
    None,
}

/// Decides when the server ends.
pub(super) struct Life {
    pub(super) signals: Signals,
    pub(super) commands: Commands,
    pub(super) drain: Drain,
    pub(super) reloader: Arc<Reloader>,
    pub(super) live: Arc<Live>,
    pub(super) sockets: Sockets,
    /// The older process that waits for word that this one is ready.
    pub(super) handover: Mutex<Option<Handover>>,
    pub(super) upgrade_socket: Option<PathBuf>,
}

/// How the wait for a command ends.
enum End {
    Graceful,
    /// A new process has taken over: nobody needs to be told to look elsewhere.
    HandedOver,
    Now,
}

#[async_trait]
impl ShutdownSignalWatch for Life {
    async fn recv(&self) -> ShutdownSignal {
        let receiver = self.commands.receiver.lock().take();
        let Some(mut commands) = receiver else {
            return ShutdownSignal::FastShutdown;
        };
        let mut signals = match self.signals {
            Signals::Process => ProcessSignals::new(),
            Signals::None => None,
        };
        self.ready();
        let end = loop {
            let command = next(&mut signals, &mut commands).await;
            if let Some(end) = self.obey(command).await {
                break end;
            }
        };
        let drain_delay = match end {
            End::Now => return ShutdownSignal::FastShutdown,
            End::HandedOver => Duration::ZERO,
            End::Graceful => self.live.load().drain_delay,
        };
        tokio::select! {
            () = self.drain(drain_delay) => {}
            () = second_thoughts(&mut signals, &mut commands) => log::warn!("ending at once, as told again"),
        }
        // Nothing is left to wait for: the engine's own grace is zero.
        ShutdownSignal::FastShutdown
    }
}

impl Life {
    /// Everything listens: says so to whoever waits for it.
    fn ready(&self) {
        if let Some(path) = &self.upgrade_socket {
            handover::listen(path, &self.commands);
        }
        if let Some(handover) = self.handover.lock().take() {
            handover.ready();
        }
        notify::ready();
        log::info!("ready");
    }

    async fn obey(&self, command: Command) -> Option<End> {
        match command {
            Command::Shutdown => Some(End::Graceful),
            Command::Stop => Some(End::Now),
            Command::Reload => {
                notify::reloading();
                match self.reloader.reload_aside() {
                    // The outcome is told by the reload itself.
                    Ok(reload) => drop(tokio::task::spawn_blocking(move || {
                        let _ = reload.join();
                        notify::ready();
                    })),
                    Err(error) => log::error!("cannot reload: {error}"),
                }
                None
            }
            Command::Upgrade(answer) => {
                let outcome = handover::upgrade(&self.sockets).await;
                match &outcome {
                    Ok(child) => {
                        log::info!("process {child} has taken over");
                        notify::main_process(*child);
                    }
                    Err(message) => log::error!("the upgrade failed, this process goes on: {message}"),
                }
                let taken_over = outcome.is_ok();
                if let Some(answer) = answer {
                    let _ = answer.send(outcome);
                }
                taken_over.then_some(End::HandedOver)
            }
        }
    }

    async fn drain(&self, drain_delay: Duration) {
        notify::stopping();
        self.drain.set_unready();
        tokio::time::sleep(drain_delay).await;
        self.drain.start();
        let grace = self.live.load().grace_period;
        log::info!("draining {} connections, for at most {grace:?}", self.drain.connections());
        if !self.drain.finished(grace).await {
            log::warn!("{} connections were cut off after {grace:?}", self.drain.connections());
        }
    }
}

async fn next(signals: &mut Option<ProcessSignals>, commands: &mut UnboundedReceiver<Command>) -> Command {
    let signal = async {
        match signals {
            Some(signals) => signals.next().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        command = commands.recv() => command.unwrap_or(Command::Stop),
        command = signal => command,
    }
}

/// Ends when told to end once more.
async fn second_thoughts(signals: &mut Option<ProcessSignals>, commands: &mut UnboundedReceiver<Command>) {
    loop {
        if matches!(next(signals, commands).await, Command::Shutdown | Command::Stop) {
            return;
        }
    }
}

/// The signals of this process.
struct ProcessSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    upgrade: Signal,
}

impl ProcessSignals {
    fn new() -> Option<Self> {
        let open = || -> std::io::Result<Self> {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                quit: signal(SignalKind::quit())?,
                hangup: signal(SignalKind::hangup())?,
                upgrade: signal(SignalKind::user_defined2())?,
            })
        };
        open().map_err(|error| log::error!("signals cannot be listened to: {error}")).ok()
    }

    async fn next(&mut self) -> Command {
        tokio::select! {
            _ = self.terminate.recv() => Command::Shutdown,
            _ = self.interrupt.recv() => Command::Shutdown,
            _ = self.quit.recv() => Command::Shutdown,
            _ = self.hangup.recv() => Command::Reload,
            _ = self.upgrade.recv() => Command::Upgrade(None),
        }
    }
}
