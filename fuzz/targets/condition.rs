//! Conditions: no text is too much for the parser, the checker or the telling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::condition::{Condition, Place};
use portcullis::exchange::{Exchange, Facts, RequestHeader, ResponseHeader};

fuzz_target!(|text: &str| {
    let Ok(condition) = Condition::parse(text, Place::Response) else { return };
    let mut head = RequestHeader::build("POST", b"/a/7?page=2&q=a%20b", None).unwrap();
    for (name, value) in [("x-env", "canary"), ("cookie", "a=b; c=d"), ("content-length", "7")] {
        head.append_header(name, value).unwrap();
    }
    let mut facts = Facts::of_head("a.test");
    let exchange = Exchange::new(&head, "fuzz", &mut facts);
    let response = ResponseHeader::build(200, None).unwrap();
    let told = condition.holds_after(&exchange, &response);
    assert_eq!(told, condition.holds_after(&exchange, &response), "{text}");
    if let Some(foretold) = condition.foretold(&exchange) {
        assert_eq!(Ok(foretold), told, "what the head alone tells stays true: {text}");
    }
});
