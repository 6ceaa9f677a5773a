//! Limits by the fields of forms: what is found, and that every byte of the body goes on.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use portcullis::{Exchange, Handler, Reply, Result, Route};

use crate::ask::{Asked, echo};
use crate::harness::redis::Redis;
use crate::harness::{Client, Gateway, Http2, Nobody, Origin, Response, Then};

const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";
/// The longest form that is looked at.
const LONGEST: usize = 64 << 10;

fn yaml(origin: &Origin, filters: &str, more: &str) -> String {
    format!(
        "upstreams: {{ echo: {{ endpoints: [\"{}\"] }} }}\n\
         routes: [{{ name: all, path: /*, filters: [{filters}], upstream: echo{more} }}]\n",
        origin.address()
    )
}

/// A gateway that lets each user of a form in twice, and all others together twice.
fn limited(origin: &Origin) -> Gateway {
    Gateway::start(&yaml(origin, "{ rate_limit: { rate: 2/d, key: 'form:user' } }", ""))
}

/// A gateway that takes forms with a user, and refuses everything else.
fn strict(origin: &Origin, more: &str) -> Gateway {
    let filter = "{ rate_limit: { rate: 100000/d, key: 'form:user', missing_key: refuse } }";
    Gateway::start(&yaml(origin, filter, more))
}

fn post(client: &mut Client, fields: &str, body: &[u8]) -> Response {
    let head = format!("POST / HTTP/1.1\r\nhost: a.test\r\n{fields}content-length: {}\r\n\r\n", body.len());
    client.ask([head.as_bytes(), body].concat())
}

/// In chunks of this size.
fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for chunk in body.chunks(size) {
        all.extend(format!("{:x}\r\n", chunk.len()).bytes());
        all.extend(chunk);
        all.extend(b"\r\n");
    }
    all.extend(b"0\r\n\r\n");
    all
}

fn post_chunked(client: &mut Client, fields: &str, body: &[u8], size: usize) -> Response {
    let head = format!("POST / HTTP/1.1\r\nhost: a.test\r\n{fields}transfer-encoding: chunked\r\n\r\n");
    client.ask([head.as_bytes(), &chunked(body, size)].concat())
}

#[test]
fn each_value_is_counted_by_itself_and_the_first_of_several() {
    let origin = echo();
    let gateway = limited(&origin);
    let mut client = gateway.client();
    for (body, status) in [
        ("user=anna&x=1", 200),
        ("x=2&user=anna", 200),
        ("user=anna", 429),
        ("user=%61nn%61", 429),
        ("%75ser=anna&user=bert", 429),
        ("user=anna+b", 200),
        ("user=anna%20b", 200),
        ("user=anna+b", 429),
        ("user=bert&user=anna", 200),
        ("user=bert", 200),
        ("user=bert&user=carl", 429),
    ] {
        let answer = post(&mut client, FORM, body.as_bytes());
        assert_eq!(answer.status, status, "{body}");
        if status == 200 {
            assert_eq!(Asked::of(&answer).body, body, "the upstream gets it whole");
        }
    }
    // The same connection served all of them, refusals included.
    assert_eq!(post_chunked(&mut client, FORM, b"user=dora", 2).status, 200);
    assert_eq!(origin.last().content(), b"user=dora");
}

#[test]
fn what_is_no_sound_form_has_no_field_and_goes_on_whole() {
    let origin = echo();
    for (fields, body) in [
        (FORM, &b""[..]),
        (FORM, b"other=anna"),
        (FORM, b"user="),
        (FORM, b"user=an%2"),
        (FORM, b"user=an%zz&x"),
        (FORM, b"user=anna&x=%"),
        (FORM, b"user=\xff\xfe"),
        ("content-type: application/json\r\n", b"{\"user\": \"anna\"}"),
        ("content-type: application/x-www-form-urlencoded\r\ncontent-encoding: x\r\n", b"user=anna"),
        ("", b"user=anna"),
    ] {
        let gateway = limited(&origin);
        let mut client = gateway.client();
        for (at, status) in [200, 200, 429].into_iter().enumerate() {
            let answer = match at {
                1 => post_chunked(&mut client, fields, body, 3),
                _ => post(&mut client, fields, body),
            };
            assert_eq!(answer.status, status, "{fields}{}", String::from_utf8_lossy(body));
            if status == 200 {
                assert_eq!(origin.last().content(), body);
            }
        }
    }
    let refused = strict(&origin, "");
    let mut client = refused.client();
    assert_eq!(post(&mut client, FORM, b"x=1").problem(), (400, "limit_key_missing".to_owned()));
    assert_eq!(post(&mut client, FORM, b"user=1").status, 200, "the connection goes on");
}

#[test]
fn long_bodies_have_no_fields_and_lose_no_byte() {
    let origin = Origin::ok();
    let gateway = limited(&origin);
    let mut client = gateway.client();
    let mut http2 = Http2::connect(gateway.address());
    for (length, counted) in [(LONGEST, true), (LONGEST + 1, false), (1 << 20, false)] {
        let words = (0_u32..).flat_map(|word| format!("{word}&").into_bytes());
        let user = format!("user=u{length}&");
        let body: Vec<u8> = user.bytes().chain(words).take(length).collect();
        let before = origin.requests().len();
        // Three of the same user are too many; three of nobody are, too, so each is asked of a gateway of its own.
        let fresh = limited(&origin);
        let (client, http2) = if counted {
            (&mut client, &mut http2)
        } else {
            (&mut fresh.client(), &mut Http2::connect(fresh.address()))
        };
        assert_eq!(post(client, FORM, &body).status, 200, "{length}");
        assert_eq!(origin.last().content(), body);
        assert_eq!(post_chunked(client, FORM, &body, 5000).status, 200, "{length}");
        assert_eq!(origin.last().content(), body);
        let ask = http2.request("POST", "/").header("content-type", "application/x-www-form-urlencoded");
        assert_eq!(http2.send(ask, &body).status, 429, "the third, {length}");
        assert_eq!(origin.requests().len() - before, 2);
        let other = http2.request("POST", "/").header("content-type", "application/x-www-form-urlencoded");
        let other = http2.send(other, b"user=other");
        assert_eq!(other.status, 200, "{length}");
        assert_eq!(origin.last().content(), b"user=other");
    }
    let strict = strict(&origin, "");
    let mut http2 = Http2::connect(strict.address());
    let ask = http2.request("POST", "/").header("content-type", "application/x-www-form-urlencoded");
    let body = [b"user=a&x=".to_vec(), vec![b'x'; LONGEST - 9]].concat();
    assert_eq!(http2.send(ask, &body).status, 200);
    assert_eq!(origin.last().content(), body);
}

#[test]
fn a_body_that_is_held_back_is_asked_for() {
    let origin = echo();
    let gateway = limited(&origin);
    let mut client = gateway.client();
    let head =
        format!("POST / HTTP/1.1\r\nhost: a.test\r\n{FORM}expect: 100-continue\r\ncontent-length: 9\r\n\r\n");
    for status in [200, 200, 429] {
        assert_eq!(client.send(&head).head().status, 100);
        let answer = client.ask("user=anna");
        assert_eq!(answer.status, status);
        if status == 200 {
            let asked = Asked::of(&answer);
            assert_eq!((asked.body.as_str(), asked.fields.get("expect")), ("user=anna", None));
        }
    }
    assert_eq!(post(&mut client, FORM, b"user=bert").status, 200, "the connection goes on");
}

#[test]
fn slow_and_too_long_forms_are_refused_as_every_body() {
    let origin = Origin::ok();
    let gateway = strict(&origin, ", timeouts: { stream_idle: 300ms }, limits: { request_body: 20B }");
    let mut client = gateway.client();
    client.send(format!("POST / HTTP/1.1\r\nhost: a.test\r\n{FORM}content-length: 9\r\n\r\nuser"));
    assert_eq!(client.response().problem(), (408, "body_timeout".to_owned()));
    assert!(client.ends());
    let mut client = gateway.client();
    let answer = post_chunked(&mut client, FORM, b"user=anna&x=0123456789", 5);
    assert_eq!(answer.problem(), (413, "body_too_large".to_owned()));
    assert_eq!(origin.requests().len(), 0);
    // A client that leaves in the middle.
    let mut client = gateway.client();
    client.send(format!("POST / HTTP/1.1\r\nhost: a.test\r\n{FORM}content-length: 9\r\n\r\nuser"));
    assert!(client.is_silent(Duration::from_millis(50)));
    client.reset();
    assert_eq!(post(&mut gateway.client(), FORM, b"user=anna").status, 200);
}

#[test]
fn another_endpoint_gets_the_whole_form() {
    let (origin, nobody) = (echo(), Nobody::new());
    let gateway = Gateway::start(
        &yaml(&origin, "{ rate_limit: { rate: 100/d, key: 'form:user' } }", "")
            .replace("endpoints: [", &format!("endpoints: [\"{}\", ", nobody.address())),
    );
    let mut client = gateway.client();
    for _ in 0..4 {
        assert_eq!(Asked::of(&post(&mut client, FORM, b"user=anna&x=1")).body, "user=anna&x=1");
        assert_eq!(Asked::of(&post_chunked(&mut client, FORM, b"user=anna&x=1", 4)).body, "user=anna&x=1");
    }
    // One that breaks off after it has seen the body.
    let broken = Origin::start(|_| Then::Reset);
    let words =
        yaml(&origin, "{ rate_limit: { rate: 100/d, key: 'form:user' } }", ", retry: { methods: [POST] }")
            .replace("endpoints: [", &format!("endpoints: [\"{}\", ", broken.address()));
    let gateway = Gateway::start(&words);
    let mut client = gateway.client();
    for _ in 0..4 {
        assert_eq!(Asked::of(&post(&mut client, FORM, b"user=anna&x=1")).body, "user=anna&x=1");
    }
}

#[test]
fn quotas_and_concurrency_know_forms_too() {
    let origin = Origin::ok();
    let filters = "{ concurrency: { limit: 5, key: 'form:user', missing_key: refuse } }";
    let gateway = Gateway::start(&yaml(&origin, filters, ""));
    let mut client = gateway.client();
    assert_eq!(post(&mut client, FORM, b"user=anna").status, 200);
    assert_eq!(post(&mut client, FORM, b"x=anna").status, 400);
    let redis = Redis::start();
    let filters = "{ quota: { limit: 1, per: month, store: main, key: 'form:user' } }";
    let stores = format!("stores: {{ main: {{ redis: {{ url: \"{}\" }} }} }}\n", redis.url());
    let gateway = Gateway::start(&(yaml(&origin, filters, "") + &stores));
    let mut client = gateway.client();
    let statuses = ["anna", "bert", "anna"]
        .map(|user| post(&mut client, FORM, format!("user={user}").as_bytes()).status);
    assert_eq!(statuses, [200, 200, 429]);
}

/// Says the body back.
struct Mirror;

impl Handler for Mirror {
    async fn handle(&self, _: &mut Exchange<'_>, body: Bytes) -> Result<Reply> {
        Ok(Reply::content(StatusCode::OK, body))
    }
}

#[test]
fn a_handler_gets_the_whole_form() {
    let filters = "filters: [{ rate_limit: { rate: 1/d, key: 'form:user' } }]\n";
    let gateway =
        Gateway::start_with(filters, |gateway| gateway.route(Route::new("mirror", "/*").handler(Mirror)));
    let mut client = gateway.client();
    assert_eq!(post(&mut client, FORM, b"user=anna&x=1").text(), "user=anna&x=1");
    let long = [b"user=bert&x=".to_vec(), vec![b'x'; 2 * LONGEST]].concat();
    assert_eq!(post_chunked(&mut client, FORM, &long, 5000).body, long);
    assert_eq!(post(&mut client, FORM, b"user=anna").status, 429);
    assert_eq!(post(&mut client, FORM, b"user=bert").text(), "user=bert");
}
