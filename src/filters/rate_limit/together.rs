//! Counting at a store that machines share.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::rules::{Plan, Rule};
use super::{Outcome, RateLimit, Share, Taken};
use crate::exchange::Exchange;
use crate::limit::{Credit, Debtor, Decision, OnStoreError, Policy, Shared, Verdict, Want, Who, mark, spell};
use crate::registry::{FilterKind, Scope};
use crate::stores::Redis;

/// How a filter counts at a store.
pub(super) struct Together {
    shared: Arc<Shared>,
    on_error: OnStoreError,
    /// For each rule, where it counts on credit.
    credits: Option<Vec<Arc<Credit>>>,
    /// What keys begin with, for several rules, or for keys that are settled together.
    tag: Option<String>,
}

/// A rule that counts the request, and how.
struct Counted {
    share: Share,
    spelled: String,
}

impl Together {
    pub(super) fn new(
        redis: Arc<Redis>,
        on_error: OnStoreError,
        settle_every: Option<Duration>,
        rules: &[Rule],
        max_keys: usize,
        scope: &Scope<'_>,
    ) -> Self {
        let place = format!("{} {:?}", redis.fingerprint(), redis.timeout());
        let trust = scope.state.adopt(format!("limits trust {place}"), Default::default);
        let shared = Arc::new(Shared::new(redis, trust));
        let credits = settle_every.map(|every| {
            let credit = |rule: &Rule| {
                let key = format!("{} credit {every:?} {max_keys} {place}", rule.identity);
                scope.state.adopt(key, || Credit::new(Arc::clone(&shared), every, max_keys))
            };
            rules.iter().map(credit).collect()
        });
        let meanings: Vec<&str> = rules.iter().map(|rule| &*rule.identity).collect();
        let tag = (rules.len() > 1 || credits.is_some()).then(|| mark(&meanings.join("\n")));
        Self { shared, on_error, credits, tag }
    }

    /// Where rules count on credit.
    pub(super) fn credits(&self) -> &[Arc<Credit>] {
        self.credits.as_deref().unwrap_or_default()
    }

    /// Has every rule count the request, as far as the store says.
    pub(super) async fn count(
        &self,
        filter: &RateLimit,
        taken: &mut Taken,
        exchange: &mut Exchange<'_>,
    ) -> Outcome {
        let mut counted = SmallVec::<[Counted; 2]>::new();
        for (at, rule) in filter.rules.iter().enumerate() {
            match self.of(at, rule, exchange) {
                Some(Some(one)) => counted.push(one),
                Some(None) => {}
                None => return Outcome::NoKey,
            }
        }
        if counted.is_empty() {
            return Outcome::Pass(0);
        }
        match &self.credits {
            Some(credits) => self.on_credit(credits, filter, counted, taken, exchange).await,
            None => self.exactly(filter, counted, taken, exchange).await,
        }
    }

    /// How a rule counts a request: `Some(None)` where it does not, `None` where there is nothing that it could go by.
    fn of(&self, at: usize, rule: &Rule, exchange: &Exchange<'_>) -> Option<Option<Counted>> {
        let found = match rule.subject.of(exchange) {
            Who::Counted(found) => found,
            Who::Skipped => return Some(None),
            Who::Refused => return None,
        };
        let variant = rule.plans.of(exchange);
        let Some(plan) = rule.plans.get(variant) else { return Some(None) };
        let key = spell(&found, &plan.words);
        let prefix = self.shared.prefix();
        let spelled = match &self.tag {
            None => format!("{prefix}:limit:{{{}:{key}}}", rule.mark),
            Some(tag) => format!("{prefix}:limit:{{{tag}}}:{}:{key}", rule.mark),
        };
        let (cost, told) = rule.price.of(exchange, plan.label.quota());
        let share = Share {
            rule: u8::try_from(at).unwrap_or(u8::MAX),
            plan: u16::try_from(variant).unwrap_or(u16::MAX),
            key: rule.counts.hash.of(&found, plan.salt),
            at: rule.counts.limiter.now(),
            cost,
            told,
            decision: Decision { verdict: Verdict::Pass, remaining: 0, reset: 0 },
            spelled: None,
        };
        Some(Some(Counted { share, spelled }))
    }

    async fn exactly(
        &self,
        filter: &RateLimit,
        counted: SmallVec<[Counted; 2]>,
        taken: &mut Taken,
        exchange: &mut Exchange<'_>,
    ) -> Outcome {
        let want = |one: &Counted| {
            let (_, plan) = filter.of(&one.share)?;
            let cost = one.share.cost;
            Some(Want { key: one.spelled.clone(), terms: plan.terms, debt: 0, age: 0, cost, lag: 0 })
        };
        let wants: Vec<Want> = counted.iter().filter_map(want).collect();
        let Ok(decisions) = self.shared.take(&wants).await else {
            exchange.remark(RateLimit::NAME, "store_error");
            return match self.on_error {
                OnStoreError::Local => filter.count(taken, exchange),
                OnStoreError::Open => Outcome::Pass(0),
                OnStoreError::Closed => Outcome::NoStore,
            };
        };
        let mut refused = None;
        for (Counted { mut share, spelled }, decision) in counted.into_iter().zip(decisions) {
            share.decision = decision;
            if let Verdict::Refuse(retry) = decision.verdict {
                refused = refused.max(Some(retry));
            }
            if let Some((rule, plan)) = filter.of(&share) {
                let limiter = &rule.counts.limiter;
                limiter.learn(&plan.policy, share.key, decision, limiter.now());
                share.spelled = rule.told.is_some().then(|| spelled.into());
            }
            taken.0.push(share);
        }
        refused.map_or(Outcome::Pass(0), Outcome::Refuse)
    }

    async fn on_credit(
        &self,
        credits: &[Arc<Credit>],
        filter: &RateLimit,
        counted: SmallVec<[Counted; 2]>,
        taken: &mut Taken,
        exchange: &mut Exchange<'_>,
    ) -> Outcome {
        for Counted { mut share, spelled } in counted {
            let Some((rule, plan)) = filter.of(&share) else { continue };
            let Some((credit, debtor)) = debtor(credits, plan, &share, &spelled) else { continue };
            let decision = match credit.take(debtor, share.cost).await {
                Ok(decision) => decision,
                Err(_) => {
                    exchange.remark(RateLimit::NAME, "store_error");
                    match self.on_error {
                        OnStoreError::Local => credit.alone(debtor, share.cost),
                        OnStoreError::Open => continue,
                        OnStoreError::Closed => {
                            self.give_back(filter, taken);
                            return Outcome::NoStore;
                        }
                    }
                }
            };
            share.decision = decision;
            let may_change = rule.told.is_some() || filter.rules.len() > 1;
            share.spelled = may_change.then(|| spelled.into());
            if let Verdict::Refuse(retry) = decision.verdict {
                self.give_back(filter, taken);
                taken.0.push(share);
                return Outcome::Refuse(retry);
            }
            taken.0.push(share);
        }
        Outcome::Pass(0)
    }

    /// Takes more of what a request has taken, or gives some back.
    pub(super) fn settle(&self, filter: &RateLimit, share: &Share, more: i64) {
        let Some((rule, plan)) = filter.of(share) else { return };
        if let Some(credits) = &self.credits {
            let spelled = share.spelled.as_deref().unwrap_or_default();
            if let Some((credit, debtor)) = debtor(credits, plan, share, spelled) {
                credit.settle(debtor, more);
            }
            return;
        }
        let limiter = &rule.counts.limiter;
        match u64::try_from(more) {
            Ok(more) => limiter.charge(&plan.policy, share.key, more, limiter.now()),
            Err(_) => limiter.give_back(&plan.policy, share.key, more.unsigned_abs(), share.at),
        }
        let Some(key) = &share.spelled else { return };
        let want = Want { key: key.to_string(), terms: plan.terms, debt: more, age: 0, cost: 0, lag: 0 };
        let shared = Arc::clone(&self.shared);
        self.shared.aside(async move {
            // Why not is told where the next asks.
            let _ = shared.take(&[want]).await;
        });
    }

    fn give_back(&self, filter: &RateLimit, taken: &Taken) {
        for share in &taken.0 {
            self.settle(filter, share, -i64::try_from(share.cost).unwrap_or(i64::MAX));
        }
    }
}

fn debtor<'k>(
    credits: &'k [Arc<Credit>],
    plan: &Plan,
    share: &Share,
    spelled: &'k str,
) -> Option<(&'k Arc<Credit>, Debtor<'k>)> {
    let Policy::TokenBucket(bucket) = plan.policy else { return None };
    let credit = credits.get(usize::from(share.rule))?;
    Some((credit, Debtor { key: share.key, spelled, terms: plan.terms, bucket }))
}
