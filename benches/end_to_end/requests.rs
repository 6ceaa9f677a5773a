//! The requests of all workloads, as bytes.

use bytes::Bytes;

use super::configs::{HOSTS, route_host, route_path};
use super::http2::Block;
use super::load::Call;
use super::origin::{SMALL_BODY, grpc_message};

/// Distinct requests of the routes workload, spread evenly over the routes.
const ROUTED_REQUESTS: usize = 1_000;

pub fn get(path: &str) -> Bytes {
    request(path, "bench.test", "")
}

pub fn get_and_close(path: &str) -> Bytes {
    request(path, "bench.test", "Connection: close\r\n")
}

pub fn get_of_origin(path: &str) -> Bytes {
    request(path, "bench.test", "Origin: https://www.shop.test\r\n")
}

pub fn get_encoded(path: &str, coding: &str) -> Bytes {
    request(path, "bench.test", &format!("Accept-Encoding: {coding}\r\n"))
}

fn request(path: &str, host: &str, last_field: &str) -> Bytes {
    Bytes::from(format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n{last_field}\r\n"
    ))
}

/// As many requests for few routes as for many, so that both cost the load generator the same.
pub fn routed_requests(routes: usize) -> Vec<Bytes> {
    (0..ROUTED_REQUESTS)
        .map(|index| match routes {
            0..ROUTED_REQUESTS => index % routes,
            // A different host each time, too.
            _ => index * (routes / ROUTED_REQUESTS) + index * routes / ROUTED_REQUESTS / HOSTS,
        })
        .map(|number| request(&format!("{}/item", route_path(number)), &route_host(number), ""))
        .collect()
}

// Places in HPACK's static table.
const AUTHORITY: u8 = 1;
const METHOD_GET: u8 = 2;
const METHOD_POST: u8 = 3;
const PATH: u8 = 4;
const SCHEME_HTTPS: u8 = 7;

pub fn get_over_http2() -> Call {
    let head = Block::default().indexed(METHOD_GET).indexed(SCHEME_HTTPS).named(PATH, "/");
    let block =
        head.named(AUTHORITY, "bench.test").field("user-agent", "bench").field("accept", "*/*").bytes();
    Call { block, body: Vec::new(), answer: SMALL_BODY, trailers: false }
}

pub fn call_grpc() -> Call {
    let head = Block::default().indexed(METHOD_POST).indexed(SCHEME_HTTPS).named(PATH, "/bench.Bench/Call");
    let block = head
        .named(AUTHORITY, "bench.test")
        .field("user-agent", "bench")
        .field("content-type", "application/grpc")
        .field("te", "trailers")
        .bytes();
    Call { block, body: grpc_message(), answer: grpc_message().len(), trailers: true }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::comparisons::{FEW_ROUTES, MANY_ROUTES};
    use super::*;

    #[test]
    fn routed_requests_spread_over_the_routes_and_weigh_the_same() {
        for (routes, distinct) in [(FEW_ROUTES, FEW_ROUTES), (MANY_ROUTES, ROUTED_REQUESTS)] {
            let requests = routed_requests(routes);
            assert_eq!(requests.len(), ROUTED_REQUESTS);
            assert_eq!(requests.iter().collect::<HashSet<_>>().len(), distinct);
            assert!(requests.iter().all(|request| request.len() == requests[0].len()));
        }
        assert!(
            routed_requests(MANY_ROUTES)[999]
                .starts_with(b"GET /r049999/item HTTP/1.1\r\nHost: h000999.test\r\n")
        );
        let host = |request: &Bytes| request.split(|byte| *byte == b'\n').nth(1).map(<[u8]>::to_vec);
        let hosts: HashSet<_> = routed_requests(MANY_ROUTES).iter().map(host).collect();
        assert_eq!(hosts.len(), HOSTS);
    }

    #[test]
    fn the_closing_field_is_the_last() {
        assert!(get_and_close("/").ends_with(b"Connection: close\r\n\r\n"));
        assert!(get("/").ends_with(b"*/*\r\n\r\n"));
    }
}
