//! One exchange after the other: framing, keep-alive, and what passes.

use crate::harness::{Gateway, Origin};

#[test]
fn a_request_reaches_the_origin_and_its_answer_the_client() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let response = gateway.get("/a?b=c");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    let request = origin.request(0);
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/a?b=c"));
    let line = gateway.log_of("/a");
    assert_eq!((&line["status"], &line["route"]), (&200.into(), &"all".into()));
    assert_eq!(gateway.admin_get("/healthz").status, 200);
}
