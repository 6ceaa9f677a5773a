//! Which version of an API a request goes to, and what its answer says of that.

use std::time::SystemTime;

use http::header::{HeaderName, LINK, VARY};
use pingora::Result;
use pingora::http::ResponseHeader;

use super::context::Pinned;
use crate::exchange::{Answer, Reason, Reply};
use crate::snapshot::{Lifecycle, Route, Versions};

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// The answer to a request for a version that there is not.
pub(super) fn refused(reason: Reason, versions: &Versions) -> Box<Reply> {
    let names: Vec<&str> = versions.all.iter().map(|(name, _)| &**name).collect();
    Box::new(Reply::refuse(reason).detail(format!("there is {}", names.join(", "))))
}

/// The answer of a version that has ended.
pub(super) fn ended(route: &Route) -> Option<Box<Reply>> {
    let lifecycle = route.lifecycle.as_ref()?;
    lifecycle.has_ended(SystemTime::now()).then(|| Box::new(Reply::refuse(Reason::VERSION_GONE)))
}

/// Tells the client how long its version will be there.
pub(super) fn tell(head: &mut ResponseHeader, pinned: &Pinned) -> Result<()> {
    let Some(lifecycle) = &pinned.route.lifecycle else { return Ok(()) };
    let Lifecycle { deprecated, sunset, links, vary } = &**lifecycle;
    let dates = [(DEPRECATION, deprecated), (SUNSET, sunset)];
    for (name, date) in dates {
        if let Some((_, value)) = date {
            head.insert_header(name, value.clone())?;
        }
    }
    for link in links {
        head.append_header(LINK, link.clone())?;
    }
    if !matches!(pinned.facts.answer, Answer::Own(Some(_))) {
        for field in vary {
            head.append_header(VARY, field.clone())?;
        }
    }
    Ok(())
}

/// Counts a request for a version that should not be used any more, by who made it.
pub(super) fn count(pinned: &Pinned) {
    let deprecated = pinned.route.lifecycle.as_ref().and_then(|lifecycle| lifecycle.deprecated.as_ref());
    if let (Some((since, _)), Some(variant)) = (deprecated, &pinned.route.variant)
        && pinned.facts.arrived >= *since
    {
        let consumer = pinned.facts.identity.consumer.as_ref();
        variant.metrics.deprecated(consumer.map(|consumer| &consumer.name));
    }
}
