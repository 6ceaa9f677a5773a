//! The PROXY protocol: a header ends where it says, whatever follows, and a part of it is never taken for the whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::proxy_protocol::{LONGEST, Verdict, parse};

fuzz_target!(|bytes: &[u8]| {
    let verdict = parse(bytes);
    match verdict {
        Verdict::Header { len, .. } => {
            assert!(len <= bytes.len() && len <= LONGEST);
            assert_eq!(parse(&bytes[..len]), verdict);
            assert_eq!(parse(&bytes[..len - 1]), Verdict::NeedMore);
        }
        Verdict::NeedMore => assert!(bytes.len() < LONGEST),
        Verdict::Absent | Verdict::Invalid(_) => {
            let longer = [bytes, b"\r\n"].concat();
            assert_eq!(parse(&longer), verdict);
        }
    }
});
