//! `basic`: names and passwords, what is refused, what goes further, and what guessing costs.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::ask::{Asked, ask, echo, upstream};
use crate::harness::{Gateway, Origin, Response};

/// `hunter22` by bcrypt with its least cost, as `htpasswd -nbB -C 4` prints it.
const BCRYPT: &str = "$2y$04$3TjlkokmZGbWFVck1NR45.SPIXq4sBWIMIG9OkJlgWwFi7s/mj3rO";
/// `hunter33` by Argon2id, as `argon2 'some salt of ours' -id -t 1 -k 64 -e` prints it.
const ARGON2ID: &str =
    "$argon2id$v=19$m=64,t=1,p=1$c29tZSBzYWx0IG9mIG91cnM$NfcGz42l07oKFK1H0asO0DLHnTX3LIFxqUQyWChyl88";

fn consumers() -> String {
    format!(
        r#"
consumers:
  - name: mobile
    groups: [partners]
    basic:
      - {{ username: bob, password_hash: "{BCRYPT}" }}
      - {{ username: alice, password_hash: "{ARGON2ID}" }}
      - {{ username: old, password: hunter44, expires: 2020-01-01 }}
  - name: shop
    basic: [{{ username: "größe 1", password: "pass:wörd €", expires: 2999-01-01 }}]
  - name: guest
"#
    )
}

fn gateway(origin: &Origin, settings: &str) -> Gateway {
    Gateway::start(&format!(
        "{}{}routes:\n  - {{ name: all, path: /*, filters: [{{ basic: {settings} }}], upstream: echo }}\n  \
         - {{ name: open, path: /open, respond: {{}} }}\n",
        upstream(origin),
        consumers()
    ))
}

fn of(credentials: &str) -> String {
    format!("authorization: Basic {}", STANDARD.encode(credentials))
}

#[track_caller]
fn passed(answer: &Response, consumer: &str, username: &str) -> Asked {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = Asked::of(answer);
    // The harness shows each byte as a character.
    let username: String = username.bytes().map(char::from).collect();
    assert_eq!(
        (asked.header("x-consumer-name"), asked.header("x-consumer-username")),
        (consumer.to_owned(), username)
    );
    asked
}

#[track_caller]
fn refused(answer: &Response, status: u16, code: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{}", answer.text());
    assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"api\", charset=\"UTF-8\""));
}

#[test]
fn a_name_and_a_password_say_who_it_is() {
    let origin = echo();
    let gateway = gateway(&origin, "{}");
    // The second time it is remembered.
    for _ in 0..2 {
        for (credentials, consumer, username) in [
            ("bob:hunter22", "mobile", "bob"),
            ("alice:hunter33", "mobile", "alice"),
            ("größe 1:pass:wörd €", "shop", "größe 1"),
        ] {
            let asked = passed(&ask(gateway.address(), "GET /", &of(credentials)), consumer, username);
            assert_eq!(asked.header("authorization"), "-", "the password goes no further");
        }
        for credentials in [
            "bob:hunter33",
            "bob:hunter2",
            "bob:hunter22 ",
            "bob:",
            ":hunter22",
            ":",
            "Bob:hunter22",
            "nobody:hunter22",
            "nobody:hunter33",
            "old:hunter22",
            "größe 1:pass:w\u{f6}rd",
        ] {
            refused(&ask(gateway.address(), "GET /", &of(credentials)), 401, "credentials_invalid");
        }
    }
    refused(&ask(gateway.address(), "GET /", &of("old:hunter44")), 401, "credentials_expired");
    let line = gateway.logged(|line| line["status"] == 200);
    assert_eq!(line["consumer"], "mobile");
}

#[test]
fn what_cannot_be_read_is_refused() {
    let origin = echo();
    let gateway = gateway(&origin, "{}");
    let encoded = STANDARD.encode("bob:hunter22");
    for (fields, status, code) in [
        (String::new(), 401, "credentials_missing"),
        ("authorization: Bearer abc".into(), 401, "credentials_missing"),
        (format!("authorization: Basics {encoded}"), 401, "credentials_missing"),
        (format!("proxy-authorization: Basic {encoded}"), 401, "credentials_missing"),
        ("authorization: Basic".into(), 400, "credentials_malformed"),
        ("authorization: Basic !!!".into(), 400, "credentials_malformed"),
        (format!("authorization: Basic {encoded}!"), 400, "credentials_malformed"),
        (of("no colon"), 400, "credentials_malformed"),
        (of("bob:hunter22\0"), 400, "credentials_malformed"),
        (of("bob\n:hunter22"), 400, "credentials_malformed"),
        (
            format!("authorization: Basic {}", STANDARD.encode(b"bob:hunter\xff\xfe")),
            401,
            "credentials_invalid",
        ),
        (of(&format!("bob:{}", "x".repeat(20 << 10))), 401, "credentials_invalid"),
        (of(&format!("{}:x", "bob".repeat(400))), 401, "credentials_invalid"),
        (format!("authorization: Basic {encoded}\nauthorization: Bearer abc"), 401, "credentials_conflict"),
    ] {
        let answer = ask(gateway.address(), "GET /", &fields);
        if status == 400 {
            assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some(code)), "{fields}");
        } else {
            refused(&answer, status, code);
        }
    }
    // As tolerant as RFC 9110 has it: the scheme in any case, more than one space; and padding left out.
    for value in [
        format!("basic {encoded}"),
        format!("BASIC   {encoded}"),
        format!("Basic {}", encoded.trim_end_matches('=')),
    ] {
        passed(&ask(gateway.address(), "GET /", &format!("authorization: {value}")), "mobile", "bob");
    }
}

#[test]
fn its_settings_hold() {
    let origin = echo();
    let shown = gateway(&origin, "{ hide: false, realm: the shop }");
    let asked = passed(&ask(shown.address(), "GET /", &of("bob:hunter22")), "mobile", "bob");
    assert_eq!(asked.header("authorization"), of("bob:hunter22")["authorization: ".len()..]);
    let answer = ask(shown.address(), "GET /", "");
    assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"the shop\", charset=\"UTF-8\""));

    let anonymous = gateway(&origin, "{ anonymous: guest }");
    // What is not of this scheme is not taken away.
    let asked = passed(&ask(anonymous.address(), "GET /", "authorization: Bearer abc"), "guest", "-");
    assert_eq!(asked.header("authorization"), "Bearer abc");
    passed(&ask(anonymous.address(), "GET /", &of("bob:hunter22")), "mobile", "bob");
    refused(&ask(anonymous.address(), "GET /", &of("bob:wrong")), 401, "credentials_invalid");
}

#[test]
fn curl_asks_as_it_should() {
    let origin = echo();
    let gateway = gateway(&origin, "{}");
    let url = format!("http://{}/", gateway.address());
    let curl = |user: &[&str]| {
        let output = Command::new("curl")
            .args(["--silent", "--max-time", "20", "--anyauth"])
            .args(user)
            .arg(&url)
            .output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    };
    // It waits for the challenge before it says its name.
    assert!(curl(&["-u", "alice:hunter33"]).contains("x-consumer-username: alice\n"));
    assert!(curl(&["-u", "größe 1:pass:wörd €"]).contains("x-consumer-name: shop\n"));
    assert!(curl(&["-u", "alice:hunter3"]).contains("credentials_invalid"));
    assert!(curl(&[]).contains("credentials_missing"));
}

/// Guessing takes neither the workers nor the memory of those who serve, and is sent away when it is too much.
#[test]
fn floods_of_guesses_are_bounded() {
    let origin = echo();
    let slow = bcrypt::hash("hunter22", 9).unwrap();
    let gateway = Gateway::start(&format!(
        "{}consumers: [{{ name: mobile, basic: [{{ username: bob, password_hash: \"{slow}\" }}] }}]\n\
         routes:\n  - {{ name: all, path: /*, filters: [basic], upstream: echo }}\n  \
         - {{ name: open, path: /open, respond: {{}} }}\n",
        upstream(&origin)
    ));
    passed(&ask(gateway.address(), "GET /", &of("bob:hunter22")), "mobile", "bob");
    let address = gateway.address();
    // Of one who has the name, and of one who has none.
    let guesses: Vec<_> = (0..200)
        .map(|number| {
            let name = if number % 2 == 0 { "bob" } else { "nobody" };
            thread::spawn(move || ask(address, "GET /", &of(&format!("{name}:guess {number}"))))
        })
        .collect();
    let begun = Instant::now();
    let mut served = 0;
    while guesses.iter().any(|guess| !guess.is_finished()) || served == 0 {
        assert_eq!(ask(address, "GET /open", "").status, 200);
        // Who is known is not among those that wait.
        passed(&ask(address, "GET /", &of("bob:hunter22")), "mobile", "bob");
        served += 1;
        assert!(begun.elapsed() < Gateway::soon() * 3);
        thread::sleep(Duration::from_millis(5));
    }
    let answers: Vec<_> = guesses.into_iter().map(|guess| guess.join().unwrap()).collect();
    let (wrong, busy): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 401);
    assert!(!wrong.is_empty() && !busy.is_empty(), "{} wrong, {} sent away", wrong.len(), busy.len());
    for answer in busy {
        assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("authentication_busy")));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert!(served > 3, "others were served meanwhile: {served}");
}

#[test]
fn what_bcrypt_does_not_look_at_matches_nothing() {
    let origin = echo();
    let longest = "p".repeat(72);
    let hash = bcrypt::hash(&longest, 4).unwrap();
    let gateway = Gateway::start(&format!(
        "{}consumers: [{{ name: mobile, basic: [{{ username: bob, password_hash: \"{hash}\" }}] }}]\n\
         routes: [{{ name: all, path: /*, filters: [basic: {{}}], upstream: echo }}]",
        upstream(&origin)
    ));
    let log_in = |password: &str| ask(gateway.address(), "GET /", &of(&format!("bob:{password}")));
    passed(&log_in(&longest), "mobile", "bob");
    for wrong in [format!("{longest}p"), format!("{longest} and more"), longest[1..].to_owned()] {
        refused(&log_in(&wrong), 401, "credentials_invalid");
    }
    passed(&log_in(&longest), "mobile", "bob");
}

#[test]
fn what_a_filter_sets_in_its_place_goes_upstream() {
    let origin = echo();
    let theirs = STANDARD.encode("gateway:of-the-upstream");
    for (change, stage) in [("set", "stage: admit"), ("set", "stage: route"), ("add", "stage: admit")] {
        let gateway = Gateway::start(&format!(
            "{}{}routes:\n  - name: all\n    path: /*\n    upstream: echo\n    filters:\n      - basic: {{}}\n      \
             - {{ headers: {{ request: {{ {change}: {{ authorization: Basic {theirs} }} }} }}, {stage} }}\n",
            upstream(&origin),
            consumers()
        ));
        let asked = passed(&ask(gateway.address(), "GET /", &of("bob:hunter22")), "mobile", "bob");
        let sent: Vec<_> = asked.fields.all("authorization");
        assert_eq!(sent, [format!("Basic {theirs}")], "{change}, {stage}");
    }
}
