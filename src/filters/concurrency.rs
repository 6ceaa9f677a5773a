//! `concurrency`: how many exchanges at once.
//!
//! 1. An exchange counts from here to its end, that of a WebSocket or a stream included.
//! 2. Who is counted, and at which stage, is as with `rate_limit`.
//! 3. Whoever is there is never forgotten: where as many clients are there as can be known, others are refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Filter, Flow, Phases, Stage};
use crate::document::{ConfigError, Errors, join};
use crate::exchange::{Exchange, Reason, Reply, Result};
use crate::limit::{Held, Key, KeyHash, MissingKey, Slots, Subject, Variants, Who};
use crate::registry::{FilterKind, Scope};
use crate::telemetry::LimitMetrics;

/// Lets clients have so many exchanges at once, and refuses those beyond (429). It counts before authentication (stage
/// `admit`) unless it needs to know who the client is.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many at once.
    #[schemars(range(min = 1))]
    limit: u64,
    /// Who is counted.
    #[serde(default = "Key::ip")]
    key: Key,
    /// How much of an IPv6 address counts, in bits.
    #[serde(default = "ipv6_prefix")]
    #[schemars(range(min = 1, max = 128))]
    ipv6_prefix: u8,
    /// What becomes of a request that has nothing of the key.
    #[serde(default)]
    missing_key: MissingKey,
    /// Other limits for some consumers and groups.
    #[serde(default)]
    overrides: Overrides,
    /// Lets everything pass and counts what would have been refused: the metric `filter_verdicts_total` has it as
    /// `dry_run`.
    #[serde(default)]
    dry_run: bool,
    /// How many clients can be known at once. One that is there takes 40 bytes at most.
    #[serde(default = "max_keys")]
    #[schemars(range(min = 1, max = 100_000_000))]
    max_keys: usize,
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

const fn max_keys() -> usize {
    1_000_000
}

/// Refuses what is too much at once.
pub struct Concurrency {
    subject: Subject,
    limits: Variants<u64>,
    dry_run: bool,
    counts: Arc<Counts>,
    /// Tells how many are there.
    _metrics: Arc<LimitMetrics>,
}

/// Who is there, over reloads.
struct Counts {
    slots: Arc<Slots>,
    hash: KeyHash,
}

impl FilterKind for Concurrency {
    const NAME: &'static str = "concurrency";
    const STAGE: Stage = Stage::Limit;
    const EXAMPLE: &'static str = "{ limit: 100, key: ip }";
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = Errors::default();
        let mut check = |path: String, limit: u64| {
            if limit == 0 {
                errors.push(ConfigError::new(path, "a limit of 0 lets nobody in"));
            }
        };
        check("limit".into(), config.limit);
        for (kind, limits) in
            [("consumers", &config.overrides.consumers), ("groups", &config.overrides.groups)]
        {
            for (name, limit) in limits {
                check(join(&format!("overrides.{kind}"), name), *limit);
            }
        }
        let Overrides { consumers, groups } = &config.overrides;
        errors.extend(crate::limit::check_overrides(consumers.keys(), groups.keys(), scope.consumers));
        if !(1..=128).contains(&config.ipv6_prefix) {
            errors.push(ConfigError::new("ipv6_prefix", "an IPv6 prefix has 1 to 128 bits"));
        }
        if config.max_keys == 0 || config.max_keys > 100_000_000 {
            errors.push(ConfigError::new("max_keys", "the clients known at once are 1 to 100,000,000"));
        }
        // Who is there counts by any limit: the number may change over a reload.
        let meaning = serde_json::json!([config.key, config.ipv6_prefix, config.max_keys]);
        let counts = scope.state.adopt(format!("{} concurrency {meaning}", scope.counts_for()), || Counts {
            slots: Arc::new(Slots::new(config.max_keys)),
            hash: KeyHash::default(),
        });
        let metrics = scope.metrics.limits(scope.owner, Self::NAME);
        metrics.watch(&counts, |counts| counts.slots.keys());
        let limits = Variants::but(config.limit, config.overrides.consumers, config.overrides.groups);
        let subject =
            Subject { key: config.key, ipv6_prefix: config.ipv6_prefix, missing: config.missing_key };
        errors.or(Self { subject, limits, dry_run: config.dry_run, counts, _metrics: metrics })
    }

    fn stage(&self) -> Stage {
        if self.needs_identity() { Stage::Limit } else { Stage::Admit }
    }

    fn needs_identity(&self) -> bool {
        self.subject.key.needs_identity() || self.limits.needs_identity()
    }
}

impl Filter for Concurrency {
    type State = Option<Held>;

    fn needs_form(&self) -> bool {
        self.subject.key.needs_form()
    }

    fn phases(&self) -> Phases {
        Phases::REQUEST
    }

    fn request(&self, held: &mut Option<Held>, exchange: &mut Exchange<'_>) -> Result<Flow> {
        let key = match self.subject.of(exchange) {
            Who::Counted(found) => Some(self.counts.hash.of(&found, 0)),
            Who::Skipped => return Ok(Flow::Continue),
            Who::Refused => None,
        };
        let Some(key) = key else {
            return Ok(self.refusal(Reply::refuse(Reason::LIMIT_KEY_MISSING), exchange));
        };
        let limit = self.limits.get(self.limits.of(exchange)).copied().unwrap_or_default();
        *held = self.counts.slots.take(key, limit);
        if held.is_some() {
            return Ok(Flow::Continue);
        }
        if self.dry_run {
            *held = self.counts.slots.force(key);
        }
        let reply = Reply::refuse(Reason::CONCURRENCY_LIMITED).header(RETRY_AFTER, HeaderValue::from(1));
        Ok(self.refusal(reply, exchange))
    }
}

impl Concurrency {
    fn refusal(&self, reply: Reply, exchange: &mut Exchange<'_>) -> Flow {
        if self.dry_run {
            exchange.remark(Self::NAME, "dry_run");
            return Flow::Continue;
        }
        reply.into()
    }
}
