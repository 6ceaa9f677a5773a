//! A certificate that is wanted, and what has come of it.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::directory::Directory;
use super::schedule::{self, Validity};
use super::store::Failed;
use crate::tls::{Certificate, Issued};

/// A certificate that is wanted.
#[derive(Debug, Clone)]
pub struct Managed {
    /// Whom to ask for it.
    pub directory: Arc<Directory>,
    /// What has come of it.
    pub progress: Arc<Progress>,
}

/// What has come of a certificate that is wanted. It outlives snapshots.
#[derive(Debug)]
pub struct Progress {
    issued: Arc<Issued>,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    /// Whether it is being ordered here.
    ordering: bool,
    /// When to renew the one that is served.
    renew_at: Option<SystemTime>,
    /// Not before this is it renewed, whatever anybody says.
    floor: Option<SystemTime>,
    /// When to ask the directory again when to renew.
    ask_at: Option<SystemTime>,
    /// Not before this is anything tried.
    not_before: Option<SystemTime>,
    failed: Failed,
    /// When to look into a store that machines share.
    look_at: Option<SystemTime>,
    /// Whether it is being looked into.
    looking: bool,
    /// Why the store could not be asked, the last times.
    trouble: Option<Trouble>,
    /// Key and chain of the one that is served, for a store that may forget.
    text: Option<Arc<str>>,
}

/// A store that cannot be asked.
#[derive(Debug)]
struct Trouble {
    error: String,
    /// How often in a row.
    tries: u32,
    /// Not before this is it asked again.
    until: SystemTime,
}

/// What is to be done about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// To order it, or to ask when; by whoever has the lock.
    SeeTo,
    /// To see what other machines have got.
    Look,
}

/// How it stands, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// `issued`, `ordering`, `failed` or `waiting`.
    pub word: &'static str,
    /// When it is ordered next, renewed or tried again.
    pub next: Option<SystemTime>,
    /// How often it failed in a row.
    pub failures: u32,
    /// Why, the last time.
    pub error: Option<String>,
}

impl Progress {
    /// Nothing yet, for these hosts.
    pub fn new(hosts: Box<[Box<str>]>) -> Self {
        Self { issued: Arc::new(Issued::new(hosts)), now: Mutex::default() }
    }

    /// The place that handshakes look at.
    pub fn issued(&self) -> &Arc<Issued> {
        &self.issued
    }

    /// How it stands.
    pub fn state(&self) -> State {
        let now = self.now.lock();
        let failures = now.failed.failures.max(now.trouble.as_ref().map_or(0, |trouble| trouble.tries));
        let word = match (now.ordering, failures, self.issued.certificate()) {
            (true, ..) => "ordering",
            (false, 1.., _) => "failed",
            (false, 0, Some(_)) => "issued",
            (false, 0, None) => "waiting",
        };
        let error = now.trouble.as_ref().map_or(&now.failed.error, |trouble| &trouble.error);
        let error = Some(error.clone()).filter(|error| !error.is_empty());
        let asked_at = now.trouble.as_ref().map(|trouble| trouble.until);
        State { word, next: now.renew_at.max(now.not_before).or(asked_at), failures, error }
    }

    /// What is to be done next, and when; `None` while something is.
    pub(super) fn next(&self) -> Option<(SystemTime, Task)> {
        let now = self.now.lock();
        if now.ordering || now.looking {
            return None;
        }
        let free = now.trouble.as_ref().map(|trouble| trouble.until);
        let due = now.due().unwrap_or(SystemTime::UNIX_EPOCH);
        let look = now.look_at.map(|at| (at, Task::Look));
        let next = look.into_iter().chain([(due, Task::SeeTo)]).min()?;
        Some((next.0.max(free.unwrap_or(next.0)), next.1))
    }

    /// Whether to order at `now`, rather than to ask when.
    pub(super) fn wants_order(&self, now: SystemTime) -> bool {
        self.now.lock().renew_at.is_none_or(|at| at <= now)
    }

    pub(super) fn begin(&self) {
        self.now.lock().ordering = true;
    }

    pub(super) fn end(&self) {
        self.now.lock().ordering = false;
    }

    pub(super) fn begin_look(&self) {
        self.now.lock().looking = true;
    }

    pub(super) fn end_look(&self) {
        self.now.lock().looking = false;
    }

    /// When to look into the store again; nothing kept it from being asked.
    pub(super) fn looked(&self, next: SystemTime) -> Option<u32> {
        let mut now = self.now.lock();
        now.look_at = Some(next);
        now.trouble.take().map(|trouble| trouble.tries)
    }

    /// Looks into the store at once, where it is one to be looked into.
    pub(super) fn look_now(&self) {
        let mut now = self.now.lock();
        now.look_at = now.look_at.map(|_| SystemTime::UNIX_EPOCH);
    }

    /// The store cannot be asked. Says how often in a row.
    pub(super) fn troubled(&self, error: String, at: SystemTime, dice: f64) -> u32 {
        let mut now = self.now.lock();
        let tries = now.trouble.as_ref().map_or(0, |trouble| trouble.tries).saturating_add(1);
        now.trouble = Some(Trouble { error, tries, until: schedule::ask_store_at(tries, at, dice) });
        tries
    }

    /// Holds on to key and chain of the one that is served.
    pub(super) fn hold(&self, text: Option<Arc<str>>) {
        self.now.lock().text = text;
    }

    /// Key and chain of the one that is served, while it is any good.
    pub(super) fn held(&self, at: SystemTime) -> Option<Arc<str>> {
        let good = self.issued.certificate().is_some_and(|served| served.not_after > at);
        self.now.lock().text.clone().filter(|_| good)
    }

    /// Nothing is tried before this.
    pub(super) fn wait_until(&self, at: SystemTime) {
        self.now.lock().not_before = Some(at);
    }

    /// Serves a certificate from now on. Says whether it is a new one.
    pub(super) fn serve(&self, certificate: Arc<Certificate>, dice: f64) -> bool {
        let same = |served: Arc<Certificate>| served.fingerprint == certificate.fingerprint;
        if self.issued.certificate().is_some_and(same) {
            return false;
        }
        let mut now = self.now.lock();
        now.renew_at = Some(validity(&certificate).renew_at(dice)).max(now.floor);
        now.ask_at = Some(SystemTime::UNIX_EPOCH);
        now.not_before = None;
        // Whoever got it, nothing is wrong any more.
        now.failed = Failed::default();
        self.issued.serve(certificate);
        true
    }

    /// The directory says when to renew, and when to be asked again; or that it does not say.
    pub(super) fn advised(&self, renew_at: Option<SystemTime>, ask_at: Option<SystemTime>) {
        let mut now = self.now.lock();
        now.renew_at = renew_at.or(now.renew_at).max(now.floor);
        now.ask_at = ask_at;
    }

    /// One was ordered at `at`: where the clock or the directory is wrong, the next would be due at once.
    pub(super) fn ordered(&self, at: SystemTime, validity: Validity) {
        self.now.lock().floor = Some(validity.soonest(at));
    }

    pub(super) fn failed(&self, failed: Failed) {
        let mut now = self.now.lock();
        now.not_before = (failed.failures > 0).then(|| failed.retry_at());
        now.failed = failed;
    }

    /// How often it failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.now.lock().failed.failures
    }
}

impl Now {
    fn due(&self) -> Option<SystemTime> {
        let asked = [self.renew_at, self.ask_at].into_iter().flatten().min();
        asked.max(self.not_before)
    }
}

pub(super) fn validity(certificate: &Certificate) -> Validity {
    Validity { from: certificate.not_before, until: certificate.not_after }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::tls::{Chain, Key};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn progress() -> Progress {
        Progress::new(vec!["a.test".into()].into())
    }

    /// One that is valid from 1970 for so many days.
    fn certificate(days: u32) -> Arc<Certificate> {
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        params.not_before = SystemTime::UNIX_EPOCH.into();
        params.not_after = (SystemTime::UNIX_EPOCH + days * DAY).into();
        let key = KeyPair::generate().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = key.serialize_pem() + &params.self_signed(&key).unwrap().pem();
        fs::write(file.path(), text).unwrap();
        let (chain, key) = (Chain::load(file.path()).unwrap(), Key::load(file.path()).unwrap());
        Arc::new(Certificate::new(chain, key).unwrap())
    }

    fn day(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + days * DAY
    }

    fn due(progress: &Progress) -> Option<SystemTime> {
        progress.next().map(|(at, _)| at)
    }

    #[test]
    fn what_is_missing_is_due_unless_it_failed() {
        let progress = progress();
        assert_eq!(due(&progress), Some(SystemTime::UNIX_EPOCH));
        assert!(progress.wants_order(day(1)));
        assert_eq!(progress.state().word, "waiting");
        progress.begin();
        assert_eq!((due(&progress), progress.state().word), (None, "ordering"));
        progress.end();
        let retry_at = day(3).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        progress.failed(Failed { failures: 2, retry_at, error: "no".into() });
        let state = progress.state();
        assert_eq!((state.word, state.next, state.failures), ("failed", Some(day(3)), 2));
        assert_eq!(due(&progress), Some(day(3)));
    }

    #[test]
    fn what_came_is_served_and_ends_a_failure() {
        let progress = progress();
        progress.failed(Failed { failures: 1, retry_at: u64::from(u32::MAX), error: "no".into() });
        let first = certificate(90);
        assert!(progress.serve(Arc::clone(&first), 0.0) && !progress.serve(first, 0.0));
        let state = progress.state();
        assert_eq!((state.word, state.next, state.error), ("issued", Some(day(60)), None));
        assert_eq!(due(&progress), Some(SystemTime::UNIX_EPOCH), "to ask when to renew");
        assert!(!progress.wants_order(day(59)) && progress.wants_order(day(60)));
        progress.advised(None, None);
        assert_eq!(due(&progress), Some(day(60)));
        assert!(progress.serve(certificate(30), 0.0));
        assert_eq!(progress.state().next, Some(day(20)));
    }

    #[test]
    fn a_store_is_looked_into_between_and_left_alone_while_it_is_away() {
        let progress = progress();
        progress.serve(certificate(90), 0.0);
        progress.advised(None, None);
        assert_eq!(progress.looked(day(1)), None);
        assert_eq!(progress.next(), Some((day(1), Task::Look)));
        progress.begin_look();
        assert_eq!(progress.next(), None);
        progress.end_look();
        assert_eq!(progress.troubled("away".into(), day(1), 0.0), 1);
        assert_eq!(progress.next(), Some((day(1) + Duration::from_secs(1), Task::Look)));
        let state = progress.state();
        assert_eq!((state.word, state.failures, state.error.as_deref()), ("failed", 1, Some("away")));
        assert_eq!(progress.looked(day(70)), Some(1));
        assert_eq!(progress.next(), Some((day(60), Task::SeeTo)));
        assert_eq!(progress.state().word, "issued");
    }

    #[test]
    fn what_is_held_for_the_store_is_what_is_still_good() {
        let progress = progress();
        progress.serve(certificate(90), 0.0);
        progress.hold(Some("text".into()));
        assert_eq!(progress.held(day(89)).as_deref(), Some("text"));
        assert_eq!(progress.held(day(90)), None);
    }

    #[test]
    fn what_was_just_ordered_is_not_ordered_again_whatever_is_suggested() {
        let progress = progress();
        let fresh = certificate(1);
        progress.ordered(day(10), validity(&fresh));
        progress.serve(fresh, 0.0);
        let hour = Duration::from_secs(60 * 60);
        assert!(!progress.wants_order(day(10) + hour / 2), "it had expired when it came");
        progress.advised(Some(day(1)), Some(day(11)));
        assert!(!progress.wants_order(day(10) + hour / 2) && progress.wants_order(day(10) + hour));
    }
}
