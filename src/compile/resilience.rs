//! The words for health, breakers and retries become policies.

use http::Method;

use super::{health, limits};
use crate::config::{
    Backoff as BackoffWords, Breaker, BreakerScope as ScopeWords, PassiveHealth, Retry, RetryOn as OnWords,
    Upstream, WhenNoneHealthy as NoneHealthyWords,
};
use crate::document::{ConfigError, Errors};
use crate::registry::Registry;
use crate::types::{ByteSize, Duration, Percent};
use crate::upstream::{
    Backoff, BreakerPolicy, BreakerScope, Causes, Methods, PassivePolicy, RetryBudgetPolicy, RetryOn,
    RetryPolicy, Rules, SlowCall, WhenNoneHealthy,
};

/// The most attempts after the first.
const MOST_RETRIES: u32 = 10;
/// The longest pauses. A request that waits holds its client, and a place in memory.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest window and ejection.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const GRPC_STATUSES: std::ops::RangeInclusive<u16> = 1..=16;

/// What holds for an upstream.
pub(super) fn rules(path: &str, words: &Upstream, registry: &Registry, errors: &mut Errors) -> Rules {
    let health = &words.health;
    let active = health
        .active
        .as_ref()
        .and_then(|active| health::active(&format!("{path}.health.active"), active, words, registry, errors));
    let limits = limits::policy(path, words, errors);
    let checks = &mut Checks { errors };
    if let Some(slow_start) = words.slow_start {
        checks.time(path, "slow_start", slow_start, LONGEST);
    }
    Rules {
        active,
        passive: health
            .passive
            .as_ref()
            .map(|words| passive(&format!("{path}.health.passive"), words, checks)),
        panic_threshold: health.panic_threshold.0.fraction(),
        when_none_healthy: match health.when_none_healthy {
            NoneHealthyWords::Fail => WhenNoneHealthy::Fail,
            NoneHealthyWords::TryAll => WhenNoneHealthy::TryAll,
        },
        breaker: words.breaker.as_ref().map(|words| breaker(&format!("{path}.breaker"), words, checks)),
        slow_start: words.slow_start.map(Duration::get),
        limits,
        retry_budget: RetryBudgetPolicy {
            ratio: words.retry_budget.ratio.fraction(),
            min_per_second: words.retry_budget.min_per_second,
        },
        learns_latencies: false,
    }
}

fn passive(path: &str, words: &PassiveHealth, checks: &mut Checks<'_>) -> PassivePolicy {
    checks.count(path, "consecutive_errors", words.consecutive_errors);
    checks.count(path, "min_requests", words.min_requests);
    checks.rate(path, "error_rate", words.error_rate);
    checks.time(path, "window", words.window, LONGEST);
    checks.time(path, "eject_for", words.eject_for, LONGEST);
    PassivePolicy {
        consecutive_errors: Some(words.consecutive_errors),
        error_rate: Some(words.error_rate.fraction()),
        min_requests: words.min_requests,
        window: words.window.get(),
        eject_for: words.eject_for.get(),
        max_ejected: words.max_ejected.fraction(),
    }
}

fn breaker(path: &str, words: &Breaker, checks: &mut Checks<'_>) -> (BreakerScope, BreakerPolicy) {
    for (name, count) in [
        ("consecutive_failures", words.consecutive_failures),
        ("min_requests", words.min_requests),
        ("half_open_requests", words.half_open_requests),
        ("close_after", words.close_after),
    ] {
        checks.count(path, name, count);
    }
    checks.rate(path, "error_rate", words.error_rate);
    checks.rate(path, "slow_call_rate", words.slow_call_rate);
    checks.time(path, "window", words.window, LONGEST);
    checks.time(path, "open_for", words.open_for, LONGEST);
    if let Some(duration) = words.slow_call_duration {
        checks.time(path, "slow_call_duration", duration, LONGEST);
    }
    let scope = match words.scope {
        ScopeWords::Endpoint => BreakerScope::Endpoint,
        ScopeWords::Upstream => BreakerScope::Upstream,
    };
    let slow = words.slow_call_duration.map(Duration::get);
    let policy = BreakerPolicy {
        consecutive_failures: Some(words.consecutive_failures),
        error_rate: Some(words.error_rate.fraction()),
        slow_call: slow.map(|duration| SlowCall { duration, rate: words.slow_call_rate.fraction() }),
        min_requests: words.min_requests,
        window: words.window.get(),
        open_for: words.open_for.get(),
        half_open_requests: words.half_open_requests,
        close_after: words.close_after,
    };
    (scope, policy)
}

/// What holds for a route: its own words, then those of `defaults`, then ours.
pub(super) fn retry(own: &Retry, defaults: &Retry) -> RetryPolicy {
    let on = own.on.as_ref().or(defaults.on.as_ref());
    let methods = own.methods.as_ref().or(defaults.methods.as_ref());
    let usual = [RetryOn::ConnectFailure, RetryOn::Reset, RetryOn::Status(503)];
    let backoff = own.backoff.or(defaults.backoff);
    let max_retry_after = own.max_retry_after.or(defaults.max_retry_after);
    RetryPolicy {
        max_retries: own.max_retries.or(defaults.max_retries).unwrap_or(1),
        on: on.map_or_else(
            || usual.into_iter().collect(),
            |words| words.iter().flat_map(|on| causes(*on)).collect::<Causes>(),
        ),
        methods: methods.map_or_else(Methods::idempotent, |words| {
            words.iter().map(String::as_str).fold(Methods::default(), with)
        }),
        backoff: match backoff.unwrap_or(BackoffWords::Exponential(Default::default())) {
            BackoffWords::Exponential(words) => {
                Backoff::Exponential { base: words.base.get(), max: words.max.get() }
            }
            BackoffWords::Fixed(pause) => Backoff::Fixed(pause.get()),
        },
        max_retry_after: max_retry_after.unwrap_or(Duration::from_secs(1)).get(),
        max_body: own.max_body.or(defaults.max_body).unwrap_or(ByteSize::kib(64)).get(),
    }
}

fn causes(words: OnWords) -> Vec<RetryOn> {
    match words {
        OnWords::ConnectFailure => vec![RetryOn::ConnectFailure],
        OnWords::Reset => vec![RetryOn::Reset],
        OnWords::Timeout => vec![RetryOn::Timeout],
        OnWords::GatewayError => (502..=504).map(RetryOn::Status).collect(),
        OnWords::ServerError => (500..600).map(RetryOn::Status).collect(),
        OnWords::Retriable4xx => vec![RetryOn::Status(409)],
        OnWords::Status(status) => vec![RetryOn::Status(status)],
        OnWords::Grpc(status) => vec![RetryOn::Grpc(status)],
    }
}

fn with(methods: Methods, name: &str) -> Methods {
    method(name).and_then(|method| methods.and(&method)).unwrap_or(methods)
}

fn method(name: &str) -> Option<Method> {
    Method::from_bytes(name.as_bytes()).ok()
}

/// Whether words for retries make sense.
pub(super) fn check_retry(path: &str, words: &Retry, errors: &mut Errors) {
    let checks = &mut Checks { errors };
    if words.max_retries.is_some_and(|most| most > MOST_RETRIES) {
        checks.error(
            format!("{path}.max_retries"),
            format!("a request is sent again at most {MOST_RETRIES} times"),
        );
    }
    for (at, name) in words.methods.iter().flatten().enumerate() {
        if method(name).and_then(|method| Methods::default().and(&method)).is_none() {
            let message = format!("`{name}` is not GET, HEAD, OPTIONS, TRACE, PUT, DELETE, POST or PATCH");
            checks.error(format!("{path}.methods[{at}]"), message);
        }
    }
    for (at, on) in words.on.iter().flatten().enumerate() {
        if matches!(on, OnWords::Grpc(status) if !GRPC_STATUSES.contains(status)) {
            checks.error(format!("{path}.on[{at}]"), "this is no status of gRPC".into());
        }
    }
    let longest = match words.backoff {
        Some(BackoffWords::Exponential(words)) if words.base > words.max => {
            checks.error(
                format!("{path}.backoff.exponential.base"),
                "the first pause is longer than the longest".into(),
            );
            None
        }
        Some(BackoffWords::Exponential(words)) => {
            Some((format!("{path}.backoff.exponential.max"), words.max))
        }
        Some(BackoffWords::Fixed(pause)) => Some((format!("{path}.backoff.fixed"), pause)),
        None => None,
    };
    let asked = words.max_retry_after.map(|longest| (format!("{path}.max_retry_after"), longest));
    for (path, pause) in longest.into_iter().chain(asked) {
        if pause > LONGEST_PAUSE {
            checks.error(path, format!("a request waits at most {LONGEST_PAUSE} before it is sent again"));
        }
    }
}

/// Whether bodies of the length that words for retries name can be kept: no body is longer than `longest`, and all that are
/// kept share `memory`.
pub(super) fn check_kept(
    path: &str,
    words: &Retry,
    longest: Option<ByteSize>,
    memory: ByteSize,
    errors: &mut Errors,
) {
    let Some(most) = words.max_body else { return };
    let too_much = match longest.filter(|longest| most > *longest) {
        Some(longest) => format!("no request body is longer than {longest} here (`limits.request_body`)"),
        None if most > memory => {
            format!("this is more than is kept of all bodies together: {memory} (`server.retry_memory`)")
        }
        None => return,
    };
    Checks { errors }.error(format!("{path}.max_body"), too_much);
}

pub(super) struct Checks<'a> {
    pub(super) errors: &'a mut Errors,
}

impl Checks<'_> {
    pub(super) fn error(&mut self, path: String, message: String) {
        self.errors.push(ConfigError::new(path, message));
    }

    /// What is counted is counted in half a word.
    pub(super) fn count(&mut self, path: &str, name: &str, count: u32) {
        if !(1..=65_535).contains(&count) {
            self.error(format!("{path}.{name}"), "this is 1 to 65535".into());
        }
    }

    fn rate(&mut self, path: &str, name: &str, rate: Percent) {
        if rate.fraction() <= 0.0 {
            self.error(
                format!("{path}.{name}"),
                "a rate of 0% would take what goes well for a failure".into(),
            );
        }
    }

    pub(super) fn time(&mut self, path: &str, name: &str, time: Duration, longest: Duration) {
        if time.get().is_zero() || time > longest {
            self.error(format!("{path}.{name}"), format!("this is more than nothing, and at most {longest}"));
        }
    }
}
