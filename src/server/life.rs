//! The life of the process: commands, upgrades, draining, the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::StartError;
use super::handover::{Predecessor, Upgrade};
use super::readiness::{Listeners, Readiness};
use super::sockets::Sockets;
use super::upgrade_socket::{Asker, UpgradeSocket};
use super::watch::Watch;
use super::{Reloader, notify};
use crate::edge::Drain;
use crate::snapshot::Live;
use crate::upstream::Changes;

/// How long the end waits at most for orders to be given up.
const GIVING_BACK: Duration = Duration::from_secs(1);

/// What a gateway can be told to do.
#[derive(Debug)]
pub enum Command {
    /// End gracefully, as on SIGTERM. Told so again: at once.
    Shutdown,
    /// End at once.
    Stop,
    /// Read the configuration again, as on SIGHUP.
    Reload,
    /// Open the access log's file anew, as on SIGUSR1.
    Reopen,
    /// Start a new process and hand over to it, as on SIGUSR2. Whoever asked is told the outcome.
    Upgrade(Option<Asker>),
}

/// Where commands are sent. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    sender: UnboundedSender<Command>,
    receiver: Arc<Mutex<Option<UnboundedReceiver<Command>>>>,
    handed_over: Arc<AtomicBool>,
}

impl Default for Commands {
    fn default() -> Self {
        let (sender, receiver) = unbounded_channel();
        Self { sender, receiver: Arc::new(Mutex::new(Some(receiver))), handed_over: Arc::default() }
    }
}

impl Commands {
    /// Sends a command. One that comes after the end is lost.
    pub fn send(&self, command: Command) {
        let _ = self.sender.send(command);
    }

    /// Whether the gateway has come as far as to obey commands; until then they wait.
    pub fn are_obeyed(&self) -> bool {
        self.receiver.lock().is_none()
    }

    /// Whether a new process has taken over.
    pub fn handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Relaxed)
    }
}

/// Decides when the server ends.
pub(super) struct Life {
    pub(super) commands: Commands,
    /// Taken by the wait for the listeners.
    pub(super) readiness: Mutex<Readiness>,
    /// What kept a listener from being used.
    pub(super) failure: Arc<Mutex<Option<StartError>>>,
    pub(super) drain: Drain,
    pub(super) changes: Changes,
    pub(super) reloader: Arc<Reloader>,
    /// Follows the configuration's files; gone once a new process does.
    pub(super) watch: Mutex<Option<Watch>>,
    pub(super) live: Arc<Live>,
    /// Orders and renews certificates until draining starts.
    pub(super) renewing: Mutex<Option<JoinHandle<()>>>,
    /// What is handed over; gone when draining, so that nobody waits at a socket that is not listened to.
    pub(super) sockets: Mutex<Option<Sockets>>,
    pub(super) audience: Audience,
    pub(super) upgrade_socket: Option<UpgradeSocket>,
}

/// Who waits for word that this process serves.
pub(super) enum Audience {
    /// Whoever watches processes, if anyone does.
    ServiceManager,
    /// The older process; it tells the service manager, which takes its word only.
    Predecessor(Arc<Predecessor>),
    /// The program that this gateway is a part of.
    Program(mpsc::Sender<()>),
}

/// Why draining starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Graceful,
    /// A new process has taken over: nobody needs to be told to look elsewhere.
    HandedOver,
    Now,
}

#[async_trait]
impl ShutdownSignalWatch for Life {
    async fn recv(&self) -> ShutdownSignal {
        match self.start().await {
            Ok(listeners) => self.serve(listeners).await,
            Err(error) => *self.failure.lock() = Some(error),
        }
        // Nothing is left to wait for: the engine's own grace is zero.
        ShutdownSignal::FastShutdown
    }
}

impl Life {
    /// Waits until everything listens, and says so to whoever waits for it.
    async fn start(&self) -> Result<Listeners, StartError> {
        let mut readiness = std::mem::take(&mut *self.readiness.lock());
        let listeners = readiness.all().await?;
        tokio::spawn(self.reloader.discover(self.drain.clone()));
        self.reloader.recall().await;
        if let Some(socket) = &self.upgrade_socket {
            let path = socket.path().to_owned();
            socket.publish(&self.commands).map_err(|error| StartError::UpgradeSocket { path, error })?;
        }
        readiness.go();
        tokio::spawn(self.reloader.tell());
        tokio::spawn(self.reloader.watch_certificates());
        tokio::spawn(self.reloader.probe(self.drain.clone()));
        *self.renewing.lock() = Some(tokio::spawn(self.reloader.renew(self.drain.clone())));
        match &self.audience {
            Audience::ServiceManager => notify::ready(),
            Audience::Predecessor(predecessor) => predecessor.ready(),
            Audience::Program(program) => {
                notify::ready();
                // A program that no longer waits has no use for the word.
                let _ = program.send(());
            }
        }
        log::info!("ready");
        Ok(listeners)
    }

    async fn serve(&self, listeners: Listeners) {
        let Some(mut commands) = self.commands.receiver.lock().take() else { return };
        let end = self.obey(&mut commands).await;
        if end == End::Now {
            self.let_go_of_sockets(end);
        } else {
            tokio::select! {
                () = self.drain(end, listeners) => {}
                () = told_again(end, &mut commands, || self.reopen()) => log::warn!("ending at once, as told again"),
            }
        }
    }

    /// Does as told, until told to end or until a new process has taken over.
    async fn obey(&self, commands: &mut UnboundedReceiver<Command>) -> End {
        let mut under_way = None;
        loop {
            let command = tokio::select! {
                command = commands.recv() => command.unwrap_or(Command::Stop),
                outcome = outcome(&mut under_way) => {
                    if self.has_handed_over(under_way.take(), outcome).await {
                        return End::HandedOver;
                    }
                    continue;
                }
            };
            match command {
                Command::Upgrade(asker) => self.upgrade(&mut under_way, asker).await,
                Command::Reload => self.reload(),
                Command::Reopen => self.reopen(),
                Command::Shutdown => return self.given_up(under_way, End::Graceful).await,
                Command::Stop => return self.given_up(under_way, End::Now).await,
            }
        }
    }

    /// Ends the upgrade under way, since the gateway itself is to end.
    async fn given_up(&self, under_way: Option<UnderWay>, end: End) -> End {
        if let Some(UnderWay { upgrade, asker }) = under_way {
            log::warn!("the upgrade is given up: the gateway is ending");
            upgrade.cancel().await;
            self.changes.go_on();
            answer(asker, &Err(ENDING.into())).await;
        }
        end
    }

    /// Starts a new process, unless one is being started.
    async fn upgrade(&self, under_way: &mut Option<UnderWay>, asker: Option<Asker>) {
        if under_way.is_some() {
            log::warn!("an upgrade is under way already");
            return answer(asker, &Err("an upgrade is under way already".into())).await;
        }
        let patience = self.live.load().upgrade_timeout;
        self.changes.stop();
        let started = match &*self.sockets.lock() {
            Some(sockets) => Upgrade::start(sockets, &self.live.load(), patience),
            None => Err(ENDING.into()),
        };
        match started {
            Ok(upgrade) => *under_way = Some(UnderWay { upgrade, asker }),
            Err(message) => {
                self.changes.go_on();
                failed(asker, message).await;
            }
        }
    }

    /// Whether the new process has taken over; tells whoever asked for it.
    async fn has_handed_over(&self, under_way: Option<UnderWay>, outcome: Result<u32, String>) -> bool {
        let asker = under_way.and_then(|under_way| under_way.asker);
        match outcome {
            Ok(successor) => {
                log::info!("process {successor} has taken over");
                self.commands.handed_over.store(true, Ordering::Relaxed);
                notify::main_process(successor);
                // Before the word of it: whoever has that must not be answered by this process any more.
                self.reloader.hand_over();
                self.drain.hand_over();
                answer(asker, &Ok(successor)).await;
                true
            }
            Err(message) => {
                self.changes.go_on();
                failed(asker, message).await;
                false
            }
        }
    }

    fn reload(&self) {
        notify::reloading();
        let reloader = Arc::clone(&self.reloader);
        // A thread that nobody waits for: it does not hold up the end.
        let spawned = std::thread::Builder::new().name("reload".into()).spawn(move || {
            // The outcome is told by the reload itself.
            let _ = reloader.reload_aside();
            notify::ready();
        });
        if let Err(error) = spawned {
            log::error!("cannot reload: {error}");
            notify::ready();
        }
    }

    fn reopen(&self) {
        self.live.load().access_log.reopen();
    }

    /// From here on nothing can be handed over. The files of Unix sockets stay where a new process listens.
    fn let_go_of_sockets(&self, end: End) {
        if let Some(sockets) = self.sockets.lock().take().filter(|_| end != End::HandedOver) {
            sockets.remove_files();
        }
    }

    async fn drain(&self, end: End, listeners: Listeners) {
        if end == End::HandedOver {
            drop(self.watch.lock().take());
        } else {
            notify::stopping();
            self.drain.set_unready();
            let drain_delay = self.live.load().drain_delay;
            tokio::time::sleep(drain_delay).await;
        }
        self.let_go_of_sockets(end);
        self.drain.start();
        let grace = self.live.load().grace_period;
        log::info!("draining {} connections, for at most {grace:?}", self.drain.connections());
        if !all_left(&self.drain, listeners, grace).await {
            log::warn!("{} connections were cut off after {grace:?}", self.drain.connections());
        }
        let renewing = self.renewing.lock().take();
        if let Some(renewing) = renewing {
            // What is not given back by then runs out by itself.
            let _ = tokio::time::timeout(GIVING_BACK, renewing).await;
        }
    }
}

/// What is said to who asks too late.
const ENDING: &str = "the gateway is ending";

/// An upgrade and who asked for it.
struct UnderWay {
    upgrade: Upgrade,
    asker: Option<Asker>,
}

/// The outcome of the upgrade under way, if there is one.
async fn outcome(under_way: &mut Option<UnderWay>) -> Result<u32, String> {
    match under_way {
        Some(UnderWay { upgrade, .. }) => upgrade.outcome().await,
        None => std::future::pending().await,
    }
}

async fn failed(asker: Option<Asker>, message: String) {
    log::error!("the upgrade failed, this process goes on: {message}");
    answer(asker, &Err(message)).await;
}

async fn answer(asker: Option<Asker>, outcome: &Result<u32, String>) {
    if let Some(asker) = asker {
        asker.tell(outcome).await;
    }
}

/// Waits until draining listeners and connections have ended, connections for at most `grace`. Says whether they have.
async fn all_left(drain: &Drain, listeners: Listeners, grace: Duration) -> bool {
    for listener in listeners {
        // What it accepted at the last moment is counted when it has ended, not before. One that panicked has ended, too.
        let _ = listener.await;
    }
    drain.finished(grace).await
}

/// Ends when told once more to end. After a handover nobody has told so yet. What is still served goes on being logged.
async fn told_again(end: End, commands: &mut UnboundedReceiver<Command>, reopen: impl Fn()) {
    let mut left = if end == End::HandedOver { 2 } else { 1 };
    while left > 0 {
        match commands.recv().await {
            Some(Command::Shutdown) => left -= 1,
            Some(Command::Upgrade(asker)) => answer(asker, &Err(ENDING.into())).await,
            Some(Command::Reopen) => reopen(),
            Some(Command::Reload) => log::warn!("not reloaded: {ENDING}"),
            Some(Command::Stop) | None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_connection_accepted_at_the_last_moment_is_waited_for() {
        let drain = Drain::default();
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let (mut draining, counted) = (drain.watch(), drain.clone());
        let listener = tokio::spawn(async move {
            draining.wait_for(|draining| *draining).await.unwrap();
            tokio::task::yield_now().await;
            let connection = counted.enter();
            tokio::spawn(async move { released.await.map(|()| drop(connection)) });
        });
        drain.start();
        let ending = drain.clone();
        let end =
            tokio::spawn(async move { all_left(&ending, vec![listener], Duration::from_secs(60)).await });
        while drain.connections() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!end.is_finished());
        release.send(()).unwrap();
        assert!(end.await.unwrap());
    }

    #[test]
    fn the_end_is_hastened_by_the_second_order_to_end() {
        for (end, more) in [(End::Graceful, 1), (End::HandedOver, 2)] {
            let commands = Commands::default();
            let mut receiver = commands.receiver.lock().take().unwrap();
            let mut hastened = |orders| {
                commands.send(Command::Reload);
                (0..orders).for_each(|_| commands.send(Command::Shutdown));
                told_again(end, &mut receiver, || {}).now_or_never().is_some()
            };
            assert!(!hastened(more - 1), "{end:?}");
            assert!(hastened(more), "{end:?}");
        }
    }
}
