use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;
use crate::upstream::TcpProbe;

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
        told: Arc::new(|_, _| {}),
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
    check.told = Arc::new(move |result, change| notes.lock().extend(change.map(|change| (result, change))));
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
    let changes =
        [("status", Change::Unhealthy), ("success", Change::Healthy), ("timeout", Change::Unhealthy)];
    assert_eq!(*told.lock(), changes);
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
    let mut checks: Vec<_> =
        (0..1000).map(|at| check(&format!("u{at} {address}"), Arc::clone(&probe) as _, address)).collect();
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
