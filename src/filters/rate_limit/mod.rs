//! `rate_limit`: how many requests in a time.
//!
//! 1. A client is who the key says, as far as that is known for sure: an address comes from trusted proxies only, a consumer
//!    from a filter that has verified it.
//! 2. Of several rules each has to let a request pass. What the ones before have taken is given back when one refuses.
//! 3. A rule without a word of identity counts before authentication (stage `admit`): so floods and guessed passwords are
//!    stopped there. Any other counts after it (stage `limit`).
//! 4. At a store that gateways share, all rules of a filter are one question. While there is no answer, `on_store_error` says
//!    what becomes of requests.
//! 5. Counts belong to whose filters these are (all routes, a listener's, one route's), to their conditions and to the rule's words:
//!    they go on over a reload that leaves all three.

mod config;
mod rules;
mod together;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use smallvec::SmallVec;

use crate::chain::{Filter, Flow, Phases, Stage};
use crate::document::Errors;
use crate::exchange::{Answer, Exchange, Reason, Reply, ResponseHeader, Result};
use crate::limit::{self, Decision, Headers, Policy, Verdict, Who};
use crate::registry::{FilterKind, Scope};
use crate::telemetry::LimitMetrics;
use crate::types::CredentialFields;

use config::Config;
use rules::Rule;
use together::Together;

/// Refuses what is too much.
pub struct RateLimit {
    rules: Vec<Rule>,
    dry_run: bool,
    headers: Headers,
    stage: Stage,
    /// Whether requests may wait for their turn.
    queues: bool,
    /// Where it is counted, if not here.
    together: Option<Together>,
    /// Tells how many keys the rules know.
    _metrics: Arc<LimitMetrics>,
}

/// What an exchange has taken, by each rule that counted it.
#[derive(Default)]
pub struct Taken {
    shares: SmallVec<[Share; 2]>,
    /// For how many nanoseconds it waits for its turn.
    wait: u64,
    /// The rule it has come to, where rules count on credit.
    rule: usize,
}

/// What an exchange has taken by one rule.
struct Share {
    rule: u8,
    plan: u16,
    key: u128,
    at: u64,
    cost: u64,
    /// Whether the cost could be told.
    told: bool,
    decision: Decision,
    /// Its key at a store, where its answer may cost more.
    spelled: Option<Box<str>>,
}

/// What the rules say of a request.
enum Outcome {
    /// It goes on, after so many nanoseconds.
    Pass(u64),
    /// It is refused; another may pass after so many nanoseconds.
    Refuse(u64),
    /// It has nothing of a key.
    NoKey,
    /// The store that would know does not answer.
    NoStore,
}

impl FilterKind for RateLimit {
    const NAME: &'static str = "rate_limit";
    const STAGE: Stage = Stage::Limit;
    const EXAMPLE: &'static str =
        "{ rate: 100/s, burst: 200, key: [\"header:x-user-id\", ip], missing_key: share }";
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let (dry_run, headers) = (config.dry_run, config.headers);
        // At a store there are no sliding logs.
        let max_keys = config.max_keys.unwrap_or(rules::MAX_KEYS);
        let (on_error, settle_every) = (config.on_store_error.unwrap_or_default(), config.settle_every);
        let settle_every = settle_every.map(|every| every.get());
        let (rules, redis) = rules::rules(config, scope)?;
        let together =
            redis.map(|redis| Together::new(redis, on_error, settle_every, &rules, max_keys, scope));
        let metrics = scope.metrics.limits(scope.owner, Self::NAME);
        for rule in &rules {
            metrics.watch(&rule.counts, |counts| counts.limiter.keys());
        }
        for credit in together.iter().flat_map(Together::credits) {
            metrics.watch(credit, |credit| credit.keys());
        }
        let identity = |rule: &Rule| {
            rule.subject.key.needs_identity() || rule.plans.needs_identity() || rule.price.needs_identity()
        };
        let stage = if rules.iter().any(identity) { Stage::Limit } else { Stage::Admit };
        let queues =
            |rule: &Rule| rule.plans.all().iter().any(|plan| matches!(plan.policy, Policy::LeakyBucket(_)));
        let queues = rules.iter().any(queues);
        let headers = if dry_run { Headers::Off } else { headers };
        Ok(Self { rules, dry_run, headers, stage, queues, together, _metrics: metrics })
    }

    fn stage(&self) -> Stage {
        self.stage
    }

    fn needs_identity(&self) -> bool {
        self.stage == Stage::Limit
    }

    fn mask(config: &mut Config, fields: &CredentialFields) {
        config.costs().for_each(|cost| cost.mask(fields));
    }
}

impl Filter for RateLimit {
    type State = Taken;

    fn phases(&self) -> Phases {
        let request = match &self.together {
            Some(together) if !together.is_on_credit() => Phases::REQUEST_WAIT,
            None if !self.queues => Phases::REQUEST,
            Some(_) | None => Phases::REQUEST | Phases::REQUEST_WAIT,
        };
        let tells = self.headers != Headers::Off || self.rules.iter().any(|rule| rule.told.is_some());
        if tells { request | Phases::RESPONSE } else { request }
    }

    fn needs_form(&self) -> bool {
        self.rules.iter().any(|rule| rule.subject.key.needs_form())
    }

    fn request(&self, taken: &mut Taken, exchange: &mut Exchange<'_>) -> Result<Flow> {
        let outcome = match &self.together {
            None => self.count(taken, exchange),
            Some(together) if together.is_on_credit() => match together.at_once(self, taken, exchange) {
                Some(outcome) => outcome,
                None => return Ok(Flow::Wait),
            },
            Some(_) => {
                exchange.untouched();
                return Ok(Flow::Continue);
            }
        };
        if let Outcome::Pass(wait) = outcome
            && !self.dry_run
        {
            taken.wait = wait;
        }
        let pass = if taken.wait > 0 { Flow::Wait } else { Flow::Continue };
        Ok(self.judge(outcome, taken, exchange).unwrap_or(pass))
    }

    async fn request_wait(&self, taken: &mut Taken, exchange: &mut Exchange<'_>) -> Result<Flow> {
        let Some(together) = &self.together else {
            match self.queues {
                true => tokio::time::sleep(Duration::from_nanos(taken.wait)).await,
                false => exchange.untouched(),
            }
            return Ok(Flow::Continue);
        };
        let outcome = together.count(self, taken, exchange).await;
        Ok(self.judge(outcome, taken, exchange).unwrap_or(Flow::Continue))
    }

    fn response(
        &self,
        taken: &mut Taken,
        exchange: &mut Exchange<'_>,
        head: &mut ResponseHeader,
    ) -> Result<()> {
        if exchange.answer() == Answer::Upstream {
            self.settle(taken, head);
        }
        if self.headers == Headers::Off {
            return Ok(());
        }
        let standing = taken.shares.iter().filter_map(|share| {
            let rule = self.rules.get(usize::from(share.rule))?;
            Some((&rule.plans.get(share.plan.into())?.label, share.decision))
        });
        limit::tell(self.headers, standing, head)
    }
}

impl RateLimit {
    /// Has every rule count the request, until one refuses it.
    fn count(&self, taken: &mut Taken, exchange: &Exchange<'_>) -> Outcome {
        let mut wait = 0;
        for (at, rule) in self.rules.iter().enumerate() {
            let found = match rule.subject.of(exchange) {
                Who::Counted(found) => found,
                Who::Skipped => continue,
                Who::Refused => {
                    self.give_back(taken);
                    return Outcome::NoKey;
                }
            };
            let variant = rule.plans.of(exchange);
            let Some(plan) = rule.plans.get(variant) else { continue };
            let (limiter, key) = (&rule.counts.limiter, rule.counts.hash.of(&found, plan.salt));
            // The clock was read when the head was there; a limit needs it no closer.
            let now = limiter.at(exchange.started());
            let (cost, told) = rule.price.of(exchange, plan.label.quota());
            let decision = limiter.take(&plan.policy, key, cost, now);
            let (rule, plan) =
                (u8::try_from(at).unwrap_or(u8::MAX), u16::try_from(variant).unwrap_or(u16::MAX));
            let share = Share { rule, plan, key, at: now, cost, told, decision, spelled: None };
            match decision.verdict {
                Verdict::Pass => {}
                Verdict::Wait(nanos) => wait = wait.max(nanos),
                Verdict::Refuse(retry) => {
                    self.give_back(taken);
                    taken.shares.push(share);
                    return Outcome::Refuse(retry);
                }
            }
            taken.shares.push(share);
        }
        Outcome::Pass(wait)
    }

    /// Undoes what was taken: another rule refuses the request.
    fn give_back(&self, taken: &Taken) {
        for share in &taken.shares {
            if let Some((rule, plan)) = self.of(share) {
                rule.counts.limiter.give_back(&plan.policy, share.key, share.cost, share.at);
            }
        }
    }

    /// Takes what the answer says on top, or gives back what it did not cost.
    fn settle(&self, taken: &mut Taken, head: &ResponseHeader) {
        for share in &mut taken.shares {
            let Some((rule, plan)) = self.of(share) else { continue };
            let Some((name, max)) = &rule.told else { continue };
            let said = head.headers.get(name).and_then(|value| number(value.to_str().ok()?.trim()));
            let Some(cost) = said.map(|cost| cost.min(*max)) else { continue };
            share.decision.remaining = (share.decision.remaining + share.cost).saturating_sub(cost);
            if let Some(together) = &self.together {
                let signed = |cost: u64| i64::try_from(cost).unwrap_or(i64::MAX);
                if cost != share.cost {
                    together.settle(self, share, signed(cost) - signed(share.cost));
                }
                continue;
            }
            let limiter = &rule.counts.limiter;
            match cost.checked_sub(share.cost) {
                Some(0) => {}
                Some(more) => limiter.charge(&plan.policy, share.key, more, limiter.now()),
                None => limiter.give_back(&plan.policy, share.key, share.cost - cost, share.at),
            }
        }
    }

    fn of(&self, share: &Share) -> Option<(&Rule, &rules::Plan)> {
        let rule = self.rules.get(usize::from(share.rule))?;
        Some((rule, rule.plans.get(share.plan.into())?))
    }

    /// The refusal of a request that is too much.
    fn judge(&self, outcome: Outcome, taken: &mut Taken, exchange: &mut Exchange<'_>) -> Option<Flow> {
        if taken.shares.iter().any(|share| !share.told) {
            exchange.remark(Self::NAME, "cost_unknown");
        }
        let reply = match outcome {
            Outcome::Pass(_) => return None,
            Outcome::NoKey => Reply::refuse(Reason::LIMIT_KEY_MISSING),
            Outcome::NoStore => Reply::refuse(Reason::LIMIT_STORE_UNAVAILABLE),
            Outcome::Refuse(retry) => {
                let seconds = HeaderValue::from(limit::seconds(retry).max(1));
                Reply::refuse(Reason::RATE_LIMITED).header(RETRY_AFTER, seconds)
            }
        };
        if self.dry_run {
            exchange.remark(Self::NAME, "dry_run");
            // It has taken nothing, so there is nothing to add to when its answer says what it cost.
            taken.shares.clear();
            return None;
        }
        Some(reply.into())
    }
}

/// A number that is written in digits; one that is too large is the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}
