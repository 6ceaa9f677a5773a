//! What it costs to ask whether an address is on a list of many ranges.

#![allow(clippy::unwrap_used, reason = "a bench may fail")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::types::{Cidr, Ranges};

criterion_group!(benches, lookups, reading);
criterion_main!(benches);

/// Addresses that are on no list mostly, as in life.
fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ranges_contain");
    let v4: Vec<IpAddr> = numbers().take(1024).map(|number| Ipv4Addr::from(number as u32).into()).collect();
    let v6: Vec<IpAddr> = numbers().take(1024).map(|number| address_v6(number).into()).collect();
    for count in [10, 1_000, 100_000] {
        let list: Ranges = ranges_v4(count).collect();
        group.bench_function(format!("{count}_v4"), |bencher| {
            let mut asked = v4.iter().cycle();
            bencher.iter(|| list.contains(*black_box(asked.next().unwrap())))
        });
    }
    let list: Ranges = numbers().take(100_000).map(range_v6).collect();
    group.bench_function("100000_v6", |bencher| {
        let mut asked = v6.iter().cycle();
        bencher.iter(|| list.contains(*black_box(asked.next().unwrap())))
    });
    group.finish();
}

/// Sorting and joining, as at a reload.
fn reading(criterion: &mut Criterion) {
    let ranges: Vec<Cidr> = ranges_v4(100_000).collect();
    let mut group = criterion.benchmark_group("ranges_of");
    group.sample_size(20);
    group.bench_function("100000_v4", |bencher| {
        bencher.iter(|| ranges.iter().copied().collect::<Ranges>().len())
    });
    group.finish();
}

fn ranges_v4(count: usize) -> impl Iterator<Item = Cidr> {
    numbers().take(count).map(|number| {
        let bits = 24 + number % 9;
        let start = (number >> 16) as u32 & (u32::MAX << (32 - bits));
        format!("{}/{bits}", Ipv4Addr::from(start)).parse().unwrap()
    })
}

fn range_v6(number: u64) -> Cidr {
    let start = u128::from(address_v6(number)) & (u128::MAX << 64);
    format!("{}/64", Ipv6Addr::from(start)).parse().unwrap()
}

fn address_v6(number: u64) -> Ipv6Addr {
    Ipv6Addr::from(0x2000 << 112 | u128::from(number) << 48)
}

/// The same numbers in every run (xorshift).
fn numbers() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(88_172_645_463_325_252_u64), |last| {
        let next = last ^ (last << 13);
        let next = next ^ (next >> 7);
        Some(next ^ (next << 17))
    })
}
