use std::sync::Arc;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::consumer::{Consumer, Identity};
use crate::exchange::{Client, Facts, RequestHeader};
use crate::types::{Peer, Trust};

const HEAD: &str = "POST /orders/7?page=2&q=a%20b&page=3";

fn request() -> RequestHeader {
    let (method, target) = HEAD.split_once(' ').unwrap();
    let mut head = RequestHeader::build(method, target.as_bytes(), None).unwrap();
    for (name, value) in [
        ("host", "a.test"),
        ("x-env", "canary"),
        ("x-twice", "one"),
        ("x-twice", "two"),
        ("cookie", "sid=abc; theme=dark"),
        ("content-length", "2048"),
    ] {
        head.append_header(HeaderName::from_static(name), HeaderValue::from_static(value)).unwrap();
    }
    head
}

fn facts(identity: Identity) -> Facts {
    let peer = Peer::Ip("192.0.2.7:1234".parse().unwrap());
    let client = Client::identify(peer, None, false, &HeaderMap::new(), &Trust::default());
    Facts { client, identity, ..Facts::of_head("a.test") }
}

fn anna() -> Identity {
    let groups = ["beta", "partners"];
    let consumer = Some(Arc::new(Consumer::new("anna", groups)));
    Identity { consumer, ..Identity::default() }
}

/// What a condition is of the request above, by anna.
fn told(text: &str) -> Result<bool, Trouble> {
    told_of(text, anna())
}

fn told_of(text: &str, identity: Identity) -> Result<bool, Trouble> {
    let condition =
        Condition::parse(text, Place::Request).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    let (head, mut facts) = (request(), facts(identity));
    condition.holds(&Exchange::new(&head, "orders", &mut facts))
}

fn refused(text: &str) -> String {
    let errors = Condition::parse(text, Place::Request).err().unwrap_or_else(|| panic!("{text} is taken"));
    let words = |error: ConfigError| {
        error.hint.map_or(error.message.clone(), |hint| format!("{}; {hint}", error.message))
    };
    errors.into_iter().map(words).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_true_of_a_request() {
    for text in [
        "request.method == \"POST\"",
        "request.path == '/orders/7' && request.path.startsWith(\"/orders/\")",
        "request.host == 'a.test' && request.scheme == 'http' && request.protocol == 'HTTP/1.1'",
        "request.query.page == '2' && request.query['q'] == 'a b' && request.query.none == ''",
        "request.headers['X-Env'] == 'canary' && request.headers[\"x-twice\"] == 'one'",
        "request.headers['x-' + 'env'] == 'canary'",
        "request.cookies.sid == 'abc' && 'theme' in request.cookies && !('none' in request.cookies)",
        "request.size == 2048 && request.size / 1024 == 2 && request.size % 1000 == 48",
        "client.ip == '192.0.2.7' && cidr('192.0.2.0/24').containsIP(client.ip)",
        "!cidr('10.0.0.0/8').containsIP(client.ip) && cidr('::/0').containsIP('::1')",
        "client.tls == null && client.tls.version == '' && client.tls.certificate.sans == []",
        "consumer != null && consumer.name == 'anna' && 'beta' in consumer.groups",
        "consumer.groups.exists(g, g.startsWith('part')) && consumer.groups.all(g, size(g) > 3)",
        "consumer.groups.exists_one(g, g == 'beta') && consumer.groups.map(g, size(g)) == [4, 8]",
        "consumer.groups.filter(g, g != 'beta') == ['partners'] && consumer.groups[1] == 'partners'",
        "request.headers.exists(h, h.startsWith('x-') && request.headers[h] == 'canary')",
        "size(request.query) == 2 && request.query.all(name, size(name) < 5)",
        "claims.sub == null && !has(claims.sub) && !('sub' in claims)",
        "route.name == 'orders' && route.name in ['orders', 'users']",
        "has(request.size) && has(request.headers.host) && !has(request.headers.none)",
        "request.path.matches('^/orders/[0-9]+$') && matches(request.path, 'ord')",
        "request.headers['x-env'].upperAscii() == 'CANARY' && ' a '.trim() == 'a' && 'A'.lowerAscii() == 'a'",
        "int(request.query.page) + 1 == 3 && double('1.5') > 1 && uint(2) == 2u && string(3) == '3'",
        "1 < 2u && 2.5 > 2 && 3 == 3.0 && 'a' < 'b' && -1 < 0 && 7 / 2 == 3 && 2.0 * 2.0 == 4.0",
        "request.method == 'GET' ? false : request.method != 'PUT'",
        "bool('true') && size('äß') == 2 && 'abc'.contains('b') && 'abc'.endsWith('c')",
        // Comments, and more than one line.
        "true // always\n  && true",
    ] {
        assert_eq!(told(text), Ok(true), "{text}");
    }
}

#[test]
fn what_is_missing_is_empty() {
    for text in [
        "request.headers['x-chaos'] == '1'",
        "'beta' in consumer.groups",
        "consumer.name == 'anna'",
        "consumer != null",
        "consumer.groups.exists(g, true)",
        "request.path_params.id == '7'",
    ] {
        assert_eq!(told_of(text, Identity::default()), Ok(false), "{text}");
    }
}

#[test]
fn what_cannot_be_told_is_said() {
    for (text, trouble) in [
        ("int(request.headers['x-env']) > 1", Trouble::NotANumber),
        ("request.size / 0 == 1", Trouble::Zero),
        ("request.size % 0 == 1", Trouble::Zero),
        ("9223372036854775807 + request.size > 0", Trouble::Range),
        ("cidr('10.0.0.0/8').containsIP(request.headers.none)", Trouble::NotAnAddress),
        ("consumer.groups[2] == 'x'", Trouble::Index),
        ("claims.age > 3", Trouble::Kind),
        ("claims.admin", Trouble::Kind),
        (
            "request.headers.all(a, request.headers.all(b, request.headers.all(c, request.headers.all(d, request.headers.all(e, request.headers.all(f, true))))))",
            Trouble::TooLong,
        ),
    ] {
        assert_eq!(told(text), Err(trouble), "{text}");
        assert_eq!(told(&format!("{text} || true")), Ok(true), "the other side decides: {text}");
        assert_eq!(told(&format!("{text} && false")), Ok(false), "the other side decides: {text}");
        assert_eq!(told(&format!("!({text})")), Err(trouble), "{text}");
    }
}

/// What a condition is of a request with these cookies, and what it took.
fn worked(text: &str, cookies: &str) -> (Result<bool, Trouble>, usize) {
    let condition =
        Condition::parse(text, Place::Request).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    let (mut head, mut facts) = (request(), facts(anna()));
    head.insert_header("cookie", cookies).unwrap();
    let exchange = Exchange::new(&head, "orders", &mut facts);
    let mut run = Run::new(&exchange, None);
    let told = condition.decided(&mut run);
    (told, eval::FUEL - run.fuel())
}

#[test]
fn the_work_is_bounded_whatever_a_request_has() {
    let cookies = |count: usize| (0..count).map(|at| format!("c{at}=vv")).collect::<Vec<_>>().join("; ");
    let many = cookies(7000);
    assert!(many.len() > 63 << 10);
    let scan = "request.cookies.exists(c, request.cookies[c].contains('<script'))";
    for text in [
        scan,
        "request.cookies.all(c, request.cookies[c] == 'vv')",
        "request.cookies.exists(c, c in request.cookies && false)",
        "request.cookies.map(c, request.cookies).size() > 0 && request.cookies.exists(c, size(request.cookies) == 1)",
        "request.cookies.exists(c, request.headers.cookie.contains('<script'))",
    ] {
        for text in [text.to_owned(), format!("({text}) || true"), format!("!({text}) && false")] {
            assert_eq!(worked(&text, &many), (Err(Trouble::TooLong), eval::FUEL), "{text}");
        }
    }
    assert_eq!(worked(scan, &cookies(100)).0, Ok(false), "what browsers send is told");
    let kept = "size(request.cookies.filter(c, c != 'c1').map(c, c + '!')) == 2999";
    let (told, took) = worked(kept, &cookies(3000));
    assert_eq!(told, Ok(true));
    assert!(took < eval::FUEL, "what a loop came to is not copied in its turns");
}

#[test]
fn mistakes_are_told() {
    for (text, said) in [
        ("request.metod == 'GET'", "`request` has no `metod`; did you mean `method`?"),
        ("reqest.method == 'GET'", "there is no `reqest`; did you mean `request`?"),
        ("request.method", "a condition is true or false; this is a string"),
        ("request.method == 1", "a string is never equal to an int"),
        ("request.method == null", "a string is never null here; what is missing is \"\""),
        ("request == 'a'", "`request` is compared by its fields, or with null"),
        ("request.headers == 'a'", "`request.headers` is compared by what it has under a name"),
        ("request.method.foo == 'a'", "`.foo`: a string has no fields"),
        ("request.headers['a b'] == 'a'", "`a b` is not the name of a header field"),
        (
            "request.method in 'GET'",
            "`in` looks into a list or a map; this is a string; `a.contains(b)` looks into a string",
        ),
        ("1 in ['a']", "an int is never in a list whose members are a string"),
        ("request.method && true", "`&&`, `||`, `!` and `?` want what is true or false; this is a string"),
        ("request.method > 1", "`>` cannot compare a string and an int"),
        (
            "request.size + 1.5 > 1",
            "`+` cannot be between an int and a double; `int(x)`, `uint(x)` and `double(x)` make one kind of them",
        ),
        ("request.path.lower() == 'a'", "there is no function `lower`; did you mean `lowerAscii`?"),
        ("request.path.startWith('a')", "there is no function `startWith`; did you mean `startsWith`?"),
        ("request.path.startsWith()", "`startsWith` is written `x.startsWith(y)`"),
        ("request.path.startsWith(1)", "`startsWith` wants a string; this is an int"),
        ("request.path.matches(request.host)", "the pattern of `matches` is written out"),
        ("request.path.matches('(')", "the pattern of `matches` is no regular expression: unclosed group"),
        ("cidr('10.0.0.0/33').containsIP(client.ip)", "`cidr`: "),
        ("cidr('10.0.0.0/8')", "a network is asked so: `cidr(\"10.0.0.0/8\").containsIP(client.ip)`"),
        ("response.status == 200", "there is no `response` yet where this acts; `response` is for filters"),
        ("has(request)", "no expression in CEL, at character 5: invalid argument to has() macro"),
        (
            "request.method = 'GET'",
            "no expression in CEL, at character 16: `=` is not expected here; `==` compares",
        ),
        ("true and false", "no expression in CEL, at character 6: `and` is not expected here; write `&&`"),
        ("request.method ==", "no expression in CEL, at character 18: it ends where something is missing"),
        ("true &&\n 'ä' == ~", "no expression in CEL, at line 2, character 9: unexpected character"),
        ("'abc", "no expression in CEL, at character 1: unterminated string literal"),
        ("{'a': 1} == {'a': 1}", "a map of one's own has no use here"),
        ("b'a' == b'a'", "nothing here is bytes"),
        ("Thing{a: 1} == null", "there is no message `Thing`"),
        ("request.method.exists(x, true)", "a loop goes over a list or the names of a map; this is a string"),
        ("[1].exists(request, true)", "`request` has a meaning already"),
        ("", "an expression in CEL says something"),
        (&"(".repeat(40), "brackets are at most 32 deep"),
        (&format!(r#""\\" == {}"#, "(".repeat(40)), "brackets are at most 32 deep"),
        (&format!(r#"r"\" == {}"#, "(".repeat(40)), "brackets are at most 32 deep"),
        (&format!("// it's\n{}", "(".repeat(40)), "brackets are at most 32 deep"),
        (&"!".repeat(500), "an expression has at most 200 operators"),
        (&"a".repeat(5000), "an expression has at most 4096 bytes"),
        (&format!("1{} > 1", " + 1".repeat(80)), "an expression is at most 64 steps deep"),
    ] {
        assert!(refused(text).starts_with(said), "{text}: {}", refused(text));
    }
    let both = refused("request.metod == 'GET' && request.pth == '/'");
    assert_eq!(both.lines().count(), 2, "every mistake at once: {both}");
}

#[test]
fn a_response_is_known_where_there_is_one() {
    let condition =
        Condition::parse("response.status >= 500 && response.headers.server == 'x'", Place::Response);
    let condition = condition.unwrap_or_else(|errors| panic!("{errors:?}"));
    let (head, mut facts) = (request(), facts(anna()));
    let exchange = Exchange::new(&head, "orders", &mut facts);
    let mut response = ResponseHeader::build(502, None).unwrap();
    assert_eq!(condition.holds_after(&exchange, &response), Ok(false));
    response.insert_header("server", "x").unwrap();
    assert_eq!(condition.holds_after(&exchange, &response), Ok(true));
    assert_eq!(condition.holds(&exchange), Err(Trouble::NoResponse));
    assert!(condition.needs_response());
}

#[test]
fn the_head_alone_tells_some() {
    let foretold = |text: &str| {
        let condition = Condition::parse(text, Place::Request).unwrap_or_else(|errors| panic!("{errors:?}"));
        let (head, mut facts) = (request(), facts(anna()));
        condition.foretold(&Exchange::new(&head, "orders", &mut facts))
    };
    assert_eq!(foretold("request.method == 'POST' && route.name == 'orders'"), Some(true));
    assert_eq!(foretold("request.method == 'GET' && consumer != null"), Some(false));
    for text in [
        "consumer != null",
        "client.ip == ''",
        "claims.sub == null",
        "request.scheme == 'http'",
        "client.tls == null",
    ] {
        assert_eq!(foretold(text), None, "{text}");
        assert_eq!(foretold(&format!("request.method == 'POST' || {text}")), Some(true));
    }
}

#[test]
fn numbers() {
    let number = |text: &str| {
        let expression =
            Expression::parse(text, Place::Request).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        let (head, mut facts) = (request(), facts(anna()));
        expression.number(&Exchange::new(&head, "orders", &mut facts))
    };
    assert_eq!(number("request.size / 1024"), Ok(2));
    assert_eq!(number("request.method == 'POST' ? 5 : 1"), Ok(5));
    assert_eq!(number("2.9"), Ok(2));
    assert_eq!(number("3u"), Ok(3));
    assert_eq!(number("-1"), Err(Trouble::Range));
    assert_eq!(number("claims.cost"), Err(Trouble::Kind));
    assert!(Expression::parse("'a'", Place::Request).is_err());
}

#[test]
fn filters_apply_where_it_cannot_be_told() {
    let when = |texts: &[&str]| {
        let all = texts
            .iter()
            .map(|text| Condition::parse(text, Place::Request).unwrap_or_else(|e| panic!("{e:?}")));
        When::all(all.collect()).unwrap()
    };
    let (head, mut facts) = (request(), facts(anna()));
    let exchange = Exchange::new(&head, "orders", &mut facts);
    assert_eq!(when(&["true", "true"]).applies(&exchange, None), (true, None));
    assert_eq!(when(&["claims.admin", "false"]).applies(&exchange, None), (false, None));
    assert_eq!(when(&["claims.admin", "true"]).applies(&exchange, None), (true, Some(Trouble::Kind)));
    assert_eq!(when(&["true", "1 == 1"]).text(), "(true) && (1 == 1)");
    assert!(When::all(Vec::new()).is_none());
}

/// The largest trees that the bounds allow fit a small stack.
#[test]
fn the_deepest_expressions_fit_the_stack() {
    let rows = [
        ["(".repeat(32), "true".into(), ")".repeat(32)].concat(),
        ["!".repeat(300), "true".into()].concat(),
        ["-".repeat(300), "1 < 1".into()].concat(),
        ["true".into(), " && true".repeat(150)].concat(),
        ["true".into(), " && true || true".repeat(80)].concat(),
        ["1".into(), "+1".repeat(350), " > 1".into()].concat(),
        ["claims".into(), ".a".repeat(350), " == null".into()].concat(),
        ["true ? ".repeat(200), "true".into(), " : true".repeat(200)].concat(),
        ["claims[".repeat(32), "'a'".into(), "]".repeat(32), " == null".into()].concat(),
        ["size(".repeat(32), "'a'".into(), ")".repeat(32), " == 1".into()].concat(),
        ["[".repeat(32), "]".repeat(32), " == []".into()].concat(),
        ["[1].all(x, ".repeat(16), "true".into(), ")".repeat(16)].concat(),
    ];
    let tell = move || {
        for text in rows {
            if let Ok(condition) = Condition::parse(&text, Place::Request) {
                let (head, mut facts) = (request(), facts(anna()));
                let _ = condition.holds(&Exchange::new(&head, "orders", &mut facts));
            }
        }
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(tell).unwrap().join().unwrap();
}

proptest! {
    /// Whatever text stands before them, brackets and operators are counted: as many as are in texts are not.
    #[test]
    fn no_text_hides_brackets_and_operators(
        inside in r#"([a-z(\[+!/ é]|\\\\|\\["'n]){0,12}"#,
        prefix in "(|r|R|b|B|rb|bR)",
        quotes in r#"("|'|\"\"\"|''')"#,
        comment in r#"(|//[a-z'"(\\]{0,8}\n)"#,
    ) {
        let raw = prefix.to_ascii_lowercase().contains('r');
        let inside: String = inside.chars().filter(|letter| !raw || !matches!(letter, '"' | '\'')).collect();
        let text = format!("{comment}{prefix}{quotes}{inside}{quotes}");
        let fine = format!("{text} == {text}");
        let told = Condition::parse(&fine, Place::Request).err().map(|errors| format!("{errors:?}"));
        prop_assert!(!told.is_some_and(|told| told.contains("at most")), "{}", fine);
        for (many, said) in [("(".repeat(40), "brackets are at most"), ("!".repeat(500), "operators")] {
            prop_assert!(refused(&format!("{text} == {many}")).contains(said), "{}", text);
        }
    }

    #[test]
    fn no_text_is_a_panic(text in r#"([a-z .()\[\]{}?:'"!=<>&|+*/%0-9,\\-]|request|headers|consumer|groups|exists|true|has|size|é){0,40}"#) {
        if let Ok(condition) = Condition::parse(&text, Place::Response) {
            let (head, mut facts) = (request(), facts(anna()));
            let _ = condition.holds(&Exchange::new(&head, "orders", &mut facts));
        }
    }
}
