//! Every option of `quota`.

use portcullis::Stage;

use crate::ask::{Ask, upstream};
use crate::harness::redis::Redis;
use crate::harness::{Gateway, Origin};
use crate::rate_limit::Believe;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn yaml(redis: &Redis, origin: &Origin, words: &str) -> String {
    format!(
        "{}server: {{ threads: 1, trusted_proxies: [127.0.0.9/32] }}\n\
         stores: {{ main: {{ redis: {{ url: \"{}\", timeout: 10s }} }} }}\n\
         routes: [{{ name: all, path: /*, filters: [{{ quota: {{ store: main, {words} }} }}], upstream: echo }}]\n",
        upstream(origin),
        redis.url()
    )
}

fn quota(redis: &Redis, origin: &Origin, words: &str) -> Gateway {
    Gateway::start_with(&yaml(redis, origin, words), |gateway| {
        gateway.filter("believe", Stage::Authenticate, Believe)
    })
}

fn passing(gateway: &Gateway, fields: &str, of: usize) -> usize {
    let ask = Ask::new("GET /").header(fields);
    (0..of).filter(|_| ask.send(gateway.address()).status == 200).count()
}

/// The seconds since 1970, by the server.
fn time(redis: &Redis) -> i64 {
    redis.ask::<Vec<i64>>(&["TIME"])[0]
}

/// When the month of a time ends, by counting days.
fn month_end(time: i64) -> i64 {
    let mut day = 0;
    for year in 1970.. {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        for days in [31, 28 + i64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            day += days;
            if day * DAY > time {
                return day * DAY;
            }
        }
    }
    unreachable!()
}

#[test]
fn a_quota_lasts_to_the_end_of_its_time_and_over_restarts() {
    let origin = Origin::ok();
    for (per, window) in [("hour", 3600), ("day", 86_400), ("month", 31 * 86_400)] {
        let redis = Redis::start();
        let end = |now: i64| match per {
            "hour" => (now / HOUR + 1) * HOUR,
            "day" => (now / DAY + 1) * DAY,
            _ => month_end(now),
        };
        let words = format!("limit: 3, per: {per}, key: ip");
        let before = time(&redis);
        let first = quota(&redis, &origin, &words);
        let answer = first.get("/");
        assert_eq!(answer.header("ratelimit-policy").unwrap(), format!("\"quota\";q=3;w={window}"));
        assert!(answer.header("ratelimit").unwrap().starts_with("\"quota\";r=2;t="));
        first.shutdown();
        let second = quota(&redis, &origin, &words);
        assert_eq!(passing(&second, "", 4), 2, "{per}");
        let refusal = second.get("/");
        assert_eq!(refusal.problem(), (429, "quota_exceeded".to_owned()));
        let after: i64 = refusal.header("retry-after").unwrap().parse().unwrap();
        let now = time(&redis);
        if end(before) != end(now) {
            // The time was over in the middle of this.
            continue;
        }
        assert!((end(now) - now..=end(before) - before + 1).contains(&after), "{per}: {after}");
        let keys: Vec<String> = redis.ask(&["KEYS", "portcullis:quota:*"]);
        assert_eq!(keys.len(), 1);
        assert!(redis.ask::<i64>(&["TTL", &keys[0]]) <= end(before) - before + 1);
    }
}

#[test]
fn whoever_the_key_says_is_counted() {
    let (redis, origin) = (Redis::start(), Origin::ok());
    for (at, (words, fields, same, other)) in [
        ("", "x-as: a", "x-as: a b", "x-as: b"),
        ("key: 'header:x-user',", "x-user: a", "x-user: a", "x-user: b"),
        ("key: 'header:x-user', missing_key: share,", "x-other: a", "x-other: b", "x-user: a"),
        ("cost: size(request.path) + 1, key: 'header:x-user',", "x-user: a", "x-user: a", "x-user: b"),
        ("cost: 2, key: 'header:x-user',", "x-user: a", "x-user: a", "x-user: b"),
    ]
    .into_iter()
    .enumerate()
    {
        let limit = if words.contains("cost") { 3 } else { 1 };
        let gateway = quota(&redis, &origin, &format!("{words} limit: {limit}, per: month, name: n{at}"));
        assert_eq!([fields, same, other].map(|fields| passing(&gateway, fields, 1)), [1, 0, 1], "{words}");
        let told = Ask::new("GET /").header(fields).send(gateway.address());
        assert!(told.header("ratelimit").unwrap().starts_with(&format!("\"n{at}\";r=0;t=")), "{words}");
    }
    let skips = quota(&redis, &origin, "limit: 1, per: month, missing_key: skip");
    assert_eq!(passing(&skips, "", 3), 3);
    let refuses = quota(&redis, &origin, "limit: 1, per: month, missing_key: refuse");
    assert_eq!(refuses.get("/").problem(), (400, "limit_key_missing".to_owned()));
    for (prefix, passes) in [(64, 1), (48, 0)] {
        let gateway =
            quota(&redis, &origin, &format!("limit: 1, per: month, key: ip, ipv6_prefix: {prefix}"));
        let from = |of: &str| {
            let field = format!("x-forwarded-for: {of}");
            Ask::new("GET /").header(&field).from("127.0.0.9").send(gateway.address()).status
        };
        assert_eq!(from("2001:db8:0:1::1"), 200);
        assert_eq!(from("2001:db8:0:1::2"), 429);
        assert_eq!(from("2001:db8:0:2::2") == 200, passes == 1);
    }
}

#[test]
fn consumers_and_groups_have_quotas_of_their_own() {
    let (redis, origin) = (Redis::start(), Origin::ok());
    let words = "limit: 1, per: month, overrides: { consumers: { mobile: 2 }, groups: { partners: 3 } }";
    let gateway = quota(&redis, &origin, words);
    for (who, limit) in [("mobile partners", 2), ("b partners", 3), ("c", 1)] {
        assert_eq!(passing(&gateway, &format!("x-as: {who}"), 5), limit, "{who}");
    }
}

#[test]
fn clients_are_told_as_the_words_say_and_a_dry_run_tells_nothing() {
    let (redis, origin) = (Redis::start(), Origin::ok());
    for (at, (words, ietf, legacy)) in [
        ("headers: ietf", true, false),
        ("headers: legacy", false, true),
        ("headers: both", true, true),
        ("headers: off", false, false),
    ]
    .into_iter()
    .enumerate()
    {
        let gateway = quota(&redis, &origin, &format!("limit: 9, per: month, key: ip, name: n{at}, {words}"));
        let answer = gateway.get("/");
        assert_eq!(answer.header("ratelimit").is_some(), ietf, "{words}");
        assert_eq!(answer.header("x-ratelimit-remaining"), legacy.then_some("8"), "{words}");
    }
    let gateway = quota(&redis, &origin, "limit: 1, per: month, key: ip, dry_run: true");
    assert_eq!(passing(&gateway, "", 3), 3);
    assert_eq!(gateway.get("/").header("ratelimit"), None);
    let verdict = "portcullis_filter_verdicts_total{route=\"all\",filter=\"quota\",verdict=\"dry_run\"}";
    crate::harness::eventually("it is counted", || gateway.metric(verdict) == 3.0);
}

#[test]
fn without_a_store_it_is_as_the_policy_says() {
    let origin = Origin::ok();
    for (words, passes, refusal) in [
        ("", 1, 429),
        ("on_store_error: local", 1, 429),
        ("on_store_error: open", 9, 200),
        ("on_store_error: closed", 0, 503),
    ] {
        let mut redis = Redis::start();
        let gateway = quota(&redis, &origin, &format!("limit: 3, per: month, key: ip, {words}"));
        assert_eq!(passing(&gateway, "", 2), 2);
        redis.stop();
        assert_eq!(passing(&gateway, "", 9), passes, "{words}");
        assert_eq!(gateway.get("/").status, refusal, "{words}");
    }
}

#[test]
fn what_was_used_stays_used_when_the_limit_changes() {
    let (redis, origin) = (Redis::start(), Origin::ok());
    let gateway = Gateway::start_file(&yaml(&redis, &origin, "limit: 2, per: month, key: ip"));
    assert_eq!(passing(&gateway, "", 3), 2);
    gateway.rewrite(&yaml(&redis, &origin, "limit: 5, per: month, key: ip"));
    gateway.reload().unwrap();
    assert_eq!(passing(&gateway, "", 9), 3);
}

#[test]
fn the_same_words_under_other_conditions_count_apart_over_restarts() {
    let (redis, origin) = (Redis::start(), Origin::ok());
    let quota = "{ quota: { store: main, limit: 2, per: month, key: ip } }";
    let rate = "{ rate_limit: { store: main, rate: 2/d, algorithm: fixed_window } }";
    for filter in [quota, rate] {
        let of = |part| {
            format!("{}, when: 'request.headers[\"x-part\"] == \"{part}\"' }}", &filter[..filter.len() - 2])
        };
        let plain = yaml(&redis, &origin, "limit: 2, per: month, key: ip");
        let words = plain.replace(quota, &[of("a"), of("b")].join(", "));
        assert_ne!(words, plain);
        redis.ask::<()>(&["FLUSHALL"]);
        for passes in [2, 0] {
            let gateway = Gateway::start(&words);
            let passed = ["a", "b"].map(|part| passing(&gateway, &format!("x-part: {part}"), 3));
            assert_eq!(passed, [passes; 2], "{filter}");
        }
        assert_eq!(redis.keys("").len(), 2, "{filter}");
    }
}
