//! `any_of`: which member decides, what nobody is told, what goes further; members of one's own.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use portcullis::document::{ConfigError, Errors};
use portcullis::exchange::{query_values, replace_query_values};
use portcullis::types::Secret;
use portcullis::{
    Authenticator, Chunk, Exchange, Filter, FilterKind, Flow, LogEntry, Phases, Reason, Reply, RequestHeader,
    ResponseHeader, Result, Scope, Stage,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ask::{Ask, Asked, ask, echo, upstream};
use crate::harness::{Gateway, Origin, Response, eventually};

const CONSUMERS: &str = r#"
consumers:
  - { name: mobile, groups: [partners, beta], api_keys: [the-key-of-mobile, { key: the-key-that-is-over, expires: 2020-01-01 }] }
  - { name: shop, basic: [{ username: bob, password: hunter-and-prey }] }
  - { name: guest }
  - { name: other }
"#;
const KEY: &str = "x-api-key: the-key-of-mobile";
const WRONG_KEY: &str = "x-api-key: the-key-of-nobody";
const OF_KEYS: &str = "ApiKey realm=\"keys\"";
const OF_WORDS: &str = "Basic realm=\"words\", charset=\"UTF-8\"";
const BOTH: &str = "{ api_key: { realm: keys, from: ['header:x-api-key', 'query:key', 'cookie:key'] } }, { basic: { realm: words } }";

fn words(origin: &Origin, filters: &str) -> String {
    format!(
        "{}{CONSUMERS}routes: [{{ name: all, path: /*, filters: [{filters}], upstream: echo }}]",
        upstream(origin)
    )
}

fn gateway(origin: &Origin, members: &str) -> Gateway {
    Gateway::start(&words(origin, &format!("{{ any_of: [{members}] }}")))
}

fn basic(credentials: &str) -> String {
    format!("authorization: Basic {}", STANDARD.encode(credentials))
}

#[track_caller]
fn refused(answer: &Response, code: &str, challenges: &[&str]) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some(code)), "{}", answer.text());
    assert_eq!(answer.fields.all("www-authenticate"), challenges);
}

#[test]
fn the_first_member_whose_credentials_are_there_decides() {
    let origin = echo();
    let gateway = gateway(&origin, BOTH);
    let (bob, nobody) = (basic("bob:hunter-and-prey"), basic("bob:wrong"));
    let of_mobile = ["mobile", "partners,beta", "-", "-"];
    let of_shop = ["shop", "-", "bob", "-"];
    for (target, fields, told) in [
        ("/", KEY.to_owned(), of_mobile),
        ("/", bob.clone(), of_shop),
        ("/", format!("{bob}\n{KEY}"), of_mobile),
        ("/", format!("{nobody}\n{KEY}"), of_mobile),
        ("/", format!("{bob}\nx-api-key:"), of_shop),
        ("/", format!("{bob}\nx-consumer-name: mobile"), of_shop),
        ("/?key=the-key-of-mobile&a=b", bob.clone(), of_mobile),
        ("/", format!("{bob}\ncookie: key=the-key-of-mobile; a=b"), of_mobile),
    ] {
        let answer = ask(gateway.address(), &format!("GET {target}"), &fields);
        assert_eq!(answer.status, 200, "{target} {fields}: {}", answer.text());
        let asked = Asked::of(&answer);
        let names = ["x-consumer-name", "x-consumer-groups", "x-consumer-username", "x-anonymous-consumer"];
        assert_eq!(names.map(|name| asked.header(name)), told, "{target} {fields}");
        for secret in ["x-api-key", "authorization"] {
            assert_eq!(asked.header(secret), "-", "nothing that proves anything goes further");
        }
        assert!(!asked.target.contains("the-key"), "{}", asked.target);
        assert!(!asked.header("cookie").contains("the-key"), "{asked:?}");
    }
    assert_eq!(gateway.log_line(6)["query"], "key=***&a=b");
    assert_eq!(gateway.log_line(1)["consumer"], "shop");
}

#[test]
fn wrong_credentials_are_refused_whatever_else_comes() {
    let origin = echo();
    let keys_first = gateway(&origin, BOTH);
    let (bob, nobody) = (basic("bob:hunter-and-prey"), basic("bob:wrong"));
    let to = keys_first.address();
    refused(&ask(to, "GET /", ""), "credentials_missing", &[OF_KEYS, OF_WORDS]);
    refused(&ask(to, "GET /", "authorization: Bearer a"), "credentials_missing", &[OF_KEYS, OF_WORDS]);
    refused(&ask(to, "GET /", WRONG_KEY), "credentials_invalid", &[OF_KEYS]);
    refused(&ask(to, "GET /", &nobody), "credentials_invalid", &[OF_WORDS]);
    let both = format!("{bob}\n{WRONG_KEY}");
    refused(&ask(to, "GET /", &both), "credentials_invalid", &[OF_KEYS]);
    let over = format!("{bob}\nx-api-key: the-key-that-is-over");
    refused(&ask(to, "GET /", &over), "credentials_expired", &[OF_KEYS]);
    let two_keys = format!("{bob}\n{KEY}\n{WRONG_KEY}");
    refused(&ask(to, "GET /", &two_keys), "credentials_conflict", &[OF_KEYS]);
    let two_words = format!("{bob}\nauthorization: Bearer a");
    refused(&ask(to, "GET /", &two_words), "credentials_conflict", &[OF_WORDS]);
    let garbled = ask(to, "GET /", "authorization: Basic %");
    assert_eq!(garbled.problem(), (400, "credentials_malformed".into()));
    let words_first = gateway(&origin, "{ basic: { realm: words } }, { api_key: { realm: keys } }");
    let to = words_first.address();
    refused(&ask(to, "GET /", &format!("{nobody}\n{KEY}")), "credentials_invalid", &[OF_WORDS]);
    assert_eq!(Asked::of(&ask(to, "GET /", &both)).header("x-consumer-name"), "shop");
    refused(&ask(to, "GET /", ""), "credentials_missing", &[OF_WORDS, OF_KEYS]);
    let verdicts =
        r#"portcullis_filter_verdicts_total{route="all",filter="any_of",verdict="credentials_invalid"}"#;
    assert!((words_first.metric(verdicts) - 1.0).abs() < 0.1);
}

#[test]
fn nobody_may_be_somebody_by_the_first_member_that_says_so() {
    let origin = echo();
    let members = "{ basic: { realm: words, hide: false } }, { api_key: { anonymous: guest } }, \
                   { api_key: { from: ['header:x-other'], anonymous: other } }";
    let gateway = gateway(&origin, members);
    let asked = Asked::of(&ask(gateway.address(), "GET /", ""));
    assert_eq!(
        (asked.header("x-consumer-name"), asked.header("x-anonymous-consumer")),
        ("guest".into(), "true".into())
    );
    // To be welcome without a key is not to be welcome with a wrong one.
    let wrong = ask(gateway.address(), "GET /", WRONG_KEY);
    assert_eq!(wrong.problem(), (401, "credentials_invalid".into()));
    let wrong = ask(gateway.address(), "GET /", &basic("bob:wrong"));
    refused(&wrong, "credentials_invalid", &[OF_WORDS]);
    let two = ask(gateway.address(), "GET /", "authorization: Bearer a\nauthorization: Bearer b");
    assert_eq!(two.problem(), (401, "credentials_conflict".into()));
}

#[test]
fn what_was_looked_at_goes_on_where_it_may_and_nothing_else_does() {
    let origin = echo();
    let members =
        "{ api_key: {} }, { basic: { hide: false } }, { api_key: { from: ['query:k'], hide: false } }";
    let leaves = gateway(&origin, members);
    let bob = basic("bob:hunter-and-prey");
    let asked = Asked::of(&ask(leaves.address(), "GET /?k=v", &bob));
    assert_eq!(asked.header("authorization"), bob["authorization: ".len()..]);
    assert_eq!(asked.target, "/");
    // Whose key it is says nothing of the name that comes with it.
    let asked = Asked::of(&ask(leaves.address(), "GET /?k=v", &format!("{}\n{KEY}", basic("admin:x"))));
    assert_eq!((asked.header("authorization"), asked.header("x-api-key")), ("-".into(), "-".into()));
    assert_eq!(asked.target, "/");
    // Those that nobody looked at are hidden as those that decided.
    let members = "basic, { api_key: { from: ['header:x-api-key', 'query:key', 'cookie:key'] } }";
    let words_first = self::gateway(&origin, members);
    let fields = format!("{bob}\n{WRONG_KEY}\nX_API_Key: one\ncookie: key=two; a=b");
    let asked = Asked::of(&ask(words_first.address(), "GET /?key=three&c=d", &fields));
    let seen = ["x-consumer-name", "authorization", "x-api-key", "x_api_key", "cookie"]
        .map(|name| asked.header(name));
    assert_eq!((seen, asked.target.as_str()), (["shop", "-", "-", "-", "a=b"].map(Into::into), "/?c=d"));
    // What is none of a member's credentials passes.
    let hides = gateway(&origin, BOTH);
    let bearer = format!("authorization: Bearer a\n{bob}\n{KEY}");
    let asked = Asked::of(&ask(hides.address(), "GET /", &bearer));
    assert_eq!(asked.header("authorization"), "Bearer a");
}

#[test]
fn it_is_one_filter_among_others() {
    let origin = echo();
    let filters =
        "{ any_of: [api_key, basic], when: request.path != '/open' }, { basic: { anonymous: guest } }";
    let gateway = Gateway::start(&words(&origin, filters));
    let both = format!("{}\n{KEY}", basic("bob:hunter-and-prey"));
    assert_eq!(ask(gateway.address(), "GET /", &both).problem(), (401, "credentials_conflict".into()));
    assert_eq!(ask(gateway.address(), "GET /", "").problem(), (401, "credentials_missing".into()));
    let asked = Asked::of(&ask(gateway.address(), "GET /open", ""));
    assert_eq!(asked.header("x-consumer-name"), "guest");
    let asked = Asked::of(&ask(gateway.address(), "GET /", KEY));
    assert_eq!(asked.header("x-consumer-name"), "mobile");
    let explained = gateway.admin_ask("POST", "/explain", r#"{ "url": "http://gw.test/" }"#).json();
    assert_eq!(explained["chain"][0]["filter"], "any_of");
    assert_eq!(explained["chain"][0]["stage"], "authenticate");
    let shown = &gateway.admin_get("/config").json()["routes"][0]["filters"][0]["any_of"];
    assert_eq!(shown[1]["basic"], serde_json::json!({ "realm": "api", "hide": true }), "{shown}");
}

/// Lets in who has a ticket, and numbers them.
struct Tickets {
    good: String,
    used: Arc<AtomicU32>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TicketWords {
    /// The file with the tickets.
    file: PathBuf,
    /// One that is not in the file.
    spare: Option<Secret>,
}

const BAD_TICKET: Reason = Reason::custom("bad_ticket", StatusCode::FORBIDDEN, "This is no ticket");

impl FilterKind for Tickets {
    const NAME: &'static str = "tickets";
    const STAGE: Stage = Stage::Authenticate;
    const EXAMPLE: &'static str = "{ file: tickets.txt }";
    type Config = TicketWords;

    fn compile(config: TicketWords, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let good = fs::read_to_string(&config.file).map_err(|_| ConfigError::new("file", "no tickets"))?;
        let used = scope.state.adopt(format!("{} tickets", scope.owner), AtomicU32::default);
        Ok(Self { good, used })
    }

    fn secret_queries(_: &TicketWords) -> Vec<String> {
        vec!["ticket".into()]
    }

    fn files(config: &TicketWords) -> Vec<PathBuf> {
        vec![config.file.clone()]
    }
}

impl Tickets {
    fn ticket(exchange: &Exchange<'_>) -> Option<String> {
        let mut values = query_values(exchange.query()?, "ticket");
        values.next().map(|value| String::from_utf8_lossy(&value).into_owned())
    }
}

impl Filter for Tickets {
    type State = u32;

    fn phases(&self) -> Phases {
        Phases::REQUEST
            | Phases::UPSTREAM_REQUEST
            | Phases::REQUEST_BODY
            | Phases::RESPONSE
            | Phases::RESPONSE_BODY
            | Phases::LOG
    }

    fn authenticator(&self) -> Option<&dyn Authenticator> {
        Some(self)
    }

    fn request(&self, number: &mut u32, exchange: &mut Exchange<'_>) -> Result<Flow> {
        let ticket = Self::ticket(exchange).unwrap_or_default();
        if !self.good.lines().any(|good| good == ticket) {
            return Ok(Reply::refuse(BAD_TICKET).into());
        }
        *number = self.used.fetch_add(1, Ordering::Relaxed) + 1;
        self.hide_in_query(exchange);
        Ok(Flow::Continue)
    }

    fn upstream_request(
        &self,
        number: &mut u32,
        _: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()> {
        head.insert_header("x-ticket-number", number.to_string())?;
        Ok(())
    }

    fn request_body(&self, _: &mut u32, _: &mut Exchange<'_>, chunk: &mut Chunk<'_>) -> Result<Flow> {
        match chunk.data.as_deref() {
            Some(b"no ticket, please") => Ok(Reply::refuse(BAD_TICKET).into()),
            _ => Ok(Flow::Continue),
        }
    }

    fn response(&self, number: &mut u32, _: &mut Exchange<'_>, head: &mut ResponseHeader) -> Result<()> {
        head.insert_header("x-ticket-number", number.to_string())?;
        head.remove_header("content-length");
        Ok(())
    }

    fn response_body(&self, number: &mut u32, _: &mut Exchange<'_>, chunk: &mut Chunk<'_>) -> Result<()> {
        if chunk.end {
            let all =
                [chunk.data.as_deref().unwrap_or_default(), format!("\nticket {number}").as_bytes()].concat();
            *chunk.data = Some(all.into());
        }
        Ok(())
    }

    fn log(&self, number: &mut u32, _: &mut Exchange<'_>, entry: &mut LogEntry) {
        entry.field("ticket", number.to_string());
    }
}

impl Authenticator for Tickets {
    fn is_brought(&self, exchange: &Exchange<'_>) -> bool {
        Self::ticket(exchange).is_some()
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("Ticket"))
    }

    fn hide_in_query(&self, exchange: &mut Exchange<'_>) {
        let without = exchange.upstream_query().and_then(|query| replace_query_values(query, "ticket", None));
        if let Some(without) = without {
            exchange.rewrite_query(without);
        }
    }
}

/// Lets in who says a word: a filter made in code.
struct PassWord;

impl Filter for PassWord {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST
    }

    fn authenticator(&self) -> Option<&dyn Authenticator> {
        Some(self)
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        match exchange.header(&http::HeaderName::from_static("x-word")) {
            Some(word) if word == "sesame" => Ok(Flow::Continue),
            _ => Ok(Reply::refuse(Reason::CREDENTIALS_INVALID).into()),
        }
    }
}

impl Authenticator for PassWord {
    fn is_brought(&self, exchange: &Exchange<'_>) -> bool {
        exchange.request().headers.contains_key("x-word")
    }
}

#[test]
fn filters_of_ones_own_are_members() {
    let origin = echo();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tickets.txt");
    fs::write(&file, "red\n").unwrap();
    let of_tickets = format!("{{ tickets: {{ file: '{}', spare: hidden-ticket }} }}", file.display());
    // None of these members waits for anything.
    let yaml =
        words(&origin, &format!("{{ any_of: [{of_tickets}, word, {{ api_key: {{ realm: keys }} }}] }}"));
    let gateway = Gateway::start_file_with(&yaml, |gateway| {
        gateway.filter_kind::<Tickets>().named_filter("word", Stage::Authenticate, PassWord)
    });
    let to = gateway.address();
    let answer = ask(to, "GET /?ticket=red&a=b", "");
    let asked = Asked::of(&answer);
    assert_eq!((asked.target.as_str(), asked.header("x-ticket-number")), ("/?a=b", "1".into()));
    assert_eq!(answer.header("x-ticket-number"), Some("1"));
    assert!(answer.text().ends_with("\nticket 1"), "{}", answer.text());
    assert_eq!(
        (&gateway.log_line(0)["ticket"], &gateway.log_line(0)["query"]),
        (&"1".into(), &"ticket=***&a=b".into())
    );
    let body = Ask::new("POST /?ticket=red").body("no ticket, please").send(to);
    let told = |answer: &Response| answer.text().contains("\"code\":\"bad_ticket\"");
    assert!(body.status == 403 && told(&body), "{}", body.text());
    let blue = ask(to, "GET /?ticket=blue", KEY);
    assert!(blue.status == 403 && told(&blue), "{}", blue.text());
    assert_eq!(Asked::of(&ask(to, "GET /", KEY)).header("x-consumer-name"), "mobile");
    assert_eq!(
        ask(to, "GET /", &format!("{KEY}\nx-word: wrong")).problem(),
        (401, "credentials_invalid".into())
    );
    let by_word = ask(to, "GET /", "x-word: sesame");
    let asked = Asked::of(&by_word);
    assert_eq!((by_word.header("x-ticket-number"), asked.header("x-ticket-number")), (None, "-".into()));
    assert_eq!(gateway.log_line(5).get("ticket"), None);
    refused(&ask(to, "GET /", ""), "credentials_missing", &["Ticket", OF_KEYS]);
    let shown = gateway.admin_get("/config").text();
    assert!(shown.contains("\"spare\":\"***\"") && !shown.contains("hidden-ticket"), "{shown}");
    // The file of a member is watched, and what a member counts goes on.
    fs::write(&file, "green\n").unwrap();
    eventually("the new tickets", || ask(to, "GET /?ticket=green", "").status == 200);
    let number: u32 = ask(to, "GET /?ticket=green", "").header("x-ticket-number").unwrap().parse().unwrap();
    assert!(number > 3, "{number}");
}

/// Of the right stage, but it cannot tell whether a request brings anything.
struct Silent;

impl Filter for Silent {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST
    }
}

#[test]
fn what_cannot_be_a_member_is_refused_with_its_place() {
    let refused = |members: &str| {
        let yaml = format!(
            "listeners: [{{ name: web, address: \"127.0.0.1:0\" }}]\n\
             routes: [{{ name: a, path: /, filters: [any_of: [{members}]], respond: {{ body: a }} }}]"
        );
        let gateway = portcullis::Gateway::from_yaml(&yaml).filter_kind::<Tickets>();
        let gateway = gateway.named_filter("silent", Stage::Authenticate, Silent);
        let gateway = gateway.named_filter("word", Stage::Authenticate, PassWord);
        let gateway = gateway.named_filter("late", Stage::Authorize, PassWord);
        gateway.start().err().map(|error| error.to_string()).unwrap_or_default()
    };
    let message =
        refused("silent, late, { word: { a: 1 } }, { tickets: { file: /no/such/file } }, { tickets: {} }");
    for (place, said) in [
        ("[0]", "`silent` cannot tell whether a request brings credentials"),
        ("[1]", "`late` cannot be a member: it is not of the stage `authenticate`"),
        ("[2].word", "`word` is made in code and has no configuration"),
        ("[3].tickets.file", "no tickets"),
        ("[4].tickets", "missing key `file`"),
    ] {
        let whole = format!("routes[0].filters[0].any_of{place}: {said}");
        assert!(message.contains(&whole), "{whole}:\n{message}");
    }
    assert!(message.contains("there is `api_key`, `basic`, `tickets`, `silent`, `word`"), "{message}");
}
