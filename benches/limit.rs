//! What a decision of a limiter costs among a million live keys, on one thread and on two, and what ten million keys
//! leave behind.

#![allow(clippy::unwrap_used, reason = "a bench may fail")]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::limit::{Algorithm, Limiter, Policy, Table, Tat};

criterion_group!(benches, decide, threads, hot, flood);
criterion_main!(benches);

const KEYS: u64 = 1_000_000;

/// What a good hash makes of a number.
fn key(number: u64) -> u128 {
    let mix = |number: u64| {
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    };
    u128::from(mix(number.wrapping_add(0x9E37_79B9_7F4A_7C15))) << 64 | u128::from(mix(!number))
}

fn full(algorithm: Algorithm) -> (Limiter, Policy) {
    let limiter = Limiter::new(algorithm, KEYS as usize);
    let policy = Policy::new(algorithm, 100, Duration::from_secs(3600), 100, Duration::from_secs(1));
    for number in 0..KEYS {
        limiter.take(&policy, key(number), 1, limiter.now());
    }
    assert!(limiter.keys() > 990_000, "{}", limiter.keys());
    (limiter, policy)
}

/// A decision for a key at random, the clock and the hash not included, and with the clock.
fn decide(criterion: &mut Criterion) {
    for (name, algorithm) in [
        ("token_bucket", Algorithm::TokenBucket),
        ("leaky_bucket", Algorithm::LeakyBucket),
        ("fixed_window", Algorithm::FixedWindow),
        ("sliding_window", Algorithm::SlidingWindow),
        ("sliding_log", Algorithm::SlidingLog),
    ] {
        let (limiter, policy) = full(algorithm);
        let mut random = fastrand::Rng::with_seed(1);
        let now = limiter.now();
        criterion.bench_function(&format!("limit_{name}"), |bencher| {
            bencher.iter(|| limiter.take(&policy, black_box(key(random.u64(..KEYS))), 1, now));
        });
        criterion.bench_function(&format!("limit_{name}_with_clock"), |bencher| {
            bencher.iter(|| limiter.take(&policy, black_box(key(random.u64(..KEYS))), 1, limiter.now()));
        });
    }
}

/// The same from one thread and from two: the time that all of them together take for one decision.
fn threads(criterion: &mut Criterion) {
    let (limiter, policy) = full(Algorithm::TokenBucket);
    for count in [1u64, 2] {
        criterion.bench_function(&format!("limit_from_{count}_threads"), |bencher| {
            bencher.iter_custom(|rounds| {
                together(count, rounds, |random| {
                    limiter.take(&policy, key(random.u64(..KEYS)), 1, limiter.now());
                })
            });
        });
    }
}

/// Everybody wants the same key.
fn hot(criterion: &mut Criterion) {
    let (limiter, policy) = full(Algorithm::TokenBucket);
    criterion.bench_function("limit_one_key_from_2_threads", |bencher| {
        bencher.iter_custom(|rounds| {
            together(2, rounds, |_| {
                limiter.take(&policy, key(7), 1, limiter.now());
            })
        });
    });
}

fn together(count: u64, rounds: u64, work: impl Fn(&mut fastrand::Rng) + Sync) -> Duration {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for seed in 0..count {
            let work = &work;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                (0..rounds / count).for_each(|_| work(&mut random));
            });
        }
    });
    began.elapsed()
}

/// New keys beyond the most: one of a few has to go for each.
fn flood(criterion: &mut Criterion) {
    let (limiter, policy) = full(Algorithm::TokenBucket);
    let next = AtomicU64::new(KEYS);
    criterion.bench_function("limit_new_key_when_full", |bencher| {
        bencher.iter(|| limiter.take(&policy, key(next.fetch_add(1, Ordering::Relaxed)), 1, limiter.now()));
    });
    let table = Table::<Tat>::new(KEYS as usize);
    for number in 0..10 * KEYS {
        table.with(key(number), 0, |cell| cell.0 = number + 1).unwrap();
    }
    let most = KEYS as usize * Table::<Tat>::bytes_per_key();
    assert!(table.len() <= KEYS as usize + 512 && table.bytes() <= most + most / 50);
    println!("limit: of 10,000,000 keys {} are left, in {} bytes", table.len(), table.bytes());
}
