//! What clients are told of their limits.
//!
//! 1. `RateLimit-Policy` says what the limits are and `RateLimit` how the client stands, each with an item a rule
//!    (draft-ietf-httpapi-ratelimit-headers-10): `q` is the quota, `w` the seconds it comes back in, `r` what is left, `t`
//!    the seconds until all of it is there again.
//! 2. The older `X-RateLimit` fields have room for one rule: that which refuses, else that with the least left.

use std::fmt::Write;

use http::{HeaderName, HeaderValue};

use super::config::Headers;
use super::rules::Plan;
use crate::exchange::{Fault, ResponseHeader, Result};
use crate::limit::Decision;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Whole seconds, and never less than the nanoseconds.
pub(super) fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

/// Tells a client how it stands by each rule that counted it.
pub(super) fn tell<'p>(
    headers: Headers,
    standing: impl Iterator<Item = (&'p Plan, Decision)> + Clone,
    head: &mut ResponseHeader,
) -> Result<()> {
    if matches!(headers, Headers::Ietf | Headers::Both) {
        ietf(standing.clone(), head)?;
    }
    if matches!(headers, Headers::Legacy | Headers::Both) {
        legacy(standing, head)?;
    }
    Ok(())
}

fn ietf<'p>(
    standing: impl Iterator<Item = (&'p Plan, Decision)> + Clone,
    head: &mut ResponseHeader,
) -> Result<()> {
    let mut state = String::with_capacity(32);
    for (plan, decision) in standing {
        let comma = if state.is_empty() { "" } else { ", " };
        // Writing to a `String` cannot fail.
        let _ = write!(state, "{comma}{};r={};t={}", plan.label, left(decision), seconds(decision.reset));
        // Another filter may have told of limits of its own: both lists are one (RFC 9110, section 5.2).
        head.append_header(POLICY, plan.policy_field.clone())?;
    }
    if !state.is_empty() {
        let state = HeaderValue::try_from(state).map_err(|_| Fault::new("a limit cannot be told"))?;
        head.append_header(RATE_LIMIT, state)?;
    }
    Ok(())
}

fn legacy<'p>(standing: impl Iterator<Item = (&'p Plan, Decision)>, head: &mut ResponseHeader) -> Result<()> {
    let tightest = standing.min_by_key(|(_, decision)| (!decision.refused(), decision.remaining));
    let Some((plan, decision)) = tightest else { return Ok(()) };
    head.insert_header(LIMIT, HeaderValue::from(plan.quota))?;
    head.insert_header(REMAINING, HeaderValue::from(left(decision)))?;
    Ok(head.insert_header(RESET, HeaderValue::from(seconds(decision.reset)))?)
}

/// To whom nothing is given, nothing is left, though a smaller request might still pass.
fn left(decision: Decision) -> u64 {
    if decision.refused() { 0 } else { decision.remaining }
}
