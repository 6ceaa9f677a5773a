//! What resilience costs a request that succeeds: the breaker, passive health, the retry budget, the window below them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::upstream::{
    Breaker, BreakerPolicy, Ejections, Passive, PassivePolicy, RetryBudget, RetryBudgetPolicy, SlowCall,
    Verdict, Window,
};

criterion_group!(benches, breaker, passive, budget, window);
criterion_main!(benches);

const POLICY: BreakerPolicy = BreakerPolicy {
    consecutive_failures: Some(5),
    error_rate: Some(0.5),
    slow_call: Some(SlowCall { duration: Duration::from_secs(1), rate: 0.5 }),
    min_requests: 20,
    window: Duration::from_secs(10),
    open_for: Duration::from_secs(30),
    half_open_requests: 3,
    close_after: 3,
};

const PASSIVE: PassivePolicy = PassivePolicy {
    consecutive_errors: Some(5),
    error_rate: Some(0.5),
    min_requests: 20,
    window: Duration::from_secs(10),
    eject_for: Duration::from_secs(30),
    max_ejected: 0.5,
};

/// A call through a closed breaker: looked at, begun, ended.
fn breaker(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("breaker_closed");
    let run = |policy: &BreakerPolicy, breaker: &Breaker, now: Instant| {
        let admitted = breaker.admits(policy, now);
        let ticket = breaker.begin(policy, now);
        let took = Duration::from_millis(1);
        (admitted, ticket.and_then(|ticket| breaker.end(policy, now, ticket, Verdict::Success, took)))
    };
    let consecutive = BreakerPolicy { error_rate: None, slow_call: None, ..POLICY };
    for (name, policy) in [("rates", POLICY), ("consecutive_failures", consecutive)] {
        let mut clock = Clock::default();
        let breaker = Breaker::new(clock.now);
        group.bench_function(name, |bencher| {
            bencher.iter(|| run(black_box(&policy), black_box(&breaker), clock.tick()));
        });
    }
    group.finish();
}

/// A success that is noted, and the look at an endpoint that is not ejected.
fn passive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("passive");
    let mut clock = Clock::default();
    let (passive, ejections) = (Passive::new(clock.now), Ejections::default());
    group.bench_function("success", |bencher| {
        bencher.iter(|| {
            let now = clock.tick();
            black_box(&passive).record(black_box(&PASSIVE), now, Verdict::Success, &ejections, 3)
        });
    });
    group.bench_function("is_ejected", |bencher| {
        bencher.iter(|| black_box(&passive).is_ejected(clock.now));
    });
    group.finish();
}

/// What each request pays in, and what a retry asks for.
fn budget(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("retry_budget");
    let mut clock = Clock::default();
    let budget = RetryBudget::new(clock.now);
    let policy = RetryBudgetPolicy { ratio: 0.2, min_per_second: 10 };
    group.bench_function("deposit", |bencher| bencher.iter(|| black_box(&budget).deposit(clock.tick())));
    group.bench_function("withdraw", |bencher| {
        bencher.iter(|| black_box(&budget).withdraw(black_box(&policy), clock.tick()));
    });
    group.finish();
}

fn window(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("window");
    let (window, span) = (Window::default(), Duration::from_secs(10));
    let mut at = 0;
    group.bench_function("add", |bencher| {
        bencher.iter(|| {
            at += 10_000;
            black_box(&window).add(at, black_box(span), false, false);
        });
    });
    group.bench_function("totals", |bencher| bencher.iter(|| black_box(&window).totals(at, black_box(span))));
    group.finish();
}

/// Time that goes on by ten microseconds with each look, as it does at a hundred thousand requests a second.
struct Clock {
    now: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { now: Instant::now() }
    }
}

impl Clock {
    fn tick(&mut self) -> Instant {
        self.now += Duration::from_micros(10);
        self.now
    }
}
