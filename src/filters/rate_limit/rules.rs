//! Words become rules.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use http::HeaderName;

use super::config::{Algorithm, Config, Cost, Overrides, Rule as Words};
use crate::document::{ConfigError, Errors};
use crate::limit::{
    self, Headers, Key, KeyHash, Label, Limiter, MissingKey, Policy, Price, Shared, SlidingLog, Subject,
    Terms, Variants,
};
use crate::registry::Scope;
use crate::stores::{Place, Redis};
use crate::types::Rate;

/// The most that one request may take.
const MOST_COST: u64 = 1_000_000;
/// The most that a sliding log remembers of a key.
const MOST_LOG: u64 = 10_000;
/// How many clients a rule knows where nothing is said.
pub(super) const MAX_KEYS: usize = 1_000_000;
/// The same with a sliding log, which takes up to 2 KB for each.
const MAX_LOG_KEYS: usize = 100_000;
/// The most memory that a sliding log may come to take, in bytes.
const MOST_LOG_BYTES: usize = 1 << 30;
/// How long a request waits with a leaky bucket where nothing is said.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// One rule.
pub(super) struct Rule {
    pub(super) subject: Subject,
    pub(super) plans: Variants<Plan>,
    pub(super) price: Price,
    /// The field of an answer that says the cost, and the most that is believed.
    pub(super) told: Option<(HeaderName, u64)>,
    pub(super) counts: Arc<Counts>,
    /// What it means and for whom: the same on every machine with this configuration.
    pub(super) identity: Box<str>,
    /// The same, in short.
    pub(super) mark: String,
}

/// What is counted, over reloads.
pub(super) struct Counts {
    pub(super) limiter: Limiter,
    pub(super) hash: KeyHash,
}

/// How much someone may have.
pub(super) struct Plan {
    pub(super) policy: Policy,
    /// The same in a store's words.
    pub(super) terms: Terms,
    /// The rate and the burst as they are written.
    pub(super) words: String,
    /// Tells it from other plans of the rule: those with the same words count together.
    pub(super) salt: u64,
    /// What clients are told of it.
    pub(super) label: Label,
}

/// The rules of a configuration.
pub(super) fn rules(config: Config, scope: &Scope<'_>) -> Result<(Vec<Rule>, Option<Arc<Redis>>), Errors> {
    let mut errors = Errors::default();
    let redis = store(&config, scope, &mut errors);
    if config.max_keys.is_some_and(|keys| keys == 0 || keys > 100_000_000) {
        errors.push(ConfigError::new("max_keys", "the clients known at once are 1 to 100,000,000"));
    }
    if config.dry_run && config.headers != Headers::default() {
        let message = "clients are told nothing of limits that only `dry_run`";
        errors.push(ConfigError::new("headers", message));
    }
    let max_keys = config.max_keys.map(|keys| keys.clamp(1, 100_000_000));
    let words = words(config, &mut errors);
    let one = matches!(&*words, [(path, _)] if path.is_empty());
    let rules: Vec<_> = words
        .into_iter()
        .enumerate()
        .filter_map(|(at, (path, words))| {
            let name = if one { "default".to_owned() } else { format!("rule-{}", at + 1) };
            let mut of_rule = Errors::default();
            let rule = rule(words, name, max_keys, scope, (&mut of_rule, &mut errors));
            errors.extend(if path.is_empty() { of_rule } else { of_rule.below(&path) });
            rule
        })
        .collect();
    errors.or((rules, redis))
}

/// The store that a configuration counts at, if it is not the gateway's own memory; and whether what it wants can be
/// counted there.
fn store(config: &Config, scope: &Scope<'_>, errors: &mut Errors) -> Option<Arc<Redis>> {
    let redis = match scope.stores.place(&config.store) {
        Some(Place::Redis(redis)) => redis,
        Some(Place::Unknown) => return None,
        Some(Place::Memory) => {
            if config.settle_every.is_some() {
                let message = "there is nobody to settle with: name a `store`";
                errors.push(ConfigError::new("settle_every", message));
            }
            if config.on_store_error.is_some() {
                let message = "what is counted in `memory` needs no store: name a `store`";
                errors.push(ConfigError::new("on_store_error", message));
            }
            return None;
        }
        None => {
            let names: Vec<&str> = scope.stores.names().collect();
            let error = ConfigError::new("store", format!("there is no store `{}`", config.store));
            errors.push(error.with_hint(format!("there is `{}`", names.join("`, `"))));
            return None;
        }
    };
    let mut check = |path: &str, algorithm: Algorithm, rate: Option<Rate>, overrides: Option<&Overrides>| {
        if !Shared::knows(algorithm.kind()) {
            let message =
                "this is not counted at a store: take `token_bucket`, `fixed_window` or `sliding_window`";
            errors.push(ConfigError::new(format!("{path}algorithm"), message));
        } else if config.settle_every.is_some() && algorithm != Algorithm::TokenBucket {
            let message = "with `settle_every` it is `token_bucket` that is counted";
            errors.push(ConfigError::new(format!("{path}algorithm"), message));
        }
        let others = overrides.into_iter().flat_map(Overrides::rates);
        for (place, rate) in rate.map(|rate| (String::new(), rate)).into_iter().chain(others) {
            if u128::from(rate.amount()) * 1000 / rate.period().as_millis().max(1) > 1_000_000 {
                let message = "a store counts up to 1,000,000 in a second";
                errors.push(ConfigError::new(format!("{path}{place}rate"), message));
            }
        }
    };
    match &config.rules {
        None => check("", config.algorithm.unwrap_or_default(), config.rate, config.overrides.as_ref()),
        Some(rules) => {
            for (at, rule) in rules.iter().enumerate() {
                check(&format!("rules[{at}]."), rule.algorithm, Some(rule.rate), Some(&rule.overrides));
            }
        }
    }
    let every = config.settle_every.map(|every| every.get());
    if every.is_some_and(|every| every.is_zero() || every > Duration::from_secs(60)) {
        errors.push(ConfigError::new("settle_every", "accounts are settled every 1ms to 60s"));
    }
    Some(redis)
}

/// The words of each rule, and where they stand.
fn words(config: Config, errors: &mut Errors) -> Vec<(String, Words)> {
    let Some(rules) = config.rules else {
        let Some(rate) = config.rate else {
            let error = ConfigError::new("", "rate_limit needs a `rate`, or `rules`");
            errors.push(error.with_hint("write `rate: 100/s`"));
            return Vec::new();
        };
        let words = Words {
            rate,
            burst: config.burst,
            algorithm: config.algorithm.unwrap_or_default(),
            max_wait: config.max_wait,
            key: config.key.unwrap_or_else(Key::ip),
            ipv6_prefix: config.ipv6_prefix.unwrap_or(64),
            missing_key: config.missing_key.unwrap_or_default(),
            cost: config.cost.unwrap_or_default(),
            overrides: config.overrides.unwrap_or_default(),
            name: config.name,
        };
        return vec![(String::new(), words)];
    };
    for (word, there) in [
        ("rate", config.rate.is_some()),
        ("burst", config.burst.is_some()),
        ("algorithm", config.algorithm.is_some()),
        ("max_wait", config.max_wait.is_some()),
        ("key", config.key.is_some()),
        ("ipv6_prefix", config.ipv6_prefix.is_some()),
        ("missing_key", config.missing_key.is_some()),
        ("cost", config.cost.is_some()),
        ("overrides", config.overrides.is_some()),
        ("name", config.name.is_some()),
    ] {
        if there {
            errors
                .push(ConfigError::new(word, format!("where there are `rules`, `{word}` is a word of each")));
        }
    }
    if rules.is_empty() {
        errors.push(ConfigError::new("rules", "without a rule nothing is limited"));
    }
    if rules.len() > 16 {
        errors.push(ConfigError::new("rules", "a filter has 16 rules at most"));
    }
    rules.into_iter().enumerate().map(|(at, rule)| (format!("rules[{at}]"), rule)).collect()
}

fn rule(
    words: Words,
    name: String,
    max_keys: Option<usize>,
    scope: &Scope<'_>,
    (errors, of_all): (&mut Errors, &mut Errors),
) -> Option<Rule> {
    check(&words, errors);
    let Overrides { consumers, groups } = &words.overrides;
    errors.extend(limit::check_overrides(consumers.keys(), groups.keys(), scope.consumers));
    // Rules that mean the same are one: their counts go on over a reload.
    let meaning = serde_json::json!([
        words.rate,
        words.burst,
        words.algorithm,
        words.max_wait,
        words.key,
        words.ipv6_prefix,
        words.name,
    ]);
    let identity = format!("{} rate_limit {meaning}", scope.counts_for()).into_boxed_str();
    let Words { rate, burst, algorithm, max_wait, key, ipv6_prefix, missing_key, cost, overrides, .. } =
        words;
    let name = words.name.unwrap_or(name);
    let max_wait = max_wait.map_or(MAX_WAIT, |wait| wait.get());
    let plan = |rate: Rate, burst: Option<u64>| Plan::new(&name, algorithm, rate, burst, max_wait);
    let plans = plans(&plan, rate, burst, overrides, algorithm, errors)?;
    let (cost, told) = match cost {
        Cost::Known(cost) => (cost, None),
        Cost::Told(told) => (limit::Cost::default(), Some((told.response_header, told.max))),
    };
    let price = cost.price().map_err(|wrong| errors.extend(wrong.below("cost"))).ok()?;
    let unknown = scope.unknown_parameters(price.parameters());
    errors.extend(unknown.map(|sentence| ConfigError::new("cost", sentence)));
    for at in plans.all() {
        if let Price::Fixed(cost) = price
            && cost > at.label.quota()
        {
            let message = format!(
                "a request that takes {cost} never passes where there are {} at most",
                at.label.quota()
            );
            errors.push(ConfigError::new("cost", message));
        }
    }
    let max_keys = match algorithm {
        Algorithm::SlidingLog => log_keys(max_keys, &plans, &name, of_all),
        _ => max_keys.unwrap_or(MAX_KEYS),
    };
    let counts = scope.state.adopt(format!("{identity} {max_keys}"), || Counts {
        limiter: Limiter::new(algorithm.kind(), max_keys),
        hash: KeyHash::default(),
    });
    let (subject, mark) = (Subject { key, ipv6_prefix, missing: missing_key }, limit::mark(&identity));
    Some(Rule { subject, plans, price, told, counts, identity, mark })
}

/// How many clients a sliding log knows: it takes memory for each of their requests, and is bounded as a whole.
fn log_keys(max_keys: Option<usize>, plans: &Variants<Plan>, rule: &str, errors: &mut Errors) -> usize {
    let Some(max_keys) = max_keys else { return MAX_LOG_KEYS };
    let amounts = plans.all().iter().map(|plan| plan.terms.amount);
    let each = SlidingLog::most_bytes(amounts.max().unwrap_or_default());
    if each.saturating_mul(max_keys) > MOST_LOG_BYTES {
        let message = format!(
            "{max_keys} clients could take {} MiB by `{rule}`: a sliding log remembers up to {each} bytes of each, and has 1024 \
             MiB in all",
            each.saturating_mul(max_keys) >> 20
        );
        let hint =
            format!("write `max_keys: {}` or less, or count by `sliding_window`", MOST_LOG_BYTES / each);
        errors.push(ConfigError::new("max_keys", message).with_hint(hint));
    }
    max_keys.min(MOST_LOG_BYTES / each)
}

fn check(words: &Words, errors: &mut Errors) {
    let mut wrong = |word: &str, message: &str| errors.push(ConfigError::new(word, message));
    if words.burst == Some(0) {
        wrong("burst", "a bucket without room lets nothing through");
    }
    if words.burst.is_some() && words.algorithm != Algorithm::TokenBucket {
        wrong("burst", "`burst` is for `token_bucket` only");
    }
    if words.max_wait.is_some() && words.algorithm != Algorithm::LeakyBucket {
        wrong("max_wait", "only `leaky_bucket` lets requests wait");
    }
    if !(1..=128).contains(&words.ipv6_prefix) {
        wrong("ipv6_prefix", "an IPv6 prefix has 1 to 128 bits");
    }
    match &words.cost {
        Cost::Known(limit::Cost::Fixed(1..=MOST_COST) | limit::Cost::Computed(_)) => {}
        Cost::Told(told) if !(1..=MOST_COST).contains(&told.max) => {
            wrong("cost.max", "the most that a request takes is 1 to 1,000,000");
        }
        Cost::Told(_) if words.algorithm == Algorithm::LeakyBucket => {
            wrong(
                "cost",
                "what waits its turn is paid for before it goes: `leaky_bucket` needs a number or an expression",
            );
        }
        Cost::Told(_) => {}
        Cost::Known(limit::Cost::Fixed(_)) => wrong("cost", "a request takes 1 to 1,000,000"),
    }
    if words.name.as_ref().is_some_and(|name| !limit::is_name(name)) {
        wrong("name", limit::NAME);
    }
    if words.missing_key == MissingKey::Skip && words.key == Key::ip() {
        wrong(
            "missing_key",
            "every client has an address, but for those of a Unix socket: `skip` would let them all in",
        );
    }
}

fn plans(
    plan: &impl Fn(Rate, Option<u64>) -> Option<Plan>,
    rate: Rate,
    burst: Option<u64>,
    overrides: Overrides,
    algorithm: Algorithm,
    errors: &mut Errors,
) -> Option<Variants<Plan>> {
    let mut fits = |path: String, rate: Rate, burst: Option<u64>| {
        if algorithm == Algorithm::SlidingLog && rate.amount() > MOST_LOG {
            let message = format!("a sliding log counts up to {MOST_LOG}");
            errors.push(
                ConfigError::new(format!("{path}rate"), message)
                    .with_hint("`sliding_window` is nearly as exact"),
            );
        }
        if !path.is_empty() && burst.is_some() && algorithm != Algorithm::TokenBucket {
            errors.push(ConfigError::new(format!("{path}burst"), "`burst` is for `token_bucket` only"));
        }
        if !path.is_empty() && burst == Some(0) {
            errors
                .push(ConfigError::new(format!("{path}burst"), "a bucket without room lets nothing through"));
        }
    };
    fits(String::new(), rate, burst);
    let mut of = |kind: &str, overrides: BTreeMap<String, super::config::Override>| {
        let made = overrides.into_iter().filter_map(|(name, words)| {
            fits(
                format!("{}.", crate::document::join(&format!("overrides.{kind}"), &name)),
                words.rate,
                words.burst,
            );
            Some((name, plan(words.rate, words.burst)?))
        });
        made.collect::<BTreeMap<_, _>>()
    };
    let consumers = of("consumers", overrides.consumers);
    let groups = of("groups", overrides.groups);
    Some(Variants::but(plan(rate, burst)?, consumers, groups))
}

impl Plan {
    fn new(
        name: &str,
        algorithm: Algorithm,
        rate: Rate,
        burst: Option<u64>,
        max_wait: Duration,
    ) -> Option<Self> {
        let burst = burst.unwrap_or(rate.amount()).max(1);
        let policy = Policy::new(algorithm.kind(), rate.amount(), rate.period(), burst, max_wait);
        let (quota, window) = match policy {
            Policy::TokenBucket(bucket) => (burst, Duration::from_nanos(bucket.time(burst))),
            Policy::LeakyBucket(bucket) => (bucket.room(), max_wait),
            _ => (rate.amount(), rate.period()),
        };
        let seconds = window.as_secs() + u64::from(window.subsec_nanos() > 0);
        // The same words have the same salt, wherever they stand and over reloads.
        let mut salt = RandomState::with_seeds(1, 2, 3, 4).build_hasher();
        let words = format!("{rate} {burst}");
        salt.write(words.as_bytes());
        let period = u64::try_from(rate.period().as_micros()).unwrap_or(u64::MAX);
        Some(Self {
            policy,
            terms: Terms { algorithm: algorithm.kind(), amount: rate.amount(), period, burst },
            words,
            salt: salt.finish(),
            label: Label::new(name, quota, seconds.max(1))?,
        })
    }
}
