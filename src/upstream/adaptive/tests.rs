use proptest::prelude::*;

use super::*;

const BOUNDS: AdaptiveBounds = AdaptiveBounds { min: 2, max: 1000 };
const STEP: Duration = Duration::from_millis(10);

/// A server that has `workers`, and makes what is more than those wait; and clients that want `demand` at once.
struct Simulated {
    limit: AdaptiveLimit,
    now: Instant,
    workers: f64,
    service: Duration,
    demand: u32,
    dice: fastrand::Rng,
}

impl Simulated {
    fn new(workers: u32, service: Duration, demand: u32) -> Self {
        let now = Instant::now();
        let dice = fastrand::Rng::with_seed(7);
        Self { limit: AdaptiveLimit::new(now), now, workers: workers.into(), service, demand, dice }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut owed = 0.0;
        while self.now < end {
            self.now += STEP;
            let under_way = self.demand.min(self.limit.limit(&BOUNDS));
            let slower = (f64::from(under_way) / self.workers).max(1.0);
            owed += f64::from(under_way) * STEP.as_secs_f64() / (self.service.as_secs_f64() * slower);
            while owed >= 1.0 {
                owed -= 1.0;
                let noise = 0.8 + 0.4 * self.dice.f64();
                let rtt = self.service.mul_f64(slower * noise);
                self.limit.sample(&BOUNDS, self.now, rtt, under_way, false);
            }
        }
    }

    /// The limit on average over some seconds.
    fn settled(&mut self) -> f64 {
        let mut sum = 0.0;
        for _ in 0..100 {
            self.run(Duration::from_millis(100));
            sum += f64::from(self.limit.limit(&BOUNDS));
        }
        sum / 100.0
    }
}

#[test]
fn it_settles_near_what_the_server_can_do() {
    for (workers, service) in [(8, 20), (50, 20), (200, 5), (50, 400)] {
        let mut server = Simulated::new(workers, Duration::from_millis(service), 2000);
        server.run(Duration::from_secs(120));
        let settled = server.settled() / f64::from(workers);
        println!("{workers} workers of {service} ms: {settled:.2}");
        assert!((0.9..2.5).contains(&settled), "{workers} workers: {settled}");
    }
}

#[test]
fn an_overload_that_lasts_is_not_taken_for_normal() {
    let mut server = Simulated::new(50, Duration::from_millis(20), 2000);
    server.run(Duration::from_secs(2 * 60 * 60));
    let settled = server.settled() / 50.0;
    println!("after two hours: {settled:.2}");
    assert!((0.9..2.5).contains(&settled), "{settled}");
}

#[test]
fn it_follows_a_server_that_loses_half_of_its_workers_and_gets_them_back() {
    let mut server = Simulated::new(100, Duration::from_millis(20), 2000);
    server.run(Duration::from_secs(120));
    let before = server.settled();
    server.workers = 50.0;
    server.run(Duration::from_secs(60));
    let meanwhile = server.settled();
    server.workers = 100.0;
    server.run(Duration::from_secs(120));
    let after = server.settled();
    println!("{before:.0}, with half of the workers {meanwhile:.0}, then {after:.0}");
    assert!(meanwhile < before * 0.75, "{before} {meanwhile}");
    assert!(after > before * 0.8, "{before} {after}");
}

#[test]
fn a_limit_that_is_not_reached_stays() {
    let mut server = Simulated::new(100, Duration::from_millis(20), 5);
    server.run(Duration::from_secs(60));
    assert_eq!(server.limit.limit(&BOUNDS), 20);
}

#[test]
fn drops_take_it_down_to_the_minimum_and_no_further() {
    let start = Instant::now();
    let limit = AdaptiveLimit::new(start);
    for at in 1..200 {
        limit.sample(&BOUNDS, start + WINDOW * at, Duration::ZERO, 20, true);
    }
    assert_eq!(limit.limit(&BOUNDS), 2);
}

#[test]
fn bounds_that_change_hold_at_once() {
    let limit = AdaptiveLimit::new(Instant::now());
    assert_eq!(limit.limit(&AdaptiveBounds { min: 1, max: 7 }), 7);
    assert_eq!(limit.limit(&AdaptiveBounds { min: 30, max: 7 }), 30);
}

proptest! {
    #[test]
    fn it_stays_within_its_bounds(
        samples in prop::collection::vec((0u64..100_000, 0u64..500, 0u32..2000, prop::bool::weighted(0.02)), 1..500),
    ) {
        let mut now = Instant::now();
        let limit = AdaptiveLimit::new(now);
        for (micros, pause, in_flight, dropped) in samples {
            now += Duration::from_millis(pause);
            limit.sample(&BOUNDS, now, Duration::from_micros(micros), in_flight, dropped);
            prop_assert!((BOUNDS.min..=BOUNDS.max).contains(&limit.limit(&BOUNDS)));
            prop_assert!(limit.learnt.lock().long_run.is_finite());
        }
    }
}
