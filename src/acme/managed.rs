//! A certificate that is wanted, and what has come of it.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::directory::Directory;
use super::schedule::Validity;
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
        let word = match (now.ordering, now.failed.failures, self.issued.certificate()) {
            (true, ..) => "ordering",
            (false, 1.., _) => "failed",
            (false, 0, Some(_)) => "issued",
            (false, 0, None) => "waiting",
        };
        let error = Some(now.failed.error.clone()).filter(|error| !error.is_empty());
        State { word, next: now.renew_at.max(now.not_before), failures: now.failed.failures, error }
    }

    /// When it is due; `None` while it is being ordered.
    pub(super) fn due(&self) -> Option<SystemTime> {
        let now = self.now.lock();
        if now.ordering { None } else { Some(now.due().unwrap_or(SystemTime::UNIX_EPOCH)) }
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

    #[test]
    fn what_is_missing_is_due_unless_it_failed() {
        let progress = progress();
        assert_eq!(progress.due(), Some(SystemTime::UNIX_EPOCH));
        assert!(progress.wants_order(day(1)));
        assert_eq!(progress.state().word, "waiting");
        progress.begin();
        assert_eq!((progress.due(), progress.state().word), (None, "ordering"));
        progress.end();
        let retry_at = day(3).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        progress.failed(Failed { failures: 2, retry_at, error: "no".into() });
        let state = progress.state();
        assert_eq!((state.word, state.next, state.failures), ("failed", Some(day(3)), 2));
        assert_eq!(progress.due(), Some(day(3)));
    }

    #[test]
    fn what_came_is_served_and_ends_a_failure() {
        let progress = progress();
        progress.failed(Failed { failures: 1, retry_at: u64::from(u32::MAX), error: "no".into() });
        let first = certificate(90);
        assert!(progress.serve(Arc::clone(&first), 0.0) && !progress.serve(first, 0.0));
        let state = progress.state();
        assert_eq!((state.word, state.next, state.error), ("issued", Some(day(60)), None));
        assert_eq!(progress.due(), Some(SystemTime::UNIX_EPOCH), "to ask when to renew");
        assert!(!progress.wants_order(day(59)) && progress.wants_order(day(60)));
        progress.advised(None, None);
        assert_eq!(progress.due(), Some(day(60)));
        assert!(progress.serve(certificate(30), 0.0));
        assert_eq!(progress.state().next, Some(day(20)));
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
