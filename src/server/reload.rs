//! Putting a new configuration in force while requests run.
//!
//! 1. A new configuration is read and compiled aside, at low priority. Nothing of it is in force until all of it is.
//! 2. What is wrong with it leaves the old one in force, and is told in the log, in a metric and in `/status`.
//! 3. What only a new process can change refuses the whole configuration, with a word on `portcullis upgrade`.
//! 4. Once a new process has taken over, the configuration is its business: this one keeps what it has.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Parts;
use super::frame::Frame;
use super::{discovery, expiry, probing, renewal, telling};
use crate::admin::{Control, ControlError, Status};
use crate::edge::Drain;
use crate::snapshot::{Live, Snapshot};
use crate::telemetry::{EventKind, Events, Subject};

/// How nice the compiling thread is to the workers, 0 to 19.
const NICE: i32 = 15;
/// How long the old snapshot's last users are waited for before it is left to them.
const RETIRE: Duration = Duration::from_secs(5);

/// Puts new configurations in force, one at a time.
pub struct Reloader {
    parts: Arc<Parts>,
    live: Arc<Live>,
    status: Arc<Status>,
    /// The words in force that the process is built on.
    current: Mutex<Frame>,
    /// What the last reload read.
    files: Mutex<Vec<PathBuf>>,
    handed_over: AtomicBool,
    /// Told whenever another configuration is in force.
    changed: Arc<Notify>,
    /// The same, for whoever looks for endpoints.
    names_changed: Arc<Notify>,
    /// Told whenever other endpoints are, or in another way.
    endpoints_changed: Arc<Notify>,
    /// Told whenever others are to be told of events.
    webhooks_changed: Arc<Notify>,
}

impl Reloader {
    pub(super) fn new(parts: Arc<Parts>, live: Arc<Live>, frame: Frame, status: Arc<Status>) -> Self {
        let (current, files) = (Mutex::new(frame), Mutex::default());
        Self {
            parts,
            live,
            status,
            current,
            files,
            handed_over: AtomicBool::new(false),
            changed: Arc::default(),
            names_changed: Arc::default(),
            endpoints_changed: Arc::default(),
            webhooks_changed: Arc::default(),
        }
    }

    /// Orders and renews certificates until draining starts.
    pub(super) fn renew(&self, drain: Drain) -> impl Future<Output = ()> + Send + use<> {
        let (parts, live) = (Arc::clone(&self.parts), Arc::clone(&self.live));
        renewal::keep(parts, live, Arc::clone(&self.changed), drain)
    }

    /// Asks endpoints how they are until draining starts.
    pub(super) fn probe(&self, drain: Drain) -> impl Future<Output = ()> + Send + use<> {
        probing::keep(Arc::clone(&self.live), Arc::clone(&self.endpoints_changed), drain)
    }

    /// Tells webhooks what happens.
    pub(super) fn tell(&self) -> impl Future<Output = ()> + Send + use<> {
        telling::keep(Arc::clone(&self.parts), Arc::clone(&self.live), Arc::clone(&self.webhooks_changed))
    }

    /// Warns of certificates that end soon.
    pub(super) fn watch_certificates(&self) -> impl Future<Output = ()> + Send + use<> {
        expiry::watch(Arc::clone(&self.live), self.parts.events.clone())
    }

    /// Looks for endpoints until draining starts.
    pub(super) fn discover(&self, drain: Drain) -> impl Future<Output = ()> + Send + use<> {
        let (changed, news) = (Arc::clone(&self.names_changed), Arc::clone(&self.endpoints_changed));
        discovery::keep(Arc::clone(&self.live), changed, news, self.events(), drain)
    }

    /// Where events are told.
    pub(super) fn events(&self) -> Events {
        self.parts.events.clone()
    }

    /// Serves the certificates that other machines have got, and the endpoints that are found at once.
    pub(super) async fn recall(&self) {
        tokio::join!(renewal::recall(&self.parts, &self.live), discovery::first(&self.live));
    }

    /// From here on a new process reads the configuration.
    pub(super) fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Relaxed);
    }

    /// Reads the configuration again and puts it in force. Returns its generation. Blocks while it compiles.
    ///
    /// # Errors
    ///
    /// Why it was refused; the old one stays in force.
    pub fn reload(&self) -> Result<u64, ControlError> {
        let started = Instant::now();
        // One at a time: whoever waits here reads what the one before could not have seen.
        let mut current = self.current.lock();
        if self.handed_over.load(Ordering::Relaxed) {
            return Err(ControlError::HandedOver);
        }
        let outcome = self.next(&current);
        match outcome {
            Ok((frame, snapshot)) => {
                let generation = snapshot.generation;
                let snapshot = Arc::new(snapshot);
                let old = self.live.swap(Arc::clone(&snapshot));
                // First whom to tell, then what.
                self.webhooks_changed.notify_one();
                self.parts.published(&snapshot);
                *current = frame;
                self.status.reloaded(None);
                log::info!(
                    "configuration {generation} is in force after {} ms",
                    started.elapsed().as_millis()
                );
                self.changed.notify_one();
                self.names_changed.notify_one();
                self.endpoints_changed.notify_one();
                drop(current);
                self.retire(old);
                Ok(generation)
            }
            Err(message) => {
                self.parts.state.sweep();
                self.parts.metrics.config_refused();
                self.status.reloaded(Some(message.clone()));
                self.parts.events.tell(
                    EventKind::ReloadRefused,
                    Subject::default(),
                    &message,
                    format_args!("the new configuration is refused, the old one stays in force:\n{message}"),
                );
                Err(ControlError::Refused(message))
            }
        }
    }

    /// The same, in a thread of its own that gives way to the workers; waits for it.
    pub(super) fn reload_aside(&self) -> Result<u64, ControlError> {
        std::thread::scope(|scope| {
            let work = || {
                give_way();
                self.reload()
            };
            let spawned = std::thread::Builder::new().name("reload".into()).spawn_scoped(scope, work);
            let thread = spawned.map_err(|error| ControlError::Bug(format!("no thread: {error}")))?;
            thread.join().map_err(|_| ControlError::Bug("the reload panicked".into()))?
        })
    }

    /// The files that the last reload read.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.files.lock().clone()
    }

    fn next(&self, current: &Frame) -> Result<(Frame, Snapshot), String> {
        let loaded =
            self.parts.source.load(&self.parts.environment).map_err(|refusal| refusal.to_string())?;
        // Of a configuration that is refused, too: the change that mends it may come in a file that is new to it.
        *self.files.lock() = loaded.files(&self.parts.registry);
        let (frame, compiled) = loaded.compile(&self.parts).map_err(|refusal| refusal.to_string())?;
        current.allows(&frame)?;
        let old = self.live.load_full();
        let generation = old.generation + 1;
        let same_log = current.telemetry.access_log == frame.telemetry.access_log
            && old.access_log.hides_as(&compiled.access_log);
        let snapshot = if same_log {
            let mut snapshot = compiled.snapshot;
            snapshot.generation = generation;
            snapshot.access_log = Arc::clone(&old.access_log);
            snapshot
        } else {
            self.parts
                .open(compiled, generation)
                .map_err(|error| format!("cannot open the access log: {error}"))?
        };
        if current.telemetry.log.level != frame.telemetry.log.level {
            crate::telemetry::process_log::set_level(frame.telemetry.log.level);
        }
        Ok((frame, snapshot))
    }

    /// Lets the old snapshot go here, not on a worker: a large one takes its time.
    fn retire(&self, old: Arc<Snapshot>) {
        let until = Instant::now() + RETIRE;
        while Arc::strong_count(&old) > 1 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(old);
        self.parts.state.sweep();
    }
}

/// Lowers the priority of this thread. A system that does not allow it costs fairness, not correctness.
fn give_way() {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
        log::debug!("the reload runs at full priority: {error}");
    }
}

impl Control for Reloader {
    fn reload(&self) -> Result<u64, ControlError> {
        self.reload_aside()
    }

    fn check(&self, text: &str) -> Result<(), serde_json::Value> {
        super::source::check_text(text, &self.parts)
    }

    fn endpoints_changed(&self) {
        self.endpoints_changed.notify_one();
    }

    fn metrics(&self) -> Result<String, ControlError> {
        self.parts.metrics.render().map_err(|error| ControlError::Bug(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::document::Environment;
    use crate::registry::Registry;
    use crate::server::source::Source;
    use crate::telemetry::Buckets;

    /// One upstream: two values in the state.
    const GOOD: &str = "listeners: [{ name: web, address: 127.0.0.1:0 }]
telemetry: { access_log: { output: \"off\" } }
upstreams: { app: { endpoints: [127.0.0.1:1] } }
";

    fn reloader(path: PathBuf) -> Reloader {
        let (source, environment) = (Source::File(path), Environment::default());
        let loaded = source.load(&environment).unwrap();
        let parts = Parts::new(source, Registry::default(), environment, Buckets::default()).unwrap();
        let (frame, compiled) = loaded.compile(&parts).unwrap();
        let snapshot = parts.open(compiled, 1).unwrap();
        let live = Arc::new(Live::new(Arc::new(snapshot)));
        Reloader::new(Arc::new(parts), live, frame, Arc::new(Status::new(Instant::now())))
    }

    #[test]
    fn a_refused_candidate_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.yaml");
        fs::write(&path, GOOD).unwrap();
        let reloader = reloader(path.clone());
        assert_eq!(reloader.parts.state.len(), 2);

        let others = GOOD.replace("upstreams: {", "upstreams: { other: { endpoints: [127.0.0.1:2] },");
        for wrong in [format!("{others}filters: [none]"), others.replace("name: web", "name: other")] {
            fs::write(&path, &wrong).unwrap();
            assert!(matches!(reloader.reload(), Err(ControlError::Refused(_))));
            assert_eq!(reloader.parts.state.len(), 2, "after a reload of {wrong}");
            assert!(reloader.check(&format!("{others}filters: [none]")).is_err());
            assert_eq!(reloader.parts.state.len(), 2, "after a check of {wrong}");
        }
        assert!(reloader.check(&others).is_ok());
        assert_eq!(reloader.parts.state.len(), 2, "what is checked is not put in force");

        fs::write(&path, &others).unwrap();
        assert!(reloader.reload().is_ok());
        assert_eq!(reloader.parts.state.len(), 4);
    }
}
