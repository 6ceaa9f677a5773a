//! Counting at a store that machines share.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::rules::{Plan, Rule};
use super::{Outcome, RateLimit, Share, Taken};
use crate::exchange::Exchange;
use crate::limit::{
    Credit, Debtor, Decision, Found, OnStoreError, Policy, Shared, Verdict, Want, Who, mark, spell,
};
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

/// A rule that counts the request, and what the key is called at the store.
struct Counted {
    share: Share,
    spelled: String,
}

/// Where a rule that goes on credit has come to.
enum OnCredit {
    /// The rule let the request pass, or does not count it.
    Passed,
    /// It said this.
    Done(Outcome),
    /// The store has to be asked.
    Asks,
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

    /// Whether a request may pass without the store being asked.
    pub(super) fn is_on_credit(&self) -> bool {
        self.credits.is_some()
    }

    /// Has every rule count the request on credit, from the one on that the request has come to. `None` at a rule that asks
    /// the store.
    pub(super) fn at_once(
        &self,
        filter: &RateLimit,
        taken: &mut Taken,
        exchange: &Exchange<'_>,
    ) -> Option<Outcome> {
        let credits = self.credits.as_ref()?;
        while let (Some(rule), Some(credit)) = (filter.rules.get(taken.rule), credits.get(taken.rule)) {
            match self.on_credit(filter, (rule, credit), taken, exchange) {
                OnCredit::Passed => taken.rule += 1,
                OnCredit::Done(outcome) => return Some(outcome),
                OnCredit::Asks => return None,
            }
        }
        Some(Outcome::Pass(0))
    }

    fn on_credit(
        &self,
        filter: &RateLimit,
        (rule, credit): (&Rule, &Arc<Credit>),
        taken: &mut Taken,
        exchange: &Exchange<'_>,
    ) -> OnCredit {
        let found = match rule.subject.of(exchange) {
            Who::Counted(found) => found,
            Who::Skipped => return OnCredit::Passed,
            Who::Refused => {
                self.give_back(filter, taken);
                return OnCredit::Done(Outcome::NoKey);
            }
        };
        let variant = rule.plans.of(exchange);
        let Some(plan) = rule.plans.get(variant) else { return OnCredit::Passed };
        let Some(debtor) = debtor(plan, rule.counts.hash.of(&found, plan.salt)) else {
            return OnCredit::Passed;
        };
        let mut share = share(taken.rule, rule, variant, debtor.key, exchange);
        let Some(decision) = credit.at_once(debtor, share.cost, || self.spell(rule, plan, &found)) else {
            return OnCredit::Asks;
        };
        share.decision = decision;
        share.spelled = may_change(filter, rule).then(|| self.spell(rule, plan, &found).into());
        self.judged(filter, share, taken).map_or(OnCredit::Passed, OnCredit::Done)
    }

    /// What a rule said of a request, and what comes of it.
    fn judged(&self, filter: &RateLimit, share: Share, taken: &mut Taken) -> Option<Outcome> {
        let Verdict::Refuse(retry) = share.decision.verdict else {
            taken.shares.push(share);
            return None;
        };
        self.give_back(filter, taken);
        taken.shares.push(share);
        Some(Outcome::Refuse(retry))
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
        let Some(credits) = &self.credits else { return self.exactly(filter, taken, exchange).await };
        loop {
            if let Some(outcome) = self.at_once(filter, taken, exchange) {
                return outcome;
            }
            let (Some(rule), Some(credit)) = (filter.rules.get(taken.rule), credits.get(taken.rule)) else {
                return Outcome::Pass(0);
            };
            if let Some(outcome) = self.asked(filter, (rule, credit), taken, exchange).await {
                return outcome;
            }
            taken.rule += 1;
        }
    }

    /// Has a rule count the request that has no credit left.
    async fn asked(
        &self,
        filter: &RateLimit,
        (rule, credit): (&Rule, &Arc<Credit>),
        taken: &mut Taken,
        exchange: &mut Exchange<'_>,
    ) -> Option<Outcome> {
        let Counted { mut share, spelled } = self.of(taken.rule, rule, exchange)??;
        let debtor = debtor(rule.plans.get(share.plan.into())?, share.key)?;
        share.decision = match credit.take(debtor, share.cost, &spelled).await {
            Ok(decision) => {
                share.spelled = may_change(filter, rule).then(|| spelled.into());
                decision
            }
            Err(_) => {
                exchange.remark(RateLimit::NAME, "store_error");
                match self.on_error {
                    // The store will not hear of it.
                    OnStoreError::Local => credit.alone(debtor, share.cost),
                    OnStoreError::Open => return None,
                    OnStoreError::Closed => {
                        self.give_back(filter, taken);
                        return Some(Outcome::NoStore);
                    }
                }
            }
        };
        self.judged(filter, share, taken)
    }

    /// What a key is called at the store.
    fn spell(&self, rule: &Rule, plan: &Plan, found: &Found<'_>) -> String {
        let (prefix, key) = (self.shared.prefix(), spell(found, &plan.words));
        match &self.tag {
            None => format!("{prefix}:limit:{{{}:{key}}}", rule.mark),
            Some(tag) => format!("{prefix}:limit:{{{tag}}}:{}:{key}", rule.mark),
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
        let key = rule.counts.hash.of(&found, plan.salt);
        let share = share(at, rule, variant, key, exchange);
        Some(Some(Counted { share, spelled: self.spell(rule, plan, &found) }))
    }

    async fn exactly(&self, filter: &RateLimit, taken: &mut Taken, exchange: &mut Exchange<'_>) -> Outcome {
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
            taken.shares.push(share);
        }
        refused.map_or(Outcome::Pass(0), Outcome::Refuse)
    }

    /// Takes more of what a request has taken, or gives some back.
    pub(super) fn settle(&self, filter: &RateLimit, share: &Share, more: i64) {
        let Some((rule, plan)) = filter.of(share) else { return };
        if let Some(credits) = &self.credits {
            let credit = credits.get(usize::from(share.rule));
            if let (Some(credit), Some(debtor)) = (credit, debtor(plan, share.key)) {
                credit.settle(debtor, more, share.spelled.as_deref());
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
        for share in &taken.shares {
            self.settle(filter, share, -i64::try_from(share.cost).unwrap_or(i64::MAX));
        }
    }
}

/// Whether what was taken may turn out to be another amount, by the answer or by what the next rule says.
fn may_change(filter: &RateLimit, rule: &Rule) -> bool {
    rule.told.is_some() || filter.rules.len() > 1
}

fn share(at: usize, rule: &Rule, variant: usize, key: u128, exchange: &Exchange<'_>) -> Share {
    let quota = rule.plans.get(variant).map_or(0, |plan| plan.label.quota());
    let (cost, told) = rule.price.of(exchange, quota);
    Share {
        rule: u8::try_from(at).unwrap_or(u8::MAX),
        plan: u16::try_from(variant).unwrap_or(u16::MAX),
        key,
        at: rule.counts.limiter.at(exchange.started()),
        cost,
        told,
        decision: Decision { verdict: Verdict::Pass, remaining: 0, reset: 0 },
        spelled: None,
    }
}

fn debtor(plan: &Plan, key: u128) -> Option<Debtor> {
    let Policy::TokenBucket(bucket) = plan.policy else { return None };
    Some(Debtor { key, terms: plan.terms, bucket })
}
