//! What an exchange pays for being told about: its access log line (all in, as a worker sees it) and its metrics.

#![allow(clippy::unwrap_used, reason = "a bench may fail")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method};
use portcullis::telemetry::access_log::{AccessLog, Address, Output, Record, Redact, Sampling, Settings};
use portcullis::telemetry::metrics::{Buckets, Metrics};
use prometheus::IntCounter;

fn access_log(criterion: &mut Criterion) {
    let headers = HeaderMap::from_iter([("x-env".parse().unwrap(), HeaderValue::from_static("canary"))]);
    let record = record(&headers);
    let mut group = criterion.benchmark_group("access_log");
    group.measurement_time(Duration::from_millis(400)).warm_up_time(Duration::from_millis(100));
    for (name, format) in [
        ("json", "json"),
        ("combined", "combined"),
        ("template", "{time} {status} {method} {path} {duration_ms} {request_header.x-env}"),
    ] {
        let settings = Settings {
            output: Output::File("/dev/null".into()),
            format: format.parse().unwrap(),
            sampling: Sampling::default(),
            redact: Redact::new([http::header::AUTHORIZATION, http::header::COOKIE]),
        };
        let log = AccessLog::open(settings, IntCounter::new("dropped", "lines").unwrap()).unwrap();
        group.bench_function(name, |bencher| bencher.iter_custom(|lines| in_bursts(&log, &record, lines)));
        // A dropped line is a cheap one: say when the figure is made of them.
        if log.dropped() > 0 {
            println!("{name}: {} lines dropped, the figure flatters", log.dropped());
        }
    }
    group.finish();
}

/// The time that `lines` lines take. They are handed over a burst at a time: a loop without a pause outruns the writer
/// thread, and would measure how lines are dropped.
fn in_bursts(log: &AccessLog, record: &Record<'_>, mut lines: u64) -> Duration {
    const BURST: u64 = 100;
    let mut total = Duration::ZERO;
    while lines > 0 {
        let burst = lines.min(BURST);
        let start = Instant::now();
        (0..burst).for_each(|_| log.write(black_box(record)));
        total += start.elapsed();
        lines -= burst;
        thread::sleep(Duration::from_millis(1));
    }
    total
}

fn metrics(criterion: &mut Criterion) {
    let metrics = Metrics::new("bench", Buckets::default()).unwrap();
    let route = metrics.route("orders");
    // The pair measured is found after those seen before it.
    for status in [304, 404, 500, 502, 200] {
        route.record(&Method::GET, status, Duration::ZERO);
    }
    let endpoint = metrics.upstream("orders").endpoint("10.0.0.1:8080");
    let duration = black_box(Duration::from_micros(12_345));
    let mut group = criterion.benchmark_group("metrics");
    group.bench_function("record", |bencher| {
        bencher.iter(|| route.record(black_box(&Method::GET), 200, duration))
    });
    group.bench_function("start_and_end", |bencher| bencher.iter(|| drop(route.start())));
    group.bench_function("endpoint", |bencher| {
        bencher.iter(|| endpoint.record(black_box("success"), Some(duration)))
    });
    group.finish();
}

fn record(headers: &HeaderMap) -> Record<'_> {
    Record {
        time: SystemTime::now(),
        request_id: "0197a3c0-7d7e-7c5b-9f0a-3b1f6f0f2a11",
        client_ip: Some(Address::Text(b"203.0.113.57")),
        listener: "secure",
        route: Some("orders"),
        method: "GET",
        host: Some(b"api.example.com"),
        path: b"/orders/12345/items",
        query: Some(b"page=2&sort=name"),
        protocol: "HTTP/2.0",
        status: 200,
        grpc_status: None,
        reason: None,
        duration: Duration::from_micros(12_345),
        variant: None,
        upstream: Some("orders"),
        endpoint: Some(SocketAddr::from(([10, 0, 0, 17], 8080))),
        upstream_duration: Some(Duration::from_micros(11_007)),
        tries: 1,
        bytes_in: 0,
        bytes_out: 5120,
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        referer: Some(b"https://shop.example.com/basket"),
        tls: None,
        consumer: Some("mobile"),
        request_headers: Some(headers),
        response_headers: None,
        fields: &[],
    }
}

criterion_group!(benches, access_log, metrics);
criterion_main!(benches);
