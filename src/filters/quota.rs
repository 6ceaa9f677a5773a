//! `quota`: how much in an hour, a day or a month of the calendar.
//!
//! 1. Quotas are kept at a store that gateways share: they outlive every process.
//! 2. Hours, days and months are those of UTC, by the store's clock.
//! 3. Who is counted, and at which stage, is as with `rate_limit`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Filter, Flow, Phases, Stage};
use crate::document::{ConfigError, Errors, join};
use crate::exchange::{Exchange, Reason, Reply, ResponseHeader, Result};
use crate::limit::{
    self, Algorithm, Cost, Decision, FixedWindow, Headers, Key, KeyHash, Label, Limiter, MissingKey,
    OnStoreError, Policy, Price, Shared, Subject, Terms, Variants, Verdict, Want, Who,
};
use crate::registry::{FilterKind, Scope};
use crate::stores::Place;
use crate::telemetry::LimitMetrics;
use crate::types::CredentialFields;

/// Lets clients have so many requests in an hour, a day or a month of the calendar, counted at a store, and refuses those
/// beyond (429) until it is over.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many.
    #[schemars(range(min = 1, max = 4_000_000_000_u64))]
    limit: u64,
    /// In what time, by the calendar in UTC.
    per: Span,
    /// The store that keeps the count: one of `stores`.
    store: String,
    /// Who is counted.
    #[serde(default = "Key::consumer")]
    key: Key,
    /// How much of an IPv6 address counts, in bits.
    #[serde(default = "ipv6_prefix")]
    #[schemars(range(min = 1, max = 128))]
    ipv6_prefix: u8,
    /// What becomes of a request that has nothing of the key.
    #[serde(default)]
    missing_key: MissingKey,
    /// How much a request takes: a number, or an expression in CEL. What that cannot tell takes the whole quota.
    #[serde(default)]
    cost: Cost,
    /// Other limits for some consumers and groups.
    #[serde(default)]
    overrides: Overrides,
    /// What the quota is called in header fields.
    #[serde(default = "name")]
    name: String,
    /// What becomes of requests while the store does not answer within its timeout.
    #[serde(default)]
    on_store_error: OnStoreError,
    /// Lets everything pass and counts what would have been refused: the metric `filter_verdicts_total` has it as
    /// `dry_run`.
    #[serde(default)]
    dry_run: bool,
    /// What clients are told of their quota.
    #[serde(default)]
    headers: Headers,
}

/// A time of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Span {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of a month to that of the next.
    Month,
}

/// Limits that hold in place of the filter's own.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Overrides {
    /// By the consumer's name.
    consumers: BTreeMap<String, u64>,
    /// By the name of a group, for consumers that have none of their own; of several groups, the first in the consumer's
    /// list.
    groups: BTreeMap<String, u64>,
}

const fn ipv6_prefix() -> u8 {
    64
}

fn name() -> String {
    "quota".to_owned()
}

/// How many clients are known while the store is away.
const MAX_KEYS: usize = 1_000_000;

/// Refuses what is beyond a quota.
pub struct Quota {
    subject: Subject,
    plans: Variants<Plan>,
    price: Price,
    on_error: OnStoreError,
    dry_run: bool,
    headers: Headers,
    mark: String,
    /// None where the store cannot be used, which is told elsewhere: the configuration is refused.
    shared: Option<Shared>,
    alone: Arc<Alone>,
    /// Tells how many keys that are.
    _metrics: Arc<LimitMetrics>,
}

/// What this gateway knows, over reloads.
struct Alone {
    limiter: Limiter,
    hash: KeyHash,
}

/// How much someone may have.
struct Plan {
    terms: Terms,
    policy: Policy,
    label: Label,
}

/// How an exchange stands, by the plan of that number.
pub type Standing = Option<(usize, Decision)>;

impl FilterKind for Quota {
    const NAME: &'static str = "quota";
    const STAGE: Stage = Stage::Limit;
    const EXAMPLE: &'static str = "{ limit: 100000, per: month, key: consumer, store: main }";
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = check(&config);
        let price = config.cost.price().unwrap_or_else(|wrong| {
            errors.extend(wrong.below("cost"));
            Price::Fixed(1)
        });
        let unknown = scope.unknown_parameters(price.parameters());
        errors.extend(unknown.map(|sentence| ConfigError::new("cost", sentence)));
        let Overrides { consumers, groups } = &config.overrides;
        errors.extend(limit::check_overrides(consumers.keys(), groups.keys(), scope.consumers));
        let redis = match scope.stores.place(&config.store) {
            Some(Place::Redis(redis)) => Some(redis),
            Some(Place::Unknown) => None,
            Some(Place::Memory) => {
                let message = "what is in `memory` is gone when the gateway ends, and no quota is";
                errors.push(ConfigError::new("store", message).with_hint("name a store under `stores`"));
                None
            }
            None => {
                let names: Vec<&str> = scope.stores.names().collect();
                let error = ConfigError::new("store", format!("there is no store `{}`", config.store));
                errors.push(error.with_hint(format!("there is `{}`", names.join("`, `"))));
                None
            }
        };
        // The number may change: what was used stays used.
        let meaning = serde_json::json!([config.per, config.key, config.ipv6_prefix, config.name]);
        let identity = format!("{} quota {meaning}", scope.counts_for());
        let mark = limit::mark(&identity);
        let shared = redis.map(|redis| {
            let place = format!("{} {:?}", redis.fingerprint(), redis.timeout());
            Shared::new(redis, scope.state.adopt(format!("limits trust {place}"), Default::default))
        });
        let alone = scope.state.adopt(identity, || Alone {
            limiter: Limiter::new(Algorithm::FixedWindow, MAX_KEYS),
            hash: KeyHash::default(),
        });
        let metrics = scope.metrics.limits(scope.owner, Self::NAME);
        metrics.watch(&alone, |alone| alone.limiter.keys());
        let plan = |limit: u64| Plan::new(&config.name, limit, config.per);
        let plans = |limits: BTreeMap<String, u64>| {
            limits.into_iter().filter_map(|(name, limit)| Some((name, plan(limit)?))).collect()
        };
        let (consumers, groups) = (plans(config.overrides.consumers), plans(config.overrides.groups));
        let Some(own) = plan(config.limit) else { return Err(errors) };
        errors.or(Self {
            plans: Variants::but(own, consumers, groups),
            subject: Subject {
                key: config.key,
                ipv6_prefix: config.ipv6_prefix,
                missing: config.missing_key,
            },
            price,
            on_error: config.on_store_error,
            dry_run: config.dry_run,
            headers: if config.dry_run { Headers::Off } else { config.headers },
            mark,
            shared,
            alone,
            _metrics: metrics,
        })
    }

    fn stage(&self) -> Stage {
        if self.needs_identity() { Stage::Limit } else { Stage::Admit }
    }

    fn needs_identity(&self) -> bool {
        let (key, plans) = (&self.subject.key, &self.plans);
        key.needs_identity() || plans.needs_identity() || self.price.needs_identity()
    }

    fn mask(config: &mut Config, fields: &CredentialFields) {
        config.cost.mask(fields);
    }
}

fn check(config: &Config) -> Errors {
    let mut errors = Errors::default();
    let mut wrong = |path: String, message: &str| errors.push(ConfigError::new(path, message));
    let all = [&config.overrides.consumers, &config.overrides.groups];
    let least = all.into_iter().flat_map(BTreeMap::values).copied().min().unwrap_or(u64::MAX);
    let overrides = [("consumers", &config.overrides.consumers), ("groups", &config.overrides.groups)];
    let others = overrides.into_iter().flat_map(|(kind, limits)| {
        limits.iter().map(move |(name, limit)| (join(&format!("overrides.{kind}"), name), *limit))
    });
    for (path, limit) in std::iter::once(("limit".to_owned(), config.limit)).chain(others) {
        if !(1..=4_000_000_000).contains(&limit) {
            wrong(path, "a quota is 1 to 4,000,000,000");
        }
    }
    if !(1..=128).contains(&config.ipv6_prefix) {
        wrong("ipv6_prefix".into(), "an IPv6 prefix has 1 to 128 bits");
    }
    if matches!(config.cost, Cost::Fixed(cost) if !(1..=1_000_000).contains(&cost) || cost > config.limit.min(least))
    {
        wrong("cost".into(), "a request takes 1 to 1,000,000, and no more than there is");
    }
    if !limit::is_name(&config.name) {
        wrong("name".into(), limit::NAME);
    }
    errors
}

impl Plan {
    fn new(name: &str, limit: u64, per: Span) -> Option<Self> {
        let seconds = match per {
            Span::Hour => 3600,
            Span::Day => 86_400,
            Span::Month => 0,
        };
        // Of a month, the length that it has at most is told.
        let told = if seconds == 0 { 31 * 86_400 } else { seconds };
        Some(Self {
            terms: Terms {
                algorithm: Algorithm::FixedWindow,
                amount: limit,
                period: seconds * 1_000_000,
                burst: limit,
            },
            policy: Policy::FixedWindow(FixedWindow::new(limit, seconds * 1_000_000_000)),
            label: Label::new(name, limit, told)?,
        })
    }
}

impl Filter for Quota {
    type State = Standing;

    fn phases(&self) -> Phases {
        if self.headers == Headers::Off {
            return Phases::REQUEST_WAIT;
        }
        Phases::REQUEST_WAIT | Phases::RESPONSE
    }

    fn needs_form(&self) -> bool {
        self.subject.key.needs_form()
    }

    async fn request_wait(&self, standing: &mut Standing, exchange: &mut Exchange<'_>) -> Result<Flow> {
        let found = match self.subject.of(exchange) {
            Who::Counted(found) => Some((limit::spell(&found, ""), self.alone.hash.of(&found, 0))),
            Who::Skipped => return Ok(Flow::Continue),
            Who::Refused => None,
        };
        let Some((spelled, key)) = found else {
            return Ok(self.refusal(Reply::refuse(Reason::LIMIT_KEY_MISSING), exchange));
        };
        let variant = self.plans.of(exchange);
        let Some(plan) = self.plans.get(variant) else { return Ok(Flow::Continue) };
        let Some(decision) = self.ask(plan, spelled, key, exchange).await else {
            return Ok(match self.on_error {
                OnStoreError::Closed => {
                    self.refusal(Reply::refuse(Reason::LIMIT_STORE_UNAVAILABLE), exchange)
                }
                _ => Flow::Continue,
            });
        };
        *standing = Some((variant, decision));
        Ok(match decision.verdict {
            Verdict::Refuse(retry) => {
                let seconds = HeaderValue::from(limit::seconds(retry).max(1));
                self.refusal(Reply::refuse(Reason::QUOTA_EXCEEDED).header(RETRY_AFTER, seconds), exchange)
            }
            Verdict::Pass | Verdict::Wait(_) => Flow::Continue,
        })
    }

    fn response(
        &self,
        standing: &mut Standing,
        _: &mut Exchange<'_>,
        head: &mut ResponseHeader,
    ) -> Result<()> {
        let told = standing
            .iter()
            .filter_map(|(variant, decision)| Some((&self.plans.get(*variant)?.label, *decision)));
        limit::tell(self.headers, told, head)
    }
}

impl Quota {
    /// What the store says, or else this gateway, where it may.
    async fn ask(
        &self,
        plan: &Plan,
        spelled: String,
        key: u128,
        exchange: &mut Exchange<'_>,
    ) -> Option<Decision> {
        let limiter = &self.alone.limiter;
        let (cost, told) = self.price.of(exchange, plan.label.quota());
        if !told {
            exchange.remark(Self::NAME, "cost_unknown");
        }
        let want = |shared: &Shared| {
            let key = format!("{}:quota:{{{}:{spelled}}}", shared.prefix(), self.mark);
            Want { key, terms: plan.terms, debt: 0, age: 0, cost, lag: 0 }
        };
        if let Some(shared) = &self.shared
            && let Ok(decisions) = shared.take(&[want(shared)]).await
        {
            let decision = decisions.first().copied()?;
            limiter.learn(&plan.policy, key, decision, limiter.now());
            return Some(decision);
        }
        exchange.remark(Self::NAME, "store_error");
        let local = self.on_error == OnStoreError::Local;
        local.then(|| limiter.take(&plan.policy, key, cost, limiter.now()))
    }

    fn refusal(&self, reply: Reply, exchange: &mut Exchange<'_>) -> Flow {
        if self.dry_run {
            exchange.remark(Self::NAME, "dry_run");
            return Flow::Continue;
        }
        reply.into()
    }
}
