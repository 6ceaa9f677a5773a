//! What clients are told of their limits.
//!
//! 1. `RateLimit-Policy` says what the limits are and `RateLimit` how the client stands, each with an item a rule
//!    (draft-ietf-httpapi-ratelimit-headers-10): `q` is the quota, `w` the seconds it comes back in, `r` what is left, `t`
//!    the seconds until all of it is there again.
//! 2. The older `X-RateLimit` fields have room for one rule: that which refuses, else that with the least left.

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Decision;
use crate::exchange::{Fault, ResponseHeader, Result, edit};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What clients are told of their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Headers {
    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
    #[default]
    Ietf,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (in seconds from now).
    Legacy,
    /// All of them.
    Both,
    /// Nothing but `Retry-After` on refusals.
    Off,
}

/// What a limit is called, and what it says.
#[derive(Debug, Clone)]
pub struct Label {
    /// Its name, in quotes.
    name: Box<str>,
    /// How much there is at most.
    quota: u64,
    /// Its item of `RateLimit-Policy`.
    policy: HeaderValue,
}

impl Label {
    /// `quota` in so many seconds. `None` where a field cannot carry the name.
    pub fn new(name: &str, quota: u64, seconds: u64) -> Option<Self> {
        let name = format!("\"{name}\"");
        let policy = HeaderValue::try_from(format!("{name};q={quota};w={seconds}")).ok()?;
        Some(Self { name: name.into(), quota, policy })
    }

    /// How much there is at most.
    pub fn quota(&self) -> u64 {
        self.quota
    }
}

/// What a name may be.
pub const NAME: &str = "a name is up to 64 letters, digits, `-`, `_` and `.`";

/// Whether header fields can carry a name.
pub fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

/// Whole seconds, and never less than the nanoseconds.
pub fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

/// Tells a client how it stands by each rule that counted it.
///
/// # Errors
///
/// When a field cannot be written, which would be a fault of this module.
pub fn tell<'p>(
    headers: Headers,
    standing: impl Iterator<Item = (&'p Label, Decision)> + Clone,
    head: &mut ResponseHeader,
) -> Result<()> {
    if matches!(headers, Headers::Ietf | Headers::Both) {
        ietf(standing.clone(), head)?;
    }
    if matches!(headers, Headers::Legacy | Headers::Both) {
        legacy(standing, head);
    }
    Ok(())
}

fn ietf<'p>(
    standing: impl Iterator<Item = (&'p Label, Decision)> + Clone,
    head: &mut ResponseHeader,
) -> Result<()> {
    let mut state = SmallVec::<[u8; 128]>::new();
    let mut digits = [itoa::Buffer::new(); 2];
    for (label, decision) in standing.clone() {
        let [left, reset] = &mut digits;
        let comma = if state.is_empty() { "" } else { ", " };
        let (left, reset) = (left.format(self::left(decision)), reset.format(seconds(decision.reset)));
        for part in [comma, &label.name, ";r=", left, ";t=", reset] {
            state.extend_from_slice(part.as_bytes());
        }
    }
    if state.is_empty() {
        return Ok(());
    }
    let state = HeaderValue::from_bytes(&state).map_err(|_| Fault::new("a limit cannot be told"))?;
    edit(head, |fields| {
        // Another filter may have told of limits of its own: both lists are one (RFC 9110, section 5.2).
        for (label, _) in standing {
            fields.append(POLICY, label.policy.clone());
        }
        fields.append(RATE_LIMIT, state);
    });
    Ok(())
}

fn legacy<'p>(standing: impl Iterator<Item = (&'p Label, Decision)>, head: &mut ResponseHeader) {
    let tightest = standing.min_by_key(|(_, decision)| (!decision.refused(), decision.remaining));
    let Some((label, decision)) = tightest else { return };
    edit(head, |fields| {
        fields.insert(LIMIT, HeaderValue::from(label.quota));
        fields.insert(REMAINING, HeaderValue::from(left(decision)));
        fields.insert(RESET, HeaderValue::from(seconds(decision.reset)));
    });
}

/// To whom nothing is given, nothing is left, though a smaller request might still pass.
fn left(decision: Decision) -> u64 {
    if decision.refused() { 0 } else { decision.remaining }
}
