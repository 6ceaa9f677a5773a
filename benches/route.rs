//! What a look-up costs, and that it costs the same whether there are 10 routes or 50,000 over 1,000 hosts.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use portcullis::route::{Found, ListenerSet, Lookup, MethodSet, PathPattern, PathSpec, RouteSpec, Router};
use portcullis::types::{Host, HostPattern, NormalPath};

const SIZES: [(&str, usize, usize); 2] = [("10_routes", 1, 10), ("50000_routes", 1_000, 50)];

criterion_group!(benches, find, hostile_paths, canonical_forms, build);
criterion_main!(benches);

fn find(criterion: &mut Criterion) {
    for (name, hosts, routes_per_host) in SIZES {
        let router = router(hosts, routes_per_host);
        let mut group = criterion.benchmark_group(name);
        for (kind, path) in [
            ("exact", "/service-0/orders"),
            ("params", "/service-1/users/4711/posts/42"),
            ("prefix", "/service-2/static/css/site/main.css"),
            ("miss", "/none/of/these/paths"),
        ] {
            let host = host_name(hosts / 2);
            group.bench_function(kind, |bencher| {
                bencher.iter(|| look_up(&router, black_box(&host), black_box(path)))
            });
        }
        let targets = targets(hosts, routes_per_host);
        group.bench_function("exact_spread", |bencher| {
            let mut targets = targets.iter().cycle();
            bencher.iter(|| targets.next().map(|(host, path)| look_up(&router, host, path)));
        });
        group.finish();
    }
}

fn hostile_paths(criterion: &mut Criterion) {
    let router = router(1_000, 50);
    let host = host_name(500);
    let mut group = criterion.benchmark_group("8KiB_path");
    for (name, path) in [
        ("many_segments", "/a".repeat(4096)),
        ("below_a_prefix", "/service-2/static".to_owned() + &"/a".repeat(4096)),
        ("one_segment", "/".to_owned() + &"a".repeat(8192)),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| look_up(&router, &host, black_box(&path))));
    }
    let climbing = "/a/..".repeat(1638);
    group
        .bench_function("normalize_dots", |bencher| bencher.iter(|| NormalPath::parse(black_box(&climbing))));
    group.finish();
}

fn canonical_forms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("canonical");
    for (name, path) in [
        ("path_borrowed", "/service-1/users/4711/posts/42"),
        ("path_escaped_borrowed", "/files/caf%C3%A9/a%20b.txt"),
        ("path_rewritten", "/service-1/./users//4711/%70osts/42"),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| NormalPath::parse(black_box(path))));
    }
    for (name, host) in
        [("host_borrowed", "host-500.example.com:8443"), ("host_rewritten", "Host-500.Example.com")]
    {
        group.bench_function(name, |bencher| bencher.iter(|| Host::parse(black_box(host))));
    }
    group.finish();
}

fn build(criterion: &mut Criterion) {
    let specs = specs(1_000, 50);
    let mut group = criterion.benchmark_group("build");
    group.sample_size(10);
    group.bench_function("50000_routes", |bencher| {
        bencher.iter_batched(|| specs.clone(), router_of, BatchSize::PerIteration);
    });
    group.finish();
}

fn look_up(router: &Router<usize>, host: &str, path: &str) -> usize {
    let headers = HeaderMap::new();
    let lookup = Lookup { host, path, method: &Method::GET, headers: &headers, query: None, listener: 0 };
    match router.find(&lookup) {
        Found::Route { target, captures } => {
            black_box(captures);
            *target
        }
        Found::MethodNotAllowed { .. } | Found::NotFound => usize::MAX,
    }
}

fn router(hosts: usize, routes_per_host: usize) -> Router<usize> {
    router_of(specs(hosts, routes_per_host))
}

fn router_of(specs: Vec<RouteSpec>) -> Router<usize> {
    let mut builder = Router::builder();
    for (target, spec) in specs.into_iter().enumerate() {
        builder.add(spec, target);
    }
    builder.build()
}

fn specs(hosts: usize, routes_per_host: usize) -> Vec<RouteSpec> {
    let numbers = (0..hosts).flat_map(|host| (0..routes_per_host).map(move |route| (host, route)));
    numbers.map(|(host, route)| spec(host, route)).collect()
}

/// Exact paths, parameters and prefixes in turn; every other route names its methods.
fn spec(host: usize, route: usize) -> RouteSpec {
    let path = match route % 3 {
        0 => format!("/service-{route}/orders"),
        1 => format!("/service-{route}/users/{{id}}/posts/{{post}}"),
        _ => format!("/service-{route}/static/*"),
    };
    let methods: MethodSet =
        if route.is_multiple_of(2) { [Method::GET].into_iter().collect() } else { MethodSet::default() };
    RouteSpec {
        hosts: HostPattern::parse(&host_name(host)).into_iter().collect(),
        path: PathSpec::Pattern(
            PathPattern::parse(&path).unwrap_or_else(|error| unreachable!("{path}: {error}")),
        ),
        methods,
        headers: Vec::new(),
        query: Vec::new(),
        listeners: ListenerSet::default(),
    }
}

fn host_name(host: usize) -> String {
    format!("host-{host}.example.com")
}

/// A thousand requests for exact paths all over the table.
fn targets(hosts: usize, routes_per_host: usize) -> Vec<(String, String)> {
    let numbers = (0..1_000).map(|index| (index * 7 % hosts, index * 3 % routes_per_host / 3 * 3));
    numbers.map(|(host, route)| (host_name(host), format!("/service-{route}/orders"))).collect()
}
