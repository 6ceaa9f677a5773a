//! The words for what endpoints are given at once become a policy, those for what a route takes become bounds.

use super::Compiler;
use super::upstreams::protocol;
use crate::config::{Limits, ListenerLimits, Priority as PriorityWords, RouteLimits, Upstream};
use crate::document::{ConfigError, Errors};
use crate::snapshot::HeadBounds;
use crate::types::{ByteSize, Duration};
use crate::upstream::{AdaptiveBounds, LimitPolicy, Priority, UNLIMITED};

/// The most of anything at once. What waits is counted in half a word.
const MOST: u32 = 1_000_000;
/// The longest wait. A request that waits holds its client, and a place in memory.
const LONGEST: Duration = Duration::from_secs(60);

/// How much each endpoint of an upstream is given at once; `None` for any number.
pub(super) fn policy(path: &str, words: &Upstream, errors: &mut Errors) -> Option<LimitPolicy> {
    let adaptive = words.adaptive_concurrency.as_ref();
    if words.limits.is_none() && adaptive.is_none() {
        return None;
    }
    let mut error = |path: String, message: String| errors.push(ConfigError::new(path, message));
    let limits = words.limits.clone().unwrap_or_default();
    check(&format!("{path}.limits"), &limits, adaptive.is_some(), &mut error);
    if let Some(bounds) = adaptive {
        let path = format!("{path}.adaptive_concurrency");
        for (name, bound) in [("min", bounds.min), ("max", bounds.max)] {
            if !(1..=MOST).contains(&bound) {
                error(format!("{path}.{name}"), format!("this is 1 to {MOST}"));
            }
        }
        if bounds.min > bounds.max {
            error(format!("{path}.min"), "the lowest limit is above the highest".into());
        }
    }
    Some(LimitPolicy {
        max_requests: limits.max_requests.unwrap_or(UNLIMITED),
        max_connections: limits.max_connections.unwrap_or(UNLIMITED),
        protocol: protocol(words.protocol),
        adaptive: adaptive.map(|bounds| AdaptiveBounds { min: bounds.min, max: bounds.max }),
        max_queue: limits.max_queue,
        queue_timeout: limits.queue_timeout.get(),
    })
}

fn check(path: &str, limits: &Limits, adaptive: bool, error: &mut impl FnMut(String, String)) {
    if limits.max_requests.is_none() && limits.max_connections.is_none() && !adaptive {
        error(path.into(), "this limits nothing: name `max_requests` or `max_connections`".into());
    }
    let counts = [("max_requests", limits.max_requests), ("max_connections", limits.max_connections)];
    for (name, count) in counts.into_iter().filter_map(|(name, count)| Some((name, count?))) {
        if !(1..=MOST).contains(&count) {
            error(format!("{path}.{name}"), format!("this is 1 to {MOST}"));
        }
    }
    if limits.max_queue > MOST {
        error(format!("{path}.max_queue"), format!("this is at most {MOST}"));
    }
    if limits.queue_timeout.get().is_zero() || limits.queue_timeout > LONGEST {
        let message =
            format!("this is more than nothing, and at most {LONGEST}; with `max_queue: 0` nobody waits");
        error(format!("{path}.queue_timeout"), message);
    }
}

impl Compiler<'_> {
    /// A limit of a route that no listener lets anyone reach is a mistake.
    pub(super) fn check_limits(&mut self, path: &str, limits: &RouteLimits) {
        let config = self.config;
        if config.unread.touches("listeners") {
            return;
        }
        let most = |of: fn(&ListenerLimits) -> u64| {
            config.listeners.iter().map(|listener| of(&listener.limits)).max().unwrap_or(u64::MAX)
        };
        for (name, limit, most) in [
            (
                "header_bytes",
                limits.header_bytes.map(ByteSize::get),
                most(|limits| limits.header_bytes.get()),
            ),
            ("headers", limits.headers.map(u64::from), most(|limits| limits.headers as u64)),
            ("uri_bytes", limits.uri_bytes.map(ByteSize::get), most(|limits| limits.uri_bytes.get())),
        ] {
            let Some(limit) = limit else { continue };
            if limit == 0 {
                self.error(format!("{path}.{name}"), "with 0 every request would be refused");
            } else if limit > most {
                let message = format!(
                    "no listener lets in more than its own `limits.{name}` allow: this limits nothing"
                );
                self.error(format!("{path}.{name}"), message);
            }
        }
    }
}

/// What a route takes of request heads; `None` when it says nothing of them.
pub(super) fn of_heads(own: &RouteLimits, defaults: &RouteLimits) -> Option<HeadBounds> {
    let header_bytes = own.header_bytes.or(defaults.header_bytes);
    let headers = own.headers.or(defaults.headers);
    let uri_bytes = own.uri_bytes.or(defaults.uri_bytes);
    let query_parameters = own.query_parameters.or(defaults.query_parameters);
    if header_bytes.or(uri_bytes).is_none() && headers.or(query_parameters).is_none() {
        return None;
    }
    Some(HeadBounds {
        header_bytes: header_bytes.map_or(u64::MAX, ByteSize::get),
        headers: headers.unwrap_or(u32::MAX),
        uri_bytes: uri_bytes.map_or(u64::MAX, ByteSize::get),
        query_parameters: query_parameters.unwrap_or(u32::MAX),
    })
}

pub(super) fn priority(words: PriorityWords) -> Priority {
    match words {
        PriorityWords::Low => Priority::Low,
        PriorityWords::Normal => Priority::Normal,
        PriorityWords::High => Priority::High,
    }
}
