//! Versions of an API: which one a request wants, and how long it will be there.

use crate::harness::{Client, Gateway, Origin, Response, eventually};

/// A gateway before three versions, with these words in the API.
struct Shop {
    gateway: Gateway,
    _origins: Vec<Origin>,
}

fn shop(words: &str, versions: &[&str]) -> Shop {
    let origins: Vec<Origin> = (1..=versions.len()).map(|at| Origin::named(&format!("v{at}"))).collect();
    let upstreams: String = origins
        .iter()
        .enumerate()
        .map(|(at, origin)| format!("  v{}: {{ endpoints: [\"{}\"] }}\n", at + 1, origin.address()))
        .collect();
    let versions: String = versions
        .iter()
        .enumerate()
        .map(|(at, version)| {
            let (name, more) = version.split_once(' ').unwrap_or((version, ""));
            format!("    \"{name}\": {{ upstream: v{}{more} }}\n", at + 1)
        })
        .collect();
    let gateway = Gateway::start(&format!(
        "upstreams:\n{upstreams}apis:\n- name: shop\n  path: /shop/*\n{words}  versions:\n{versions}"
    ));
    Shop { gateway, _origins: origins }
}

fn get(client: &mut Client, target: &str, fields: &str) -> Response {
    client.ask(format!("GET {target} HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n"))
}

const FROM: &str = "  version_from: [path, \"header:x-api-version\", \"media_type:application/vnd.shop.v{n}+json\", \"query:version\"]\n";

#[test]
fn a_version_is_read_from_each_place_in_order() {
    let shop = shop(&format!("{FROM}  default: \"1\"\n"), &["1", "2", "10"]);
    let mut client = shop.gateway.client();
    for (target, fields, version) in [
        ("/shop/orders", "", "v1"),
        ("/shop", "", "v1"),
        ("/shop/v2/orders", "", "v2"),
        ("/shop/v10", "", "v3"),
        ("/shop/latest/orders", "", "v3"),
        ("/shop/V2/orders", "", "v2"),
        ("/shop/v%32/orders", "", "v2"),
        ("/shop/vlatest/orders", "", "v1"),
        ("/shop/orders", "x-api-version: 2\r\n", "v2"),
        ("/shop/orders", "x-api-version: v10\r\n", "v3"),
        ("/shop/orders", "x-api-version: latest\r\n", "v3"),
        ("/shop/orders", "accept: text/html, application/vnd.shop.v2+json\r\n", "v2"),
        ("/shop/orders?version=2", "", "v2"),
        ("/shop/v2/orders?version=1", "x-api-version: 10\r\n", "v2"),
        ("/shop/orders?version=1", "x-api-version: 10\r\n", "v3"),
        ("/shop/videos", "", "v1"),
    ] {
        let answer = get(&mut client, target, fields);
        assert_eq!((answer.status, answer.text().as_str()), (200, version), "{target} {fields}");
    }
}

#[test]
fn the_default_may_be_the_newest() {
    let shop = shop(&format!("{FROM}  default: latest\n"), &["9", "10", "2"]);
    assert_eq!(shop.gateway.get("/shop/a").text(), "v2");
}

#[test]
fn without_a_default_a_request_has_to_say_one() {
    let shop = shop(FROM, &["1", "2"]);
    let answer = shop.gateway.get("/shop/orders");
    assert_eq!(answer.problem(), (400, "version_missing".to_owned()));
    assert_eq!(answer.json()["detail"], "there is 1, 2");
    assert_eq!(shop.gateway.get("/shop/v1/orders").status, 200);
}

#[test]
fn a_version_that_there_is_not_is_refused() {
    let shop = shop(&format!("{FROM}  default: \"1\"\n"), &["1"]);
    let mut client = shop.gateway.client();
    for (target, fields) in
        [("/shop/v3/a", ""), ("/shop/a", "x-api-version: two\r\n"), ("/shop/a?version=1.0", "")]
    {
        assert_eq!(
            get(&mut client, target, fields).problem(),
            (404, "version_unknown".to_owned()),
            "{target} {fields}"
        );
    }
}

#[test]
fn the_upstream_sees_the_path_with_its_version_or_without() {
    let (as_it_is, stripped) = (shop(FROM, &["1"]), shop(&format!("{FROM}  strip_version: true\n"), &["1"]));
    for (shop, seen) in [(&as_it_is, "/shop/v1/a?b=c"), (&stripped, "/shop/a?b=c")] {
        shop.gateway.get("/shop/v1/a?b=c");
        assert_eq!(shop._origins[0].last().target, seen);
    }
    stripped.gateway.get("/shop/v1");
    assert_eq!(stripped._origins[0].last().target, "/shop");
}

#[test]
fn without_its_version_a_path_is_one_for_filters_too() {
    let words = format!(
        "{FROM}  default: \"1\"\n  strip_version: true\n  filters:\n  - ip_restriction: {{ deny: [127.0.0.0/8] }}\n    when: request.path.startsWith(\"/shop/admin\")\n"
    );
    let shop = shop(&words, &["1", "2"]);
    for path in
        ["/shop/admin/x", "/shop/v2/admin/x", "/shop/latest/admin", "/shop/V1/admin", "/shop/v%32/admin"]
    {
        assert_eq!(shop.gateway.get(path).status, 403, "{path}");
    }
    assert_eq!(shop.gateway.get("/shop/v2/orders").status, 200);
}

#[test]
fn files_that_filters_of_an_api_name_are_watched() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.txt");
    std::fs::write(&list, "192.0.2.0/24\n").unwrap();
    let words =
        format!("{FROM}  filters: [{{ ip_restriction: {{ deny: [{{ file: {} }}] }} }}]\n", list.display());
    let origin = Origin::named("v1");
    let gateway = Gateway::start_file(&format!(
        "upstreams: {{ v1: {{ endpoints: [\"{}\"] }} }}\napis:\n- name: shop\n  path: /shop/*\n{words}  versions: {{ \"1\": {{ upstream: v1 }} }}\n",
        origin.address()
    ));
    assert_eq!(gateway.get("/shop/v1").status, 200);
    std::fs::write(&list, "127.0.0.0/8\n").unwrap();
    eventually("the new list is in force", || gateway.get("/shop/v1").status == 403);
}

#[test]
fn a_deprecated_version_says_so() {
    let words = ", deprecated: 2026-01-01, sunset: 2999-12-31, link: \"https://docs.test/migrate\"";
    let shop = shop(FROM, &[&format!("1 {words}"), "2"]);
    let answer = shop.gateway.get("/shop/v1/a");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("deprecation"), Some("@1767225600"));
    assert_eq!(answer.header("sunset"), Some("Tue, 31 Dec 2999 00:00:00 GMT"));
    assert_eq!(
        answer.fields.all("link"),
        [
            "<https://docs.test/migrate>; rel=\"deprecation\"; type=\"text/html\"",
            "<https://docs.test/migrate>; rel=\"sunset\"; type=\"text/html\"",
        ]
    );
    let answer = shop.gateway.get("/shop/v2/a");
    assert_eq!(
        (answer.header("deprecation"), answer.header("sunset"), answer.header("link")),
        (None, None, None)
    );
    let series = "portcullis_deprecated_requests_total{route=\"shop\",variant=\"1\",consumer=\"-\"}";
    eventually("its use is counted", || shop.gateway.metric(series) == 1.0);
}

#[test]
fn a_version_that_has_ended_is_gone() {
    let shop = shop(FROM, &["1 , sunset: \"2026-01-01T00:00:00Z\", link: /migrate", "2"]);
    let answer = shop.gateway.get("/shop/v1/a");
    assert_eq!(answer.problem(), (410, "version_gone".to_owned()));
    assert_eq!(answer.header("sunset"), Some("Thu, 01 Jan 2026 00:00:00 GMT"));
    assert_eq!(answer.header("link"), Some("</migrate>; rel=\"sunset\"; type=\"text/html\""));
    assert!(shop._origins[0].requests().is_empty());
    assert_eq!(shop.gateway.get("/shop/v2/a").status, 200);
}

#[test]
fn a_deprecation_to_come_is_told_and_not_counted() {
    let shop = shop(FROM, &["1 , deprecated: 2999-01-01"]);
    assert_eq!(shop.gateway.get("/shop/v1/a").header("deprecation"), Some("@32472144000"));
    shop.gateway.log_of("/shop/v1/a");
    assert!(!shop.gateway.admin_get("/metrics").text().contains("deprecated_requests_total{"));
}

#[test]
fn answers_vary_by_the_fields_that_say_the_version() {
    let shop = shop(&format!("{FROM}  default: \"1\"\n"), &["1"]);
    assert_eq!(shop.gateway.get("/shop/a").fields.all("vary"), ["x-api-version", "accept"]);
}

#[test]
fn log_and_metrics_tell_the_version() {
    let shop = shop(FROM, &["1", "2"]);
    shop.gateway.get("/shop/v2/a");
    let line = shop.gateway.log_of("/shop/v2/a");
    assert_eq!((line["route"].as_str(), line["variant"].as_str()), (Some("shop"), Some("2")));
    let series = "portcullis_variant_requests_total{route=\"shop\",variant=\"2\",status=\"200\"}";
    eventually("it is counted", || shop.gateway.metric(series) == 1.0);
}

#[test]
fn filters_and_limits_are_those_of_all_versions() {
    let words = format!(
        "{FROM}  limits: {{ request_body: 4B }}\n  filters: [headers: {{ response: {{ set: {{ x-api: shop }} }} }}]\n"
    );
    let shop = shop(&words, &["1"]);
    assert_eq!(shop.gateway.get("/shop/v1/a").header("x-api"), Some("shop"));
    assert_eq!(shop.gateway.get("/shop/v9/a").header("x-api"), Some("shop"), "on refusals, too");
    let answer =
        shop.gateway.ask("POST /shop/v1/a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(answer.status, 413);
}

#[test]
fn hosts_headers_and_listeners_choose_the_api() {
    let shop = shop(
        &format!("{FROM}  hosts: [shop.test]\n  headers: {{ x-beta: \"1\" }}\n  listeners: [web]\n"),
        &["1"],
    );
    let mut client = shop.gateway.client();
    assert_eq!(client.ask("GET /shop/v1 HTTP/1.1\r\nhost: shop.test\r\nx-beta: 1\r\n\r\n").status, 200);
    assert_eq!(client.ask("GET /shop/v1 HTTP/1.1\r\nhost: shop.test\r\n\r\n").status, 404);
    assert_eq!(client.ask("GET /shop/v1 HTTP/1.1\r\nhost: b.test\r\nx-beta: 1\r\n\r\n").status, 404);
}

#[test]
fn the_admin_api_shows_versions() {
    let shop = shop(
        &format!("{FROM}  default: \"2\"\n"),
        &["1 , sunset: 2999-12-31", "2", "3 , sunset: 2026-01-01"],
    );
    let versions = &shop.gateway.admin_get("/routes").json()[0]["target"]["versions"];
    assert_eq!(versions[0]["sunset"], "Tue, 31 Dec 2999 00:00:00 GMT", "{versions}");
    assert_eq!(versions[1]["default"], true, "{versions}");
    for (url, version, upstream, status) in [
        ("/shop/v1/a", "1", "v1", None),
        ("/shop/a", "2", "v2", None),
        ("/shop/v3/a", "3", "", Some(410)),
        ("/shop/v4/a", "", "", Some(404)),
    ] {
        let told = shop
            .gateway
            .admin_ask("POST", "/explain", &format!(r#"{{ "url": "http://a.test{url}" }}"#))
            .json();
        assert_eq!(told["version"].as_str().unwrap_or_default(), version, "{told}");
        assert_eq!(told["upstream"]["name"].as_str().unwrap_or_default(), upstream, "{told}");
        assert_eq!(told["status"].as_u64(), status, "{told}");
    }
}
