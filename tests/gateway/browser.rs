//! What a real browser makes of `cors`: pages of two origins ask the gateway at a third.

use serde_json::{Value, json};

use crate::ask::{echo, upstream};
use crate::harness::browser::Browser;
use crate::harness::{Gateway, Origin};

/// Asks the gateway in several ways. What may not be read is the name of the error.
const ASK: &str = r#"
    const [gateway] = given, seen = {};
    const ask = async (name, path, init) => {
        try {
            const answer = await fetch(gateway + path, init);
            seen[name] = {
                status: answer.status, text: await answer.text(),
                exposed: answer.headers.get('x-origin'), hidden: answer.headers.get('server'),
            };
        } catch (error) {
            seen[name] = error.name;
        }
    };
    await ask('simple', '/a/simple');
    await ask('put', '/a/put', { method: 'PUT', headers: { 'x-a': '1' }, body: 'new' });
    await ask('again', '/a/put', { method: 'PUT', headers: { 'x-a': '2' }, body: 'newer' });
    await ask('method', '/a/method', { method: 'DELETE' });
    await ask('field', '/a/field', { headers: { 'x-c': '1' } });
    await ask('login', '/login', { credentials: 'include' });
    await ask('cookie', '/a/cookie', { credentials: 'include' });
    await ask('bare', '/a/bare');
    await ask('denied', '/denied');
    await ask('broken', '/broken');
    await ask('silent', '/silent');
    return seen;
"#;

#[test]
fn pages_of_other_origins_may_what_cors_says() {
    let origin = echo();
    let page =
        Origin::answering("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\nhello");
    let port = page.address().port();
    let gateway = Gateway::start(&format!(
        "{}chains:
  pages:
    - cors:
        origins: ['http://*.gw.localhost:{port}']
        methods: [GET, PUT]
        headers: [x-a]
        expose: [x-origin]
        credentials: true
        max_age: 60s
routes:
  - {{ name: a, path: /a/*, methods: [GET, PUT], filters: [use: pages], upstream: echo }}
  - {{ name: login, path: /login, filters: [use: pages], respond: {{ headers: {{ set-cookie: visitor=7 }} }} }}
  - {{ name: denied, path: /denied, filters: [use: pages, ip_restriction: {{ deny: [127.0.0.0/8] }}], respond: {{}} }}
  - {{ name: broken, path: /broken, filters: [use: pages], upstream: nobody }}
  - {{ name: silent, path: /silent, respond: {{}} }}
",
        upstream(&origin).replace("upstreams: {", "upstreams: { nobody: { endpoints: ['127.0.0.9:1'] },")
    ));
    let url = format!("http://gw.localhost:{}", gateway.address().port());
    let mut browser = Browser::start();

    browser.open(&format!("http://app.gw.localhost:{port}/"));
    let seen = browser.run(ASK, &[&url]);
    let holds = |name: &str, words: &str| {
        let text = seen[name]["text"].as_str().unwrap_or_else(|| panic!("{name}: {seen}"));
        assert!(text.contains(words), "{name}: {text}");
    };
    for name in ["simple", "put", "again", "cookie", "bare"] {
        assert_eq!(seen[name]["status"], 200, "{name}: {seen}");
        // What is named may be read, and nothing else.
        assert_eq!((&seen[name]["exposed"], &seen[name]["hidden"]), (&json!("yes"), &Value::Null), "{name}");
    }
    holds("put", "x-a: 1\n");
    holds("put", "\n\nnew");
    holds("again", "x-a: 2\n");
    holds("cookie", "cookie: visitor=7\n");
    assert!(!seen["bare"]["text"].as_str().unwrap().contains("cookie:"), "{seen}");
    for name in ["method", "field", "silent"] {
        assert_eq!(seen[name], "TypeError", "{name}: {seen}");
    }
    // A page can read why it was refused.
    assert_eq!((&seen["denied"]["status"], &seen["broken"]["status"]), (&json!(403), &json!(502)), "{seen}");
    holds("denied", "\"code\":\"ip_denied\"");
    holds("broken", "\"code\":\"upstream_connect_failed\"");
    // One preflight was enough for both PUTs.
    let asked = |method: &str, path: &str| {
        gateway.log().iter().filter(|line| line["method"] == method && line["path"] == path).count()
    };
    assert_eq!((asked("OPTIONS", "/a/put"), asked("PUT", "/a/put")), (1, 2));
    assert_eq!((asked("OPTIONS", "/a/simple"), asked("GET", "/a/simple")), (0, 1));
    assert_eq!((asked("OPTIONS", "/a/method"), asked("DELETE", "/a/method")), (1, 0));

    let before = origin.requests().len();
    browser.open(&format!("http://evil.localhost:{port}/"));
    let seen = browser.run(ASK, &[&url]);
    let errors: Vec<_> = seen.as_object().unwrap().values().filter(|what| *what == "TypeError").collect();
    assert_eq!(errors.len(), 11, "{seen}");
    // What needs no preflight was sent all the same; the page could not read what came.
    let sent: Vec<_> =
        origin.requests().split_off(before).into_iter().map(|request| request.target).collect();
    assert_eq!(sent, ["/a/simple", "/a/cookie", "/a/bare"]);
}
