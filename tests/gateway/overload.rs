//! `server.shed`: above its marks new requests are refused, and the operator is still answered.

use crate::harness::{Gateway, Http2, Origin, eventually, to};

fn gateway(origin: &Origin, shed: &str) -> Gateway {
    Gateway::start(&format!("{}server: {{ threads: 1, shed: {{ {shed} }} }}", to(&[origin], "")))
}

fn is_refused(gateway: &Gateway) -> bool {
    gateway.get("/").status == 503
}

#[test]
fn new_requests_are_refused_while_too_many_connections_are_open() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "connections: 2");
    let mut early = gateway.client();
    assert_eq!(early.get("/").status, 200);
    let crowd = [gateway.client(), gateway.client()];
    eventually("it sheds", || is_refused(&gateway));
    let mut client = gateway.client();
    let answer = client.get("/");
    assert_eq!(answer.problem(), (503, "overloaded".into()));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(client.ends());
    let mut client = Http2::connect(gateway.address());
    assert_eq!(client.get("/").problem(), (503, "overloaded".into()));
    eventually("its connection is closed, too", || !client.is_open());
    for path in ["/healthz", "/readyz"] {
        assert_eq!(gateway.admin_get(path).status, 200, "{path}");
    }
    assert_eq!(gateway.logged(|line| line["status"] == 503)["reason"], "overloaded");
    assert!(gateway.metric("portcullis_gateway_replies_total{route=\"-\",reason=\"overloaded\"}") >= 2.0);
    drop(crowd);
    eventually("it takes requests again", || !is_refused(&gateway));
    assert_eq!(early.get("/").status, 200, "whoever kept still was kept");
}

#[test]
fn requests_under_way_go_on() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "connections: 1");
    let mut busy = gateway.client();
    busy.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na");
    eventually("it is under way", || gateway.metric("portcullis_requests_active{route=\"all\"}") == 1.0);
    let _other = gateway.client();
    eventually("it sheds", || is_refused(&gateway));
    assert_eq!(busy.ask("b").status, 200);
}

#[test]
fn memory_has_a_mark_as_a_share_or_a_size() {
    let origin = Origin::ok();
    for (mark, refused) in [("1B", true), ("0.001%", true), ("100000GiB", false), ("100%", false)] {
        let gateway = gateway(&origin, &format!("memory: {mark}"));
        if refused {
            eventually("it sheds", || is_refused(&gateway));
        } else {
            assert!(!is_refused(&gateway), "{mark}");
        }
    }
}
