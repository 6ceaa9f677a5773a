//! Cost of the guard on a common request, whole and dripped, beside httparse on the same bytes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portcullis::guard::{BodyFraming, BodyScanner, Head, HeadLimits, HeadScanner, Progress};
use std::hint::black_box;

const LIMITS: HeadLimits = HeadLimits { header_bytes: 64 * 1024, headers: 100, uri_bytes: 8 * 1024 };

/// Ten fields, as a browser or an API client sends them.
const REQUEST: &[u8] = b"GET /orders/7f3a?page=2&sort=created HTTP/1.1\r\n\
    Host: api.shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: application/json, text/plain, */*\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\
    Referer: https://shop.example.com/account/orders\r\n\
    Cookie: session=0123456789abcdef; theme=dark\r\n\
    Connection: keep-alive\r\n\
    X-Request-Id: 018f2f64-7a3e-7c11-9d2b-1f6f0f0e8d55\r\n\
    \r\n";

const SHORT: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("ten_fields", |b| b.iter(|| Head::parse(black_box(REQUEST), &LIMITS)));
    group.bench_function("one_field", |b| b.iter(|| Head::parse(black_box(SHORT), &LIMITS)));
    group.bench_function("ten_fields_byte_by_byte", |b| b.iter(|| drip(black_box(REQUEST))));
    group.bench_function("ten_fields_httparse", |b| {
        b.iter(|| {
            let mut fields = [httparse::EMPTY_HEADER; 32];
            httparse::Request::new(&mut fields).parse(black_box(REQUEST)).is_ok()
        })
    });
    group.finish();
}

fn drip(bytes: &[u8]) -> bool {
    let mut scanner = HeadScanner::new(LIMITS);
    (0..=bytes.len()).any(|len| matches!(scanner.advance(&bytes[..len]), Progress::Done(_)))
}

fn bodies(c: &mut Criterion) {
    let chunk = [&b"4000\r\n"[..], &[b'x'; 0x4000], b"\r\n"].concat();
    let body = [&chunk.repeat(4)[..], b"0\r\n\r\n"].concat();
    let mut group = c.benchmark_group("body");
    group.bench_function("chunked_64KiB", |b| {
        b.iter(|| BodyScanner::new(BodyFraming::Chunked).feed(black_box(&body)))
    });
    group.finish();
}

criterion_group!(benches, heads, bodies);
criterion_main!(benches);
