//! Hosts: one canonical form, and both readers agree on it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::types::{Host, HostPattern, PlainAuthority};

fuzz_target!(|text: &str| {
    if let Ok(host) = Host::parse(text) {
        let host = host.as_str();
        assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_whitespace()), "{host}");
        assert_eq!(Host::parse(host).map(|again| again.as_str().to_owned()), Ok(host.to_owned()));
    }
    if let Some(plain) = PlainAuthority::read(text.as_bytes()) {
        let name = &text[..plain.name_len];
        assert_eq!(Host::parse(text).map(|host| host.as_str().to_owned()), Ok(name.to_owned()));
    }
    if let Ok(pattern) = HostPattern::parse(text) {
        assert!(Host::parse(pattern.name()).is_ok_and(|host| host.as_str() == pattern.name()), "{text}");
    }
});
