//! What a chain costs a request: nothing without filters, one indirect call a hook, one boxed future for a filter that
//! may wait.

#![allow(clippy::unwrap_used, reason = "a bench may fail")]

use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::chain::{Chain, ChainBuilder, Link, SharedFilter};
use portcullis::condition::{Condition, Place, When};
use portcullis::consumer::{Builder, Consumer, Credential, Digest, Identity};
use portcullis::document::{Document, Environment, Errors};
use portcullis::exchange::{Answer, Client, Facts, Rewrite};
use portcullis::filters;
use portcullis::route::Captures;
use portcullis::telemetry::{Buckets, Metrics};
use portcullis::{
    Exchange, Filter, Flow, Parameters, Phases, RequestHeader, ResponseHeader, Result, Scope, Stage, State,
    Stores,
};

criterion_group!(benches, requests, responses, slots, conditions, keys);
criterion_main!(benches);

/// The request phase of chains of different lengths.
fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chain_request");
    for (name, chain) in chains() {
        let (head, mut facts) = exchange();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut slots = chain.slots();
                let mut exchange = Exchange::new(&head, "bench", &mut facts);
                finished(chain.request(&mut slots, black_box(&mut exchange)))
            })
        });
    }
    group.finish();
}

/// The response phase of the same chains: every filter joins it.
fn responses(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chain_response");
    for (name, chain) in chains() {
        let (head, mut facts) = exchange();
        let mut slots = chain.slots();
        let mut response = ResponseHeader::build(200, None).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut exchange = Exchange::new(&head, "bench", &mut facts);
                chain.response(&mut slots, &mut exchange, black_box(&mut response)).is_ok()
            })
        });
    }
    group.finish();
}

/// Memories of one exchange: free for filters without state, one allocation for each with.
fn slots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chain_slots");
    let stateful = chain((0..4).map(|_| SharedFilter::new(Remember)));
    group.bench_function("4_stateless", |bencher| {
        let chain = sync(4);
        bencher.iter(|| chain.slots())
    });
    group.bench_function("4_stateful", |bencher| bencher.iter(|| stateful.slots()));
    group.finish();
}

/// A request that `api_key` finds the consumer of, among ten thousand with two keys each.
fn keys(criterion: &mut Criterion) {
    let mut builder = Builder::default();
    for number in 0..10_000 {
        let consumer = Arc::new(Consumer::new(format!("consumer-{number}"), ["partners"]));
        builder.consumer(Arc::clone(&consumer));
        for key in 0..2 {
            let digest = Digest::of(format!("a-key-of-consumer-{number}-{key}").as_bytes());
            builder.key(&consumer, digest, Credential { name: None, expires: None }).unwrap();
        }
    }
    let consumers = Arc::new(builder.build());
    let (state, stores, registry) = (State::default(), Stores::default(), filters::builtin());
    let metrics = Metrics::new("bench", Buckets::default()).unwrap();
    let kind = registry.kind("api_key").unwrap();
    let document = Document::parse("bench.yaml", "{}", &Environment::default()).unwrap();
    let scope = Scope {
        registry: &registry,
        parameters: Parameters::Nowhere,
        state: &state,
        metrics: &metrics,
        stores: &stores,
        consumers: &consumers,
        owner: "bench",
        when: &[],
        files: true,
    };
    let filter = kind.build(&document.root, "", &scope, &mut Errors::default()).unwrap().filter;
    let chain = chain([filter].into_iter());
    let (mut head, mut facts) = exchange();
    head.insert_header("x-api-key", "a-key-of-consumer-7777-1").unwrap();
    criterion.bench_function("chain_api_key", |bencher| {
        bencher.iter(|| {
            facts.identity = Identity::default();
            let mut exchange = Exchange::new(&head, "bench", &mut facts);
            chain.request_at_once(&mut chain.slots(), black_box(&mut exchange)).is_ok()
        })
    });
    assert_eq!(facts.identity.consumer.as_ref().map(|consumer| &*consumer.name), Some("consumer-7777"));
}

/// Conditions by what they look at: the first is simple, none should take more than a microsecond.
fn conditions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("condition");
    for (name, text) in [
        ("method", r#"request.method == "POST""#),
        ("header", r#"request.headers["x-chaos"] == "1""#),
        ("method_and_group", r#"request.method == "GET" && "beta" in consumer.groups"#),
        ("path_and_query", r#"request.path.startsWith("/service/") && request.query.page == """#),
        ("one_of_four", r#"request.method in ["POST", "PUT", "PATCH", "GET"]"#),
        ("regex", r#"request.path.matches("^/service/[a-z]+/[0-9]+$")"#),
        ("cidr", r#"cidr("192.0.2.0/24").containsIP(client.ip)"#),
        ("loop_over_headers", r#"request.headers.exists(h, h.startsWith("x-evil"))"#),
    ] {
        let (head, mut facts) = exchange();
        let condition = Condition::parse(text, Place::Request).unwrap();
        group.bench_function(name, |bencher| {
            let exchange = Exchange::new(&head, "bench", &mut facts);
            bencher.iter(|| condition.holds(black_box(&exchange)))
        });
    }
    let conditional = Link {
        when: When::all(vec![Condition::parse(r#"request.method == "GET""#, Place::Request).unwrap()]),
        ..Link::new("bench", Stage::Admit, SharedFilter::new(Look))
    };
    let mut builder = ChainBuilder::default();
    builder.push(conditional);
    let chain = builder.build();
    group.bench_function("chain_of_one", |bencher| {
        let (head, mut facts) = exchange();
        let mut response = ResponseHeader::build(200, None).unwrap();
        bencher.iter(|| {
            let mut slots = chain.slots();
            let mut exchange = Exchange::new(&head, "bench", &mut facts);
            let verdict = chain.request_at_once(&mut slots, black_box(&mut exchange)).is_ok();
            verdict && chain.response(&mut slots, &mut exchange, &mut response).is_ok()
        })
    });
    group.finish();
}

fn chains() -> [(&'static str, Chain); 4] {
    [
        ("0_filters", sync(0)),
        ("4_sync", sync(4)),
        ("16_sync", sync(16)),
        ("1_async", chain([SharedFilter::new(Wait)].into_iter())),
    ]
}

fn sync(length: usize) -> Chain {
    chain((0..length).map(|_| SharedFilter::new(Look)))
}

fn chain(filters: impl Iterator<Item = SharedFilter>) -> Chain {
    let mut builder = ChainBuilder::default();
    filters.for_each(|filter| builder.push(Link::new("bench", Stage::Admit, filter)));
    builder.build()
}

/// Looks at the request and lets it pass.
struct Look;

impl Filter for Look {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST | Phases::RESPONSE
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        black_box(exchange.path());
        Ok(Flow::Continue)
    }

    fn response(&self, (): &mut (), _: &mut Exchange<'_>, head: &mut ResponseHeader) -> Result<()> {
        black_box(head.status);
        Ok(())
    }
}

/// Might wait, and finds that it need not.
struct Wait;

impl Filter for Wait {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST_WAIT | Phases::RESPONSE
    }

    fn request_wait(
        &self,
        (): &mut (),
        exchange: &mut Exchange<'_>,
    ) -> impl Future<Output = Result<Flow>> + Send {
        black_box(exchange.path());
        ready(Ok(Flow::Continue))
    }

    fn response(&self, (): &mut (), _: &mut Exchange<'_>, head: &mut ResponseHeader) -> Result<()> {
        black_box(head.status);
        Ok(())
    }
}

/// Keeps a number for each exchange.
struct Remember;

impl Filter for Remember {
    type State = u64;

    fn phases(&self) -> Phases {
        Phases::REQUEST
    }

    fn request(&self, seen: &mut u64, _: &mut Exchange<'_>) -> Result<Flow> {
        *seen += 1;
        Ok(Flow::Continue)
    }
}

fn exchange() -> (RequestHeader, Facts) {
    let head = RequestHeader::build("GET", b"/service/orders/42", None).unwrap();
    let client = Client {
        ip: "192.0.2.1".parse().ok(),
        peer: portcullis::types::Peer::Ip("192.0.2.1:50000".parse().unwrap()),
        peer_trusted: false,
        https: false,
        port: Some(80),
    };
    let facts = Facts {
        client,
        tls: None,
        identity: Default::default(),
        host: "bench.test".into(),
        captures: Captures::default(),
        request_id: None,
        rewrite: Rewrite::default(),
        body_limit: 10 << 20,
        may_have_body: true,
        form: None,
        started: Instant::now(),
        arrived: SystemTime::now(),
        answer: Answer::default(),
        remarks: Vec::new(),
    };
    (head, facts)
}

/// Polls once: nothing here waits, so no runtime blurs the figure.
fn finished<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
