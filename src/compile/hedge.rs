//! When requests are sent to a second endpoint too.

use crate::config::{Balance, Config, HedgeAfter as Words, Retry, Route};
use crate::document::{ConfigError, Errors};
use crate::types::Duration;
use crate::upstream::HedgeAfter;

/// What holds for a route: its own word, then that of `defaults`, where its requests can be hedged.
pub(super) fn of_route(route: &Route, config: &Config) -> Option<HedgeAfter> {
    let hedge = route.retry.hedge.or(config.defaults.retry.hedge)?;
    match hedge.after {
        _ if unfit(route, config).is_some() => None,
        Words::Time(time) => Some(HedgeAfter::Time(time.get())),
        Words::Percentile(percentile) => Some(HedgeAfter::Percentile(percentile)),
        Words::Never => None,
    }
}

/// Whether a route asks how long this upstream's answers take.
pub(super) fn asks_of(upstream: &str, config: &Config) -> bool {
    let mut to = config.routes.iter().filter(|route| route.upstream.as_deref() == Some(upstream));
    to.any(|route| matches!(of_route(route, config), Some(HedgeAfter::Percentile(_))))
}

/// Whether a route's own words for it make sense. `request` and `per_try` are what its requests and attempts may take.
pub(super) fn check_route(
    path: &str,
    route: &Route,
    config: &Config,
    most: [Duration; 2],
    errors: &mut Errors,
) {
    if route.retry.hedge.is_some_and(|hedge| hedge.after != Words::Never)
        && let Some(why) = unfit(route, config)
    {
        errors.push(ConfigError::new(format!("{path}.retry.hedge"), why));
    }
    check(&format!("{path}.retry"), &route.retry, most, errors);
}

/// Whether words for it make sense where requests and attempts may take so long.
pub(super) fn check(path: &str, words: &Retry, [request, per_try]: [Duration; 2], errors: &mut Errors) {
    let Some(Words::Time(after)) = words.hedge.map(|hedge| hedge.after) else { return };
    let mut error = |message: String| errors.push(ConfigError::new(format!("{path}.hedge.after"), message));
    if after.get().is_zero() {
        error("this is more than nothing".into());
    }
    for (name, most) in [("request", request), ("per_try", per_try)] {
        if after >= most {
            return error(format!("by then the time is up: `timeouts.{name}` is {most}"));
        }
    }
}

/// Why a route's requests cannot be sent to a second endpoint.
fn unfit(route: &Route, config: &Config) -> Option<&'static str> {
    let Some(name) = &route.upstream else { return Some("only requests to an upstream can be hedged") };
    let upstream = config.upstreams.get(name)?;
    if matches!(upstream.balance, Balance::Sticky(_)) {
        return Some("the upstream is `sticky`: a second endpoint would take the session over");
    }
    // Hedged requests have connections of their own, beside those that the bound is kept for.
    let bounded = upstream.limits.as_ref().is_some_and(|limits| limits.max_connections.is_some());
    bounded.then_some("the upstream bounds its connections (`limits.max_connections`): bound its requests instead, by `max_requests`")
}
