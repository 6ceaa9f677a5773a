//! Does what is due: orders, renews, tries again, asks when to renew.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::IntCounterVec;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::attempt::Session;
use super::challenges::Challenges;
use super::error::Error;
use super::managed::{Managed, Progress, validity};
use super::schedule;
use super::store::Failed;

/// Orders under way at once.
const AT_ONCE: usize = 4;
/// How long to leave a certificate alone that another process orders.
const ELSEWHERE: Duration = Duration::from_secs(5);
/// How long until a directory is asked again when to renew, after it could not be asked.
const UNADVISED: Duration = Duration::from_secs(6 * 60 * 60);
/// The longest sleep: a clock may be set while nobody looks.
const NAP: Duration = Duration::from_secs(60 * 60);

/// What is wanted now, and where its proofs are shown.
type Wanted = dyn Fn() -> Option<(Box<[Managed]>, Arc<Challenges>)> + Send + Sync;

/// Sees to it that all that is wanted is there.
pub struct Keeper {
    /// What is wanted now.
    pub wanted: Box<Wanted>,
    /// Called for every certificate that is served anew.
    pub served: Arc<dyn Fn() + Send + Sync>,
    /// Orders by directory and result.
    pub orders: IntCounterVec,
}

/// What came of a look at a certificate.
enum Outcome {
    /// It is not due, or another process is at it.
    Nothing,
    /// It was found in the store.
    Found,
    /// It was ordered.
    Ordered,
}

impl Keeper {
    /// Keeps at it until it is dropped, and with it every order. Looks again when something `changed`.
    pub async fn keep(self, changed: &Notify) {
        let mut under_way = JoinSet::new();
        loop {
            let now = SystemTime::now();
            let (wanted, challenges) = (self.wanted)().unwrap_or_default();
            for managed in &wanted {
                if under_way.len() < AT_ONCE && managed.progress.due().is_some_and(|at| at <= now) {
                    let busy = Busy::new(&managed.progress);
                    under_way.spawn(self.attend(managed.clone(), Arc::clone(&challenges), busy));
                }
            }
            let next =
                wanted.iter().filter_map(|managed| managed.progress.due()).filter(|at| *at > now).min();
            let nap = next.and_then(|at| at.duration_since(now).ok()).unwrap_or(NAP).min(NAP);
            tokio::select! {
                () = changed.notified() => {}
                // One that panicked has ended, too.
                Some(_) = under_way.join_next() => {}
                () = tokio::time::sleep(nap), if !wanted.is_empty() => {}
            }
        }
    }

    /// Looks at one certificate, orders it if need be, and tells what came of it.
    fn attend(
        &self,
        managed: Managed,
        challenges: Arc<Challenges>,
        busy: Busy,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (served, orders) = (Arc::clone(&self.served), self.orders.clone());
        async move {
            let outcome = managed.see_to(&challenges).await;
            let result = match &outcome {
                Ok(Outcome::Nothing) => None,
                Ok(Outcome::Found) => {
                    served();
                    None
                }
                Ok(Outcome::Ordered) => {
                    served();
                    Some("success")
                }
                Err(error) => {
                    managed.failed(error);
                    Some("failure")
                }
            };
            let count = |result| orders.get_metric_with_label_values(&[&*managed.directory.name, result]);
            if let Some(Ok(counter)) = result.map(count) {
                counter.inc();
            }
            drop(busy);
        }
    }
}

impl Managed {
    /// Serves what the store has. Says whether that is new.
    pub fn recall(&self) -> bool {
        let found = self.directory.store.certificate(self.hosts());
        found.is_some_and(|certificate| self.progress.serve(certificate, fastrand::f64()))
    }

    fn hosts(&self) -> &[Box<str>] {
        self.progress.issued().hosts()
    }

    async fn see_to(&self, challenges: &Arc<Challenges>) -> Result<Outcome, Error> {
        let (store, now) = (&self.directory.store, SystemTime::now());
        let lock = store.lock(self.hosts())?;
        if self.recall() {
            return Ok(Outcome::Found);
        }
        let Some(_lock) = lock else {
            self.progress.wait_until(now + ELSEWHERE.mul_f64(1.0 + fastrand::f64()));
            return Ok(Outcome::Nothing);
        };
        if let Some(failed) = store.failed(self.hosts()) {
            let early = failed.retry_at() > now;
            self.progress.failed(failed);
            if early {
                return Ok(Outcome::Nothing);
            }
        }
        if !self.progress.wants_order(now) {
            self.be_advised(now).await;
            return Ok(Outcome::Nothing);
        }
        self.order(challenges).await?;
        Ok(Outcome::Ordered)
    }

    async fn order(&self, challenges: &Arc<Challenges>) -> Result<(), Error> {
        let (hosts, directory) = (self.hosts(), &self.directory);
        log::info!("acme {}: ordering a certificate for {}", directory.name, hosts.join(", "));
        let (old, failures) = (self.progress.issued().certificate(), self.progress.failures());
        let session = Session::open(directory).await?;
        let fresh = match session.order(hosts, challenges, old.as_deref(), failures).await {
            Err(Error::NoAccount { message }) => {
                log::warn!("acme {}: another account is made: {message}", directory.name);
                directory.store.forget_account(session.account())?;
                let session = Session::open(directory).await?;
                session.order(hosts, challenges, old.as_deref(), failures).await?
            }
            outcome => outcome?,
        };
        directory.store.keep_certificate(hosts, &fresh.key, &fresh.chain)?;
        let found = directory.store.certificate(hosts);
        let certificate = found.ok_or_else(|| Error::Unusable("the log says why".into()))?;
        // Only now: a certificate that is of no use is a failure like others, and is waited for longer each time.
        directory.store.keep_failed(hosts, None)?;
        let until = httpdate::fmt_http_date(certificate.not_after);
        self.progress.ordered(SystemTime::now(), validity(&certificate));
        self.progress.serve(certificate, fastrand::f64());
        log::info!("acme {}: a certificate for {} until {until}", directory.name, hosts.join(", "));
        Ok(())
    }

    /// Asks the directory when to renew. That it does not say is no failure.
    async fn be_advised(&self, now: SystemTime) {
        let Some(certificate) = self.progress.issued().certificate() else { return };
        let asked = async { Session::open(&self.directory).await?.suggested(&certificate).await };
        match asked.await {
            Ok(None) => self.progress.advised(None, None),
            Ok(Some((window, ask_in))) => {
                let at = validity(&certificate).renew_in(window, fastrand::f64());
                self.progress.advised(Some(at), Some(now + ask_in.max(ELSEWHERE)));
            }
            Err(error) => {
                log::debug!("acme {}: no word on when to renew: {error}", self.directory.name);
                self.progress.advised(None, Some(now + UNADVISED));
            }
        }
    }

    /// Notes a failure, and when to try again.
    fn failed(&self, error: &Error) {
        let now = SystemTime::now();
        let failures = self.progress.failures().saturating_add(1);
        let at = schedule::retry_at(failures, now, error.retry_at(), fastrand::f64());
        let wait = at.duration_since(now).unwrap_or_default().as_secs();
        log::warn!(
            "acme {}: no certificate for {}: {error}; trying again in {wait} s",
            self.directory.name,
            self.hosts().join(", ")
        );
        let retry_at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let failed = Failed { failures, retry_at, error: error.to_string() };
        if let Err(error) = self.directory.store.keep_failed(self.hosts(), Some(&failed)) {
            log::warn!("acme {}: {error}", self.directory.name);
        }
        self.progress.failed(failed);
    }
}

/// A certificate that is being seen to, for as long as this lives.
struct Busy(Arc<Progress>);

impl Busy {
    fn new(progress: &Arc<Progress>) -> Self {
        progress.begin();
        Self(Arc::clone(progress))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}
