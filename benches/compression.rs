//! What a body costs on its way through an encoder or decoder, in pieces as they come off a socket: MB/s of decoded bytes.

#![allow(clippy::unwrap_used, reason = "a bench may fail")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use portcullis::coding::{Bounds, Coding, Decoder, Effort, Encoder};

criterion_group!(benches, encode, decode, negotiate);
criterion_main!(benches);

const CODINGS: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];
const EFFORTS: [Effort; 3] = [Effort::Fastest, Effort::Balanced, Effort::Best];

/// What one read of a socket brings.
const PIECE: usize = 16 << 10;

/// Bounds that a body of this file does not feel.
const WIDE: Bounds = Bounds { bytes: u64::MAX, ratio: u64::MAX };

fn encode(criterion: &mut Criterion) {
    let body = body();
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Bytes(body.len() as u64)).sample_size(10);
    for coding in CODINGS {
        for effort in EFFORTS {
            let id = BenchmarkId::new(coding.name(), format!("{effort:?}").to_lowercase());
            group.bench_function(id, |bencher| bencher.iter(|| encoded(coding, effort, black_box(&body))));
        }
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let body = body();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(body.len() as u64)).sample_size(10);
    for coding in Coding::ALL {
        let encoded = encoded(coding, Effort::Balanced, &body);
        group.bench_function(coding.name(), |bencher| {
            bencher.iter(|| {
                let mut decoder = Decoder::new(coding, WIDE).unwrap();
                encoded.chunks(PIECE).map(|piece| decoder.decode(piece, false).unwrap().len()).sum::<usize>()
            })
        });
    }
    group.finish();
}

/// The reading of a browser's `Accept-Encoding`.
fn negotiate(criterion: &mut Criterion) {
    let accept = http::HeaderValue::from_static("gzip, deflate, br, zstd");
    criterion.bench_function("negotiate", |bencher| {
        bencher.iter(|| portcullis::coding::preferred([black_box(&accept)].into_iter(), &CODINGS))
    });
}

fn encoded(coding: Coding, effort: Effort, body: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(coding, Encoder::level(coding, effort)).unwrap();
    let mut whole = Vec::new();
    for piece in body.chunks(PIECE) {
        whole.extend(encoder.encode(piece, false).unwrap());
    }
    whole.extend(encoder.encode(b"", true).unwrap());
    whole
}

/// A list of orders in JSON, 1 MiB: repetitive in its words, not in its numbers.
fn body() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut text = String::from("[");
    while text.len() < 1 << 20 {
        let (id, price, count) = (next(), next() % 100_000, next() % 20);
        let city = ["Berlin", "Lagos", "Lima", "Osaka", "Oslo"][next() as usize % 5];
        text.push_str(&format!(
            "{{\"id\":\"{id:08x}\",\"customer\":{{\"city\":\"{city}\",\"since\":{}}},\"total\":{}.{:02},\"items\":{count}}},\n",
            2000 + price % 26,
            price / 100,
            price % 100,
        ));
    }
    text.into_bytes()
}
