//! What the choice of an endpoint costs: alone, with endpoints to pass over, and as an upstream makes it.

#![allow(clippy::unwrap_used, reason = "a bench may fail")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::telemetry::{Buckets, Metrics};
use portcullis::upstream::{
    Balance, Choice, Common, Endpoint, EndpointId, EndpointSet, EndpointSpec, HashAlgorithm, HashKey, Member,
    Members, Pick, Protocol, Rules, Standing, Tried, Upstream, Wish,
};

criterion_group!(benches, pick, choose, table);
criterion_main!(benches);

/// The algorithms by the names that figures are known by.
const ALL: [(&str, Balance); 8] = [
    ("round_robin", Balance::RoundRobin),
    ("least_requests", Balance::LeastRequests),
    ("random", Balance::Random),
    ("ketama", Balance::ConsistentHash { algorithm: HashAlgorithm::Ketama, bounded: None }),
    ("ketama_bounded", Balance::ConsistentHash { algorithm: HashAlgorithm::Ketama, bounded: Some(1.25) }),
    ("maglev", Balance::ConsistentHash { algorithm: HashAlgorithm::Maglev, bounded: None }),
    ("maglev_bounded", Balance::ConsistentHash { algorithm: HashAlgorithm::Maglev, bounded: Some(1.25) }),
    ("peak_ewma", Balance::PeakEwma),
];

/// The choice alone: among as many endpoints as many have, as the busiest have, and as nobody has. Every pick has another
/// key, and the latency of every endpoint is known.
fn pick(criterion: &mut Criterion) {
    let common = common();
    for (name, balance) in &ALL {
        let mut group = criterion.benchmark_group(format!("pick_{name}"));
        for count in [3_u16, 100, 10_000] {
            let set = EndpointSet::new(endpoints(&common, count), balance, None);
            let now = Instant::now();
            let mut key = 0u64;
            let mut pick = |admits: &dyn Fn(EndpointId) -> bool| {
                key += 1;
                let key = HashKey::of(&key.to_le_bytes());
                set.pick(&Pick { key, now, admits, again: false }, &|_| true)
            };
            group.bench_function(format!("{count}_endpoints"), |bencher| {
                bencher.iter(|| pick(&|_| black_box(true)));
            });
            group.bench_function(format!("{count}_endpoints_a_third_not_admitted"), |bencher| {
                bencher.iter(|| pick(&|id| black_box(id.0) % 3 != 0));
            });
            group.bench_function(format!("{count}_endpoints_last_admitted"), |bencher| {
                bencher.iter(|| pick(&|id| black_box(id.0) == count - 1));
            });
        }
        group.finish();
    }
}

/// The choice as an exchange makes it: the set is loaded, the endpoint kept, an attempt counted.
fn choose(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("upstream_choose");
    let common = common();
    for count in [1_u16, 3, 100] {
        let (choice, members) = (Choice::default(), Members::written((0..count).map(spec)));
        let upstream = Upstream::new(Protocol::Http1, None, Arc::clone(&common), choice, members);
        let mut tried = Tried::default();
        let now = Instant::now();
        group.bench_function(format!("{count}_endpoints"), |bencher| {
            bencher.iter(|| upstream.choose(black_box(&mut tried), Wish::default(), now));
        });
    }
    group.finish();
}

/// Tables are worked out when endpoints change, not per request; they may cost what they like, within reason.
fn table(criterion: &mut Criterion) {
    for (name, balance) in &ALL {
        let mut group = criterion.benchmark_group(format!("table_{name}"));
        group.sample_size(10);
        for count in [3_u16, 1000] {
            let member = |at: u16| Member { id: EndpointId(at), address: spec(at).address, weight: 1 + at };
            let members: Vec<Member> = (0..count).map(member).collect();
            group.bench_function(format!("{count}_weights"), |bencher| {
                bencher.iter(|| balance.build(black_box(&members)));
            });
        }
        group.finish();
    }
}

fn common() -> Arc<Common> {
    let metrics = Metrics::new("bench", Buckets::default()).unwrap().upstream("bench");
    Arc::new(Common::new(Rules::default(), metrics))
}

fn spec(at: u16) -> EndpointSpec {
    EndpointSpec::new((Ipv4Addr::LOCALHOST, 1000 + at).into(), 1)
}

fn endpoints(common: &Arc<Common>, count: u16) -> Vec<Endpoint> {
    common.endpoints((0..count).map(spec), |spec| {
        let (now, standing) = (Instant::now(), Standing::new(Instant::now()));
        standing.latency().record(now, Duration::from_micros(u64::from(spec.address.port())));
        Arc::new(standing)
    })
}
