//! Forwarded fields: strangers are never believed, and a trusted proxy's words always lead to an address.
//!
//! Each line is a field's value, its first byte says of which field.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use portcullis::exchange::Client;
use portcullis::types::{Peer, Trust, TrustedProxy};

const FIELDS: [&str; 4] = ["x-forwarded-for", "forwarded", "x-forwarded-proto", "x-forwarded-port"];

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some((which, value)) = line.split_first() else { continue };
        let name = HeaderName::from_static(FIELDS[usize::from(*which) % FIELDS.len()]);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let trust: Trust = ["10.0.0.0/8", "unix"].iter().map(|proxy| proxy.parse::<TrustedProxy>().unwrap()).collect();
    let local = Some(([192, 0, 2, 1], 80).into());
    let identify = |peer| Client::identify(peer, local, false, &headers, &trust);

    let stranger = identify(Peer::Ip(([203, 0, 113, 9], 1).into()));
    assert_eq!(stranger.ip, Some([203, 0, 113, 9].into()));
    assert!(!stranger.peer_trusted && !stranger.https && stranger.port == Some(80));
    let unnamed = identify(Peer::Unnamed);
    assert!(unnamed.ip.is_none() && !unnamed.peer_trusted);
    let proxied = identify(Peer::Ip(([10, 0, 0, 1], 1).into()));
    assert!(proxied.ip.is_some_and(|ip| ip == ip.to_canonical()) && proxied.peer_trusted);
    let unix = identify(Peer::Unix);
    assert!(unix.peer_trusted && unix.ip.is_none_or(|ip| Some(ip) == proxied.ip));
});
