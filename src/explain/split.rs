//! What would become of a request that several variants may answer.

use serde::Serialize;

use super::Explanation;
use crate::exchange::Exchange;
use crate::snapshot::{Split, Target};

/// A rule that may send a request to a variant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleView {
    /// The variant.
    pub to: String,
    /// The condition on which it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Whether it holds, where the request alone tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<bool>,
}

/// A variant that a request may go to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VariantView {
    /// Its name.
    pub variant: String,
    /// Its upstream.
    pub upstream: String,
    /// How likely, in percent; 100 where a rule decides.
    pub percent: f64,
}

impl Explanation {
    /// What the rules of a split say, and the variants that are left.
    pub(super) fn ruled(&mut self, split: &Split, exchange: &Exchange<'_>) {
        let mut all: Vec<VariantView> = variants(split).collect();
        let (mut ruled, mut perhaps) = (None, Vec::new());
        for rule in &split.rules {
            let holds = rule.foretold(exchange);
            self.rules.push(RuleView {
                to: all.get(rule.to).map(|view| view.variant.clone()).unwrap_or_default(),
                when: rule.when.as_ref().map(|when| when.text().to_owned()),
                holds,
            });
            match holds {
                Some(true) => {
                    ruled = Some(rule.to);
                    break;
                }
                Some(false) => {}
                None => perhaps.push(rule.to),
            }
        }
        if let Some(view) = ruled.and_then(|at| all.get_mut(at)) {
            view.percent = 100.0;
        }
        let may = |at: usize, view: &VariantView| match ruled {
            Some(ruled) => at == ruled,
            None => view.percent > 0.0,
        };
        let left = all.into_iter().enumerate();
        self.variants =
            left.filter(|(at, view)| perhaps.contains(at) || may(*at, view)).map(|(_, view)| view).collect();
    }
}

/// The variants of a split.
pub fn variants(split: &Split) -> impl Iterator<Item = VariantView> {
    split.variants.iter().enumerate().map(|(at, route)| VariantView {
        variant: route.variant.as_ref().map(|variant| variant.name.to_string()).unwrap_or_default(),
        upstream: match &route.target {
            Target::Upstream(upstream) => upstream.name().to_string(),
            _ => String::new(),
        },
        percent: (split.shares.share(at) * 10_000.0).round() / 100.0,
    })
}
