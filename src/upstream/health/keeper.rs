//! Probes what is due: all endpoints of all upstreams, from one task.
//!
//! 1. An endpoint is probed by one probe at a time, and at most [`AT_ONCE`] are under way together. When more are due, those
//!    that wait longest go first; pauses grow then, and nothing else does.
//! 2. What is wanted is read again when something changed. An endpoint that is still wanted keeps its turn, or gets an earlier
//!    one when its interval has become shorter; one that is new is probed soon.
//! 3. A probe that takes too long, or panics, has failed. One under way for an endpoint that is no longer wanted is not
//!    recorded.
//! 4. At the end everything is dropped: probes under way with their connections.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ahash::RandomState;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;

use super::{Change, Checked, HealthCheck, ProbeError, Probed, Target, Thresholds, first_pause, pause};

/// Probes under way at once.
const AT_ONCE: usize = 64;

/// An endpoint that is to be probed.
#[derive(Clone)]
pub struct Check {
    /// What it is told by when everything is read again: the upstream's name and the endpoint's address.
    pub key: Arc<str>,
    /// Who is probed.
    pub target: Target,
    /// How often, and what follows.
    pub policy: Policy,
    /// How.
    pub probe: Arc<dyn HealthCheck>,
    /// What is known of it.
    pub state: Arc<Checked>,
    /// Called when it has become unhealthy, or healthy again. Everything waits for it.
    pub on_change: Arc<dyn Fn(Change) + Send + Sync>,
}

/// How often an endpoint is probed, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Between the end of a probe and the beginning of the next, as a rule (see [`pause`]).
    pub interval: Duration,
    /// The longest that a whole probe may take.
    pub timeout: Duration,
    /// How many probes in a row change what is thought of it.
    pub thresholds: Thresholds,
}

/// Sees to it that all that is to be probed is probed.
pub struct HealthKeeper {
    /// What is to be probed now. A key that comes twice counts once.
    pub wanted: Box<dyn Fn() -> Vec<Check> + Send + Sync>,
}

impl HealthKeeper {
    /// Keeps at it until the `end`, when probes under way are dropped, or until it is dropped. Reads again what is wanted when
    /// something `changed`.
    pub async fn keep(self, changed: &Notify, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
        let mut rounds = Rounds::default();
        rounds.adopt((self.wanted)(), Instant::now());
        loop {
            let next = rounds.start_due(Instant::now());
            if let Some(next) = next
                && alarm.deadline().into_std() != next
            {
                alarm.as_mut().reset(next.into());
            }
            tokio::select! {
                () = &mut end => return,
                () = changed.notified() => rounds.adopt((self.wanted)(), Instant::now()),
                Some(ended) = rounds.under_way.next() => rounds.record(ended, Instant::now()),
                () = &mut alarm, if next.is_some() => {}
            }
        }
    }
}

/// Whose turn it is, and what is under way.
#[derive(Default)]
struct Rounds {
    turns: HashMap<Arc<str>, Turn, RandomState>,
    /// Turns by time. One that was moved leaves its old time behind, which is passed over.
    due: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
}

struct Turn {
    check: Check,
    /// When it is probed next; `None` while it is being probed.
    at: Option<Instant>,
    wanted: bool,
}

/// A probe that has ended.
struct Ended {
    key: Arc<str>,
    state: Arc<Checked>,
    probed: Probed,
}

impl Rounds {
    /// Takes over what is wanted now.
    fn adopt(&mut self, wanted: Vec<Check>, now: Instant) {
        self.turns.values_mut().for_each(|turn| turn.wanted = false);
        for check in wanted {
            match self.turns.entry(Arc::clone(&check.key)) {
                Entry::Occupied(mut known) => {
                    let turn = known.get_mut();
                    turn.wanted = true;
                    let latest = now + pause(check.policy.interval, &check.state, false, 1.0);
                    if turn.at.is_some_and(|at| at > latest) {
                        turn.at = Some(latest);
                        self.due.push(Reverse((latest, Arc::clone(&check.key))));
                    }
                    turn.check = check;
                }
                Entry::Vacant(place) => {
                    let at = now + first_pause(check.policy.interval, fastrand::f64());
                    self.due.push(Reverse((at, Arc::clone(&check.key))));
                    place.insert(Turn { check, at: Some(at), wanted: true });
                }
            }
        }
        self.turns.retain(|_, turn| turn.wanted || turn.at.is_none());
        let turns = &self.turns;
        self.due.retain(|Reverse((at, key))| turns.get(key).is_some_and(|turn| turn.at == Some(*at)));
    }

    /// Begins what is due, as far as there is room. Says when the next is due, if it need not wait for another to end.
    fn start_due(&mut self, now: Instant) -> Option<Instant> {
        while self.under_way.len() < AT_ONCE {
            let Reverse((at, key)) = self.due.peek()?;
            let turn = self.turns.get_mut(key).filter(|turn| turn.at == Some(*at));
            if turn.is_some() && *at > now {
                return Some(*at);
            }
            if let Some(turn) = turn {
                turn.at = None;
                self.under_way.push(Box::pin(probe(turn.check.clone())));
            }
            self.due.pop();
        }
        None
    }

    fn record(&mut self, Ended { key, state, probed }: Ended, now: Instant) {
        let Entry::Occupied(mut known) = self.turns.entry(key) else { return };
        if !known.get().wanted {
            known.remove();
            return;
        }
        let turn = known.get_mut();
        let Check { key, policy, state: current, on_change, .. } = &turn.check;
        let mut first = !current.is_probed();
        if Arc::ptr_eq(&state, current) {
            if let Some(change) = current.record(&policy.thresholds, probed) {
                // One that panics is not to end all others.
                let _ = std::panic::catch_unwind(AssertUnwindSafe(|| on_change(change)));
            }
        } else {
            // It was asked for somebody else.
            first = false;
        }
        let at = now + pause(policy.interval, current, first, fastrand::f64());
        self.due.push(Reverse((at, Arc::clone(key))));
        turn.at = Some(at);
    }
}

async fn probe(check: Check) -> Ended {
    let Check { key, target, policy, probe, state, .. } = check;
    let (at, begun) = (SystemTime::now(), Instant::now());
    let asked = AssertUnwindSafe(async { probe.probe(&target).await }).catch_unwind();
    let outcome = match tokio::time::timeout(policy.timeout, asked).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(ProbeError::Broken),
        Err(_) => Err(ProbeError::Timeout),
    };
    Ended { key, state, probed: Probed { at, took: begun.elapsed(), outcome } }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use parking_lot::Mutex;
    use rustix::time::{ClockId, clock_gettime};
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    use super::super::TcpProbe;
    use super::*;

    /// Answers as it is told, and counts.
    #[derive(Default)]
    struct Scripted {
        sick: AtomicBool,
        hangs: AtomicBool,
        panics: AtomicBool,
        under_way: AtomicUsize,
        most: AtomicUsize,
        begun: AtomicUsize,
    }

    struct Leaving<'a>(&'a AtomicUsize);

    impl Drop for Leaving<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl HealthCheck for Scripted {
        fn probe<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<(), ProbeError>> {
            Box::pin(async move {
                let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
                let _leaving = Leaving(&self.under_way);
                self.most.fetch_max(now, Ordering::Relaxed);
                self.begun.fetch_add(1, Ordering::Relaxed);
                assert!(!self.panics.load(Ordering::Relaxed), "as told");
                if self.hangs.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                if self.sick.load(Ordering::Relaxed) { Err(ProbeError::Status(500)) } else { Ok(()) }
            })
        }
    }

    const POLICY: Policy = Policy {
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(200),
        thresholds: Thresholds { healthy_after: 2, unhealthy_after: 2 },
    };

    fn check(key: &str, probe: Arc<dyn HealthCheck>, address: SocketAddr) -> Check {
        Check {
            key: key.into(),
            target: Target { address },
            policy: POLICY,
            probe,
            state: Arc::default(),
            on_change: Arc::new(|_| {}),
        }
    }

    fn nowhere() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    /// A keeper at work; what it wants can be changed.
    struct AtWork {
        wanted: Arc<Mutex<Vec<Check>>>,
        changed: Arc<Notify>,
        end: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    fn at_work(wanted: Vec<Check>) -> AtWork {
        let wanted = Arc::new(Mutex::new(wanted));
        let (source, changed) = (Arc::clone(&wanted), Arc::new(Notify::new()));
        let (end, ended) = oneshot::channel();
        let notify = Arc::clone(&changed);
        let task = tokio::spawn(async move {
            let keeper = HealthKeeper { wanted: Box::new(move || source.lock().clone()) };
            keeper.keep(&notify, async { drop(ended.await) }).await;
        });
        AtWork { wanted, changed, end, task }
    }

    async fn until(what: impl Fn() -> bool) {
        let patience = Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(Instant::now() < patience, "it never came");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn changes_are_told() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let probe = Arc::new(Scripted::default());
        let mut check = check("u a", Arc::clone(&probe) as _, nowhere());
        let notes = Arc::clone(&told);
        check.on_change = Arc::new(move |change| notes.lock().push(change));
        let state = Arc::clone(&check.state);
        let work = at_work(vec![check]);
        until(|| state.is_probed()).await;
        assert!(state.is_healthy());
        probe.sick.store(true, Ordering::Relaxed);
        until(|| !state.is_healthy()).await;
        probe.sick.store(false, Ordering::Relaxed);
        until(|| state.is_healthy()).await;
        probe.hangs.store(true, Ordering::Relaxed);
        until(|| !state.is_healthy()).await;
        let last = state.report().last.unwrap();
        assert_eq!(last.error.as_deref(), Some("no answer in time"));
        assert!(last.took >= POLICY.timeout);
        probe.hangs.store(false, Ordering::Relaxed);
        probe.panics.store(true, Ordering::Relaxed);
        until(|| state.report().last.unwrap().error.as_deref() == Some("the probe itself broke")).await;
        assert_eq!(*told.lock(), [Change::Unhealthy, Change::Healthy, Change::Unhealthy]);
        work.end.send(()).unwrap();
        work.task.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_longer_wanted_is_left_alone_and_what_is_new_is_probed_soon() {
        let (old, new) = (Arc::new(Scripted::default()), Arc::new(Scripted::default()));
        old.hangs.store(true, Ordering::Relaxed);
        let first = check("u a", Arc::clone(&old) as _, nowhere());
        let state = Arc::clone(&first.state);
        let work = at_work(vec![first]);
        until(|| old.under_way.load(Ordering::Relaxed) == 1).await;
        let second = check("u b", Arc::clone(&new) as _, nowhere());
        let fresh = Arc::clone(&second.state);
        *work.wanted.lock() = vec![second];
        work.changed.notify_one();
        until(|| fresh.is_probed() && old.under_way.load(Ordering::Relaxed) == 0).await;
        assert!(!state.is_probed());
        assert_eq!(old.begun.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_shorter_interval_holds_at_once() {
        let probe = Arc::new(Scripted::default());
        let mut slow = check("u a", Arc::clone(&probe) as _, nowhere());
        let work = at_work(vec![slow.clone()]);
        until(|| slow.state.is_probed()).await;
        slow.policy.interval = Duration::from_secs(1000);
        *work.wanted.lock() = vec![slow.clone()];
        work.changed.notify_one();
        // It keeps the turn it had; the one after it is far away.
        until(|| slow.state.report().in_a_row == 2).await;
        slow.policy.interval = POLICY.interval;
        *work.wanted.lock() = vec![slow.clone()];
        work.changed.notify_one();
        until(|| slow.state.report().in_a_row >= 4).await;
    }

    #[tokio::test]
    async fn few_are_under_way_at_once_and_all_end_with_the_keeper() {
        let probe = Arc::new(Scripted::default());
        probe.hangs.store(true, Ordering::Relaxed);
        let checks: Vec<_> =
            (0..300).map(|at| check(&format!("u {at}"), Arc::clone(&probe) as _, nowhere())).collect();
        let work = at_work(checks.clone());
        until(|| checks.iter().all(|check| check.state.is_probed())).await;
        assert_eq!(probe.most.load(Ordering::Relaxed), AT_ONCE);
        until(|| probe.under_way.load(Ordering::Relaxed) > 0).await;
        work.end.send(()).unwrap();
        work.task.await.unwrap();
        assert_eq!(probe.under_way.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nothing_to_do_is_no_work() {
        let mut rounds = Rounds::default();
        rounds.adopt(Vec::new(), Instant::now());
        assert_eq!(rounds.start_due(Instant::now()), None);
    }

    /// What it costs to keep 1,000 endpoints, each probed every 5 s: `cargo test --lib cost_of_a_thousand -- --ignored
    /// --nocapture`.
    #[test]
    #[ignore = "a measurement, which takes 20 s"]
    fn cost_of_a_thousand() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        std::thread::spawn(move || while server.accept().is_ok() {});
        let cpu = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let probe = Arc::new(TcpProbe::default());
        let mut checks: Vec<_> = (0..1000)
            .map(|at| check(&format!("u{at} {address}"), Arc::clone(&probe) as _, address))
            .collect();
        checks.iter_mut().for_each(|check| check.policy.interval = Duration::from_secs(5));
        let keeper = HealthKeeper { wanted: Box::new(move || checks.clone()) };
        let changed = Notify::new();
        let spent = runtime.block_on(async {
            let mut spent = Duration::ZERO;
            let end = async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                let before = cpu();
                tokio::time::sleep(Duration::from_secs(10)).await;
                spent = cpu() - before;
            };
            keeper.keep(&changed, end).await;
            spent
        });
        println!("1,000 endpoints, 200 probes each second: {:.2} % of a core", spent.as_secs_f64() * 10.0);
    }

    #[tokio::test]
    async fn a_listener_that_comes_back_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let check = check("u a", Arc::new(TcpProbe::default()), address);
        let state = Arc::clone(&check.state);
        let _work = at_work(vec![check]);
        until(|| !state.is_healthy()).await;
        let _listener = TcpListener::bind(address).await.unwrap();
        until(|| state.is_healthy()).await;
    }
}
