//! Until when an answer is waited for, as upstreams are told: the time of day (RFC 3339, in UTC).

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use pingora::{ErrorType, OrErr, Result};

use crate::telemetry::rfc3339;

/// The field that says so.
pub(super) const NAME: &str = "x-request-deadline";
const FIELD: HeaderName = HeaderName::from_static(NAME);

/// Says that so much time is left.
pub(super) fn announce(headers: &mut HeaderMap, left: Duration) -> Result<()> {
    let now = SystemTime::now();
    let value = HeaderValue::try_from(rfc3339(now.checked_add(left).unwrap_or(now)));
    headers.insert(FIELD, value.or_err(ErrorType::InternalError, "a time of day")?);
    Ok(())
}
