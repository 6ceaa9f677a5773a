//! Endpoints that an operator registers, re-weights, drains and removes.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Response, StatusCode};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Admin;
use super::views::{json_of, problem, upstream_view};
use crate::upstream::{Upstream, Wanted};

type Answer = Response<Vec<u8>>;

/// Which endpoint is meant: `/upstreams/{name}/endpoints/{address}`, as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    upstream: String,
    address: String,
}

/// What is wanted of an endpoint.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Words {
    weight: Option<u16>,
    /// `null` for none.
    #[serde(deserialize_with = "given")]
    zone: Option<Option<String>>,
    priority: Option<u8>,
    state: Option<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Active,
    Draining,
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Place {
    /// The place that a path names, if it names one.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let (upstream, address) = path.strip_prefix("/upstreams/")?.split_once("/endpoints/")?;
        let is_one = |part: &str| !part.is_empty() && !part.contains('/');
        (is_one(upstream) && is_one(address))
            .then(|| Some(Self { upstream: decoded(upstream)?, address: decoded(address)? }))
            .flatten()
    }

    fn find(&self, admin: &Admin) -> Result<(Arc<Upstream>, SocketAddr), Box<Answer>> {
        let snapshot = admin.live.load_full();
        let Some(upstream) = snapshot.upstreams.get(&*self.upstream) else {
            let detail = format!("There is no upstream `{}`.", self.upstream);
            return Err(Box::new(problem(StatusCode::NOT_FOUND, "no_such_upstream", &detail)));
        };
        match self.address.parse::<SocketAddr>() {
            Ok(address) if address.port() > 0 => Ok((Arc::clone(upstream), address)),
            _ => Err(Box::new(bad(&format!(
                "`{}` is not an IP address with a port: write it like `127.0.0.1:8080` or `[::1]:8080`.",
                self.address
            )))),
        }
    }

    /// A reload may have come in between: what is in force by now has the change, too.
    fn changed(&self, admin: &Admin, upstream: &Arc<Upstream>) {
        let snapshot = admin.live.load_full();
        if let Some(now) = snapshot.upstreams.get(&*self.upstream).filter(|now| !Arc::ptr_eq(now, upstream)) {
            now.refresh();
        }
        admin.control.endpoints_changed();
    }
}

/// Registers an endpoint, or changes one.
pub(super) fn put(admin: &Admin, place: &Place, body: &[u8]) -> Answer {
    let (upstream, address) = match place.find(admin) {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    let words = match body {
        b"" => Ok(Words::default()),
        body => serde_json::from_slice(body),
    };
    let words: Words = match words {
        Ok(words) => words,
        Err(error) => return problem(StatusCode::BAD_REQUEST, "bad_json", &error.to_string()),
    };
    if words.weight.is_some_and(|weight| weight > 1000) {
        return bad("A weight is 0 to 1000.");
    }
    if words.priority.is_some_and(|priority| priority > 127) {
        return bad("A priority is 0 to 127.");
    }
    if words.zone == Some(Some(String::new())) {
        return bad("A zone has a name.");
    }
    let wanted = Wanted {
        weight: words.weight,
        zone: words.zone.map(|zone| zone.map(Arc::from)),
        priority: words.priority,
        draining: words.state.map(|state| state == State::Draining),
    };
    let Some(leave) = admin.changes.leave() else { return handed(admin) };
    if upstream.place(address, &wanted).is_none() {
        return bad("An upstream has at most 4096 endpoints.");
    }
    place.changed(admin, &upstream);
    drop(leave);
    let view = view(&upstream, address);
    log::info!("upstream {}: endpoint {address} is changed through the API", place.upstream);
    json_of(StatusCode::OK, &view)
}

/// Takes an endpoint out.
pub(super) fn remove(admin: &Admin, place: &Place) -> Answer {
    let (upstream, address) = match place.find(admin) {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    let Some(leave) = admin.changes.leave() else { return handed(admin) };
    let mut view = view(&upstream, address);
    if upstream.remove(address).is_none() {
        let detail = format!("Upstream `{}` has no endpoint `{address}`.", place.upstream);
        return problem(StatusCode::NOT_FOUND, "no_such_endpoint", &detail);
    }
    place.changed(admin, &upstream);
    drop(leave);
    log::info!("upstream {}: endpoint {address} is removed through the API", place.upstream);
    if let Some(state) = view.get_mut("state") {
        *state = "removed".into();
    }
    json_of(StatusCode::OK, &view)
}

/// A new process has a copy of what was changed, and would not hear of more.
fn handed(admin: &Admin) -> Answer {
    if admin.drain.has_handed_over() {
        let detail = "A new process has taken over; ask that one.";
        return problem(StatusCode::CONFLICT, "handed_over", detail);
    }
    let detail = "An upgrade is under way, and the new process has its copy of the endpoints already. Ask again when it has ended.";
    problem(StatusCode::CONFLICT, "upgrade_under_way", detail)
}

/// The endpoint as `GET /upstreams` shows it.
fn view(upstream: &Upstream, address: SocketAddr) -> Value {
    let address = address.to_string();
    let mut upstream = upstream_view(upstream);
    let endpoints = upstream.get_mut("endpoints").and_then(Value::as_array_mut);
    let mut endpoints = endpoints.map(std::mem::take).unwrap_or_default().into_iter();
    endpoints.find(|endpoint| endpoint["address"] == *address).unwrap_or_default()
}

fn bad(detail: &str) -> Answer {
    problem(StatusCode::BAD_REQUEST, "bad_endpoint", detail)
}

/// A part of a path without its percent-encoding; `None` when that is broken.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_endpoints() {
        let place = |path| Place::parse(path).map(|place| (place.upstream, place.address));
        let some = |upstream: &str, address: &str| Some((upstream.to_owned(), address.to_owned()));
        assert_eq!(place("/upstreams/app/endpoints/10.0.0.1:80"), some("app", "10.0.0.1:80"));
        assert_eq!(place("/upstreams/a%20b/endpoints/%5B::1%5d:80"), some("a b", "[::1]:80"));
        assert_eq!(place("/upstreams/app/endpoints/[::1]:80"), some("app", "[::1]:80"));
        for none in [
            "/upstreams",
            "/upstreams/app",
            "/upstreams/app/endpoints/",
            "/upstreams//endpoints/a",
            "/upstreams/a/endpoints/%4",
            "/upstreams/a/endpoints/%zz",
            "/upstreams/a/endpoints/%ff",
            "/upstreams/a/endpoints/b/c",
        ] {
            assert_eq!(place(none), None, "{none}");
        }
    }
}
