//! What a chain costs a request: nothing without filters, one indirect call a hook, one boxed future for a filter that
//! may wait.

#![allow(clippy::unwrap_used, reason = "a bench may fail")]

use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::chain::{Chain, ChainBuilder, Link, SharedFilter};
use portcullis::exchange::{Answer, Client, Facts, Rewrite};
use portcullis::route::Captures;
use portcullis::{Exchange, Filter, Flow, Phases, RequestHeader, ResponseHeader, Result, Stage};

criterion_group!(benches, requests, responses, slots);
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
    filters.for_each(|filter| builder.push(Link { name: "bench", stage: Stage::Admit, filter }));
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
