//! What the choice of an endpoint costs: alone, with endpoints to pass over, and as an upstream makes it.

#![allow(clippy::unwrap_used, reason = "a bench may fail")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::telemetry::{Buckets, Metrics};
use portcullis::upstream::{
    Balancer, Endpoint, EndpointId, EndpointSet, EndpointSpec, Load, Protocol, RoundRobin, Tried, Upstream,
};

criterion_group!(benches, pick, choose, table);
criterion_main!(benches);

/// The choice alone, among as many endpoints as one has, as many have, and as the busiest have.
fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round_robin_pick");
    for count in [1_u16, 3, 100, 1000] {
        let balancer = RoundRobin::new(&vec![1; usize::from(count)]);
        let set = EndpointSet::round_robin(Vec::new());
        group.bench_function(format!("{count}_endpoints"), |bencher| {
            bencher.iter(|| balancer.pick(black_box(&set), &|_| true))
        });
        group.bench_function(format!("{count}_endpoints_last_admitted"), |bencher| {
            bencher.iter(|| balancer.pick(black_box(&set), &|id| id == EndpointId(count - 1)))
        });
    }
    group.finish();
}

/// The choice as an exchange makes it: the set is loaded, the endpoint kept, an attempt counted.
fn choose(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("upstream_choose");
    let metrics = Metrics::new("bench", Buckets::default()).unwrap();
    for count in [1_u16, 3, 100] {
        let upstream = Upstream::new(
            Arc::from("bench"),
            Protocol::Http1,
            None,
            EndpointSet::round_robin(endpoints(&metrics, count)),
        );
        let tried = Tried::default();
        group.bench_function(format!("{count}_endpoints"), |bencher| {
            bencher.iter(|| upstream.choose(black_box(&tried)).map(Endpoint::begin))
        });
    }
    group.finish();
}

/// The table is worked out when endpoints change, not per request; it may cost what it likes, within reason.
fn table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round_robin_table");
    for count in [3_u16, 1000] {
        let weights: Vec<u16> = (1..=count).collect();
        group.bench_function(format!("{count}_weights"), |bencher| {
            bencher.iter(|| RoundRobin::new(black_box(&weights)))
        });
    }
    group.finish();
}

fn endpoints(metrics: &Metrics, count: u16) -> Vec<Endpoint> {
    let metrics = metrics.upstream("bench");
    let endpoint = |at| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1000 + at));
        let counters = metrics.endpoint(&address.to_string());
        Endpoint::new(EndpointId(at), EndpointSpec::new(address, 1), Arc::new(Load::default()), counters)
    };
    (0..count).map(endpoint).collect()
}
