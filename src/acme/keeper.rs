//! Does what is due: orders, renews, tries again, asks when to renew, looks for what other machines have got.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use prometheus::IntCounterVec;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::attempt::Session;
use super::challenges::Challenges;
use super::error::Error;
use super::managed::{Managed, Progress, Task, validity};
use super::schedule;
use super::store::{Failed, Kept, Lock};
use crate::telemetry::{EventKind, Events, Subject};

/// Orders under way at once.
const AT_ONCE: usize = 4;
/// Looks into stores at once.
const LOOKS: usize = 16;
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
    /// Where failures are told.
    pub events: Events,
}

/// What came of a look at a certificate.
enum Outcome {
    /// It is not due, or another process is at it.
    Nothing,
    /// It was found in the store.
    Found,
    /// It was ordered.
    Ordered,
    /// It was ordered in vain.
    Failed,
}

/// Serves what the stores that machines share have, as far as they can be asked.
pub async fn recall(wanted: &[Managed]) {
    let shared = wanted.iter().filter(|managed| managed.directory.store.shared().is_some());
    let shared: Vec<Managed> = shared.cloned().collect();
    let looks = shared.into_iter().map(|managed| async move { managed.look().await });
    futures_util::stream::iter(looks).buffer_unordered(LOOKS).for_each(|_| async {}).await;
}

impl Keeper {
    /// Keeps at it until the `end`, when every order is given up, or until it is dropped. Looks again when something
    /// `changed`.
    pub async fn keep(self, changed: &Notify, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let (mut under_way, mut looks) = (JoinSet::new(), JoinSet::new());
        loop {
            let now = SystemTime::now();
            let (wanted, challenges) = (self.wanted)().unwrap_or_default();
            let mut next = now + NAP;
            for managed in &wanted {
                match managed.progress.next() {
                    Some((at, _)) if at > now => next = next.min(at),
                    Some((_, Task::SeeTo)) if under_way.len() < AT_ONCE => {
                        let busy = Busy::new(managed, Progress::begin, Progress::end);
                        under_way.spawn(self.attend(managed.clone(), Arc::clone(&challenges), busy));
                    }
                    Some((_, Task::Look)) if looks.len() < LOOKS => {
                        let busy = Busy::new(managed, Progress::begin_look, Progress::end_look);
                        looks.spawn(self.look(managed.clone(), busy));
                    }
                    // Its turn comes when one of the others has ended.
                    Some(_) | None => {}
                }
            }
            let nap = next.duration_since(now).unwrap_or_default();
            tokio::select! {
                () = &mut end => break,
                () = changed.notified() => {
                    let (wanted, _) = (self.wanted)().unwrap_or_default();
                    wanted.iter().for_each(|managed| managed.progress.look_now());
                }
                // One that panicked has ended, too.
                Some(_) = under_way.join_next() => {}
                Some(_) = looks.join_next() => {}
                () = tokio::time::sleep(nap), if !wanted.is_empty() => {}
            }
        }
        tokio::join!(under_way.shutdown(), looks.shutdown());
        let (wanted, _) = (self.wanted)().unwrap_or_default();
        for shared in wanted.iter().filter_map(|managed| managed.directory.store.shared()) {
            // Locks are given back: whoever comes next need not wait for them.
            shared.settled().await;
        }
    }

    /// Looks at one certificate, orders it if need be, and tells what came of it.
    fn attend(
        &self,
        managed: Managed,
        challenges: Arc<Challenges>,
        busy: Busy,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (served, orders, events) = (Arc::clone(&self.served), self.orders.clone(), self.events.clone());
        async move {
            let result = match managed.see_to(&challenges, &events).await {
                Ok(Outcome::Nothing) => None,
                Ok(Outcome::Found) => {
                    served();
                    None
                }
                Ok(Outcome::Ordered) => {
                    served();
                    Some("success")
                }
                Ok(Outcome::Failed) => Some("failure"),
                // Nothing was ordered.
                Err(error @ Error::Shared(_)) => {
                    managed.troubled(&error);
                    None
                }
                Err(error) => {
                    managed.failed(&error, None, &events).await;
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

    /// Looks for what another machine has got.
    fn look(&self, managed: Managed, busy: Busy) -> impl Future<Output = ()> + Send + use<> {
        let served = Arc::clone(&self.served);
        async move {
            if managed.look().await {
                served();
            }
            drop(busy);
        }
    }
}

impl Managed {
    /// Serves what the store has, where that can be said without asking anybody.
    pub fn recall_at_hand(&self) {
        if let Some(certificate) = self.directory.store.at_hand(self.hosts()) {
            self.progress.serve(certificate, fastrand::f64());
        }
    }

    /// Serves what the store has. Says whether that is new. What is of no use is told at this `level`, and left to be
    /// ordered anew.
    async fn recall(&self, level: log::Level) -> Result<bool, Error> {
        let (store, now) = (&self.directory.store, SystemTime::now());
        let kept = store.certificate(self.hosts()).await;
        let Some(shared) = store.shared() else { return Ok(kept?.is_some_and(|kept| self.serve(kept))) };
        let new = match (kept, self.progress.held(now)) {
            (Ok(Some(kept)), _) => self.serve(kept),
            (Ok(None), Some(text)) => {
                log::info!("acme {}: {} was forgotten by the store", self.directory.name, self.names());
                shared.put_back(self.hosts(), &text).await?;
                false
            }
            (Ok(None), None) => false,
            (Err(error @ Error::Unusable(_)), _) => {
                log::log!(level, "acme {}: {error}", self.directory.name);
                false
            }
            (Err(error), _) => return Err(error),
        };
        let soon = self.progress.issued().certificate().is_none() || self.progress.failures() > 0;
        if let Some(tries) = self.progress.looked(schedule::look_at(soon, now, fastrand::f64())) {
            log::info!("acme {}: the store answers again after {tries} tries", self.directory.name);
        }
        Ok(new)
    }

    /// The same, and notes when the store cannot be asked.
    async fn look(&self) -> bool {
        self.recall(log::Level::Debug).await.unwrap_or_else(|error| {
            self.troubled(&error);
            false
        })
    }

    fn serve(&self, kept: Kept) -> bool {
        self.progress.hold(kept.text);
        self.progress.serve(kept.certificate, fastrand::f64())
    }

    fn hosts(&self) -> &[Box<str>] {
        self.progress.issued().hosts()
    }

    fn names(&self) -> String {
        self.hosts().join(", ")
    }

    async fn see_to(&self, challenges: &Arc<Challenges>, events: &Events) -> Result<Outcome, Error> {
        let (store, now) = (&self.directory.store, SystemTime::now());
        let lock = store.lock(self.hosts()).await?;
        if self.recall(log::Level::Warn).await? {
            return Ok(Outcome::Found);
        }
        let Some(lock) = lock else {
            self.progress.wait_until(now + ELSEWHERE.mul_f64(1.0 + fastrand::f64()));
            return Ok(Outcome::Nothing);
        };
        if let Some(failed) = store.failed(self.hosts()).await? {
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
        if let Err(error) = self.order(challenges, &lock).await {
            self.failed(&error, Some(&lock), events).await;
            return Ok(Outcome::Failed);
        }
        Ok(Outcome::Ordered)
    }

    async fn order(&self, challenges: &Arc<Challenges>, lock: &Lock) -> Result<(), Error> {
        let (hosts, directory) = (self.hosts(), &self.directory);
        log::info!("acme {}: ordering a certificate for {}", directory.name, self.names());
        let (old, failures) = (self.progress.issued().certificate(), self.progress.failures());
        let session = Session::open(directory).await?;
        let fresh = match session.order(hosts, challenges, old.as_deref(), failures).await {
            Err(Error::NoAccount { message }) => {
                log::warn!("acme {}: another account is made: {message}", directory.name);
                directory.store.forget_account(session.account()).await?;
                let session = Session::open(directory).await?;
                session.order(hosts, challenges, old.as_deref(), failures).await?
            }
            outcome => outcome?,
        };
        directory.store.keep_certificate(hosts, &fresh.key, &fresh.chain, lock).await?;
        let found = directory.store.certificate(hosts).await?;
        let kept = found.ok_or_else(|| Error::Unusable("the log says why".into()))?;
        // Only now: a certificate that is of no use is a failure like others, and is waited for longer each time.
        directory.store.keep_failed(hosts, None, lock).await?;
        let until = httpdate::fmt_http_date(kept.certificate.not_after);
        self.progress.ordered(SystemTime::now(), validity(&kept.certificate));
        self.serve(kept);
        log::info!("acme {}: a certificate for {} until {until}", directory.name, self.names());
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

    /// Notes a failure, and when to try again; for others, too, where the lock is ours.
    async fn failed(&self, error: &Error, lock: Option<&Lock>, events: &Events) {
        let now = SystemTime::now();
        let failures = self.progress.failures().saturating_add(1);
        let at = schedule::retry_at(failures, now, error.retry_at(), fastrand::f64());
        let wait = at.duration_since(now).unwrap_or_default().as_secs();
        let (directory, names) = (&self.directory.name, self.names());
        let subject = Subject {
            directory: Some((&**directory).into()),
            hosts: Some(self.hosts().into()),
            ..Subject::default()
        };
        events.tell(
            EventKind::CertificateFailed,
            subject,
            error,
            format_args!("acme {directory}: no certificate for {names}: {error}; trying again in {wait} s"),
        );
        let retry_at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let failed = Failed { failures, retry_at, error: error.to_string() };
        if let Some(lock) = lock
            && let Err(error) = self.directory.store.keep_failed(self.hosts(), Some(&failed), lock).await
        {
            log::warn!("acme {}: {error}", self.directory.name);
        }
        self.progress.failed(failed);
    }

    /// Notes that the store cannot be asked. What is served goes on being served.
    fn troubled(&self, error: &Error) {
        let tries = self.progress.troubled(error.to_string(), SystemTime::now(), fastrand::f64());
        let level = if tries == 1 { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "acme {}: {}: {error}", self.directory.name, self.names());
    }
}

/// A certificate that something is done about, for as long as this lives.
struct Busy {
    progress: Arc<Progress>,
    end: fn(&Progress),
}

impl Busy {
    fn new(managed: &Managed, begin: fn(&Progress), end: fn(&Progress)) -> Self {
        begin(&managed.progress);
        Self { progress: Arc::clone(&managed.progress), end }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        (self.end)(&self.progress);
    }
}
