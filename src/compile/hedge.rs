//! When requests are sent to a second endpoint too.

use crate::config::{Balance, Config, HedgeAfter as Words, Retry};
use crate::document::{ConfigError, Errors};
use crate::types::Duration;
use crate::upstream::HedgeAfter;

/// What holds for requests to an upstream by words of a route: those, then those of `defaults`, where they can be hedged.
pub(super) fn of_requests(retry: &Retry, upstream: &str, config: &Config) -> Option<HedgeAfter> {
    let hedge = retry.hedge.or(config.defaults.retry.hedge)?;
    match hedge.after {
        _ if unfit(upstream, config).is_some() => None,
        Words::Time(time) => Some(HedgeAfter::Time(time.get())),
        Words::Percentile(percentile) => Some(HedgeAfter::Percentile(percentile)),
        Words::Never => None,
    }
}

/// Whether a route asks how long this upstream's answers take.
pub(super) fn asks_of(upstream: &str, config: &Config) -> bool {
    let by_routes = config.routes.iter().filter(|route| route.upstreams().any(|name| name == upstream));
    let by_apis = config.apis.iter().filter(|api| api.upstreams().any(|name| name == upstream));
    let mut words = by_routes.map(|route| &route.retry).chain(by_apis.map(|api| &api.retry));
    words.any(|retry| matches!(of_requests(retry, upstream, config), Some(HedgeAfter::Percentile(_))))
}

/// Whether a route's own words for it make sense, which leads to these upstreams. `request` and `per_try` are what its requests
/// and attempts may take.
pub(super) fn check_route(
    path: &str,
    retry: &Retry,
    upstreams: &[&str],
    config: &Config,
    most: [Duration; 2],
    errors: &mut Errors,
) {
    if retry.hedge.is_some_and(|hedge| hedge.after != Words::Never) {
        let nowhere = upstreams.is_empty().then_some("only requests to an upstream can be hedged");
        let why = nowhere.or_else(|| upstreams.iter().find_map(|name| unfit(name, config)));
        errors.extend(why.map(|why| ConfigError::new(format!("{path}.retry.hedge"), why)));
    }
    check(&format!("{path}.retry"), retry, most, errors);
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

/// Why requests cannot be sent to a second endpoint of an upstream.
fn unfit(name: &str, config: &Config) -> Option<&'static str> {
    let upstream = config.upstreams.get(name)?;
    if matches!(upstream.balance, Balance::Sticky(_)) {
        return Some("the upstream is `sticky`: a second endpoint would take the session over");
    }
    // Hedged requests have connections of their own, beside those that the bound is kept for.
    let bounded = upstream.limits.as_ref().is_some_and(|limits| limits.max_connections.is_some());
    bounded.then_some("the upstream bounds its connections (`limits.max_connections`): bound its requests instead, by `max_requests`")
}
