//! What the API shows.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Response, StatusCode};
use httpdate::fmt_http_date;
use serde_json::{Value, json};

use super::Admin;
use crate::consumer;
use crate::explain;
use crate::snapshot::{Route, Snapshot, Target};
use crate::tls::{Certificate, Entry};
use crate::upstream::{HealthReport, State, Upstream};

pub(super) fn json_of(status: StatusCode, value: &Value) -> Response<Vec<u8>> {
    let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
    body.push(b'\n');
    response(status, "application/json", body)
}

pub(super) fn text(status: StatusCode, kind: &'static str, body: impl Into<Vec<u8>>) -> Response<Vec<u8>> {
    response(status, kind, body.into())
}

/// A refusal (RFC 9457).
pub(super) fn problem(status: StatusCode, code: &str, detail: &str) -> Response<Vec<u8>> {
    let title = status.canonical_reason().unwrap_or("Refused");
    let value = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail, "code": code });
    response(status, "application/problem+json", format!("{value}\n").into_bytes())
}

fn response(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let built = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .header(CONTENT_LENGTH, body.len())
        .header(CACHE_CONTROL, "no-store")
        .header("x-content-type-options", "nosniff");
    built.body(body).unwrap_or_default()
}

pub(super) fn status(admin: &Admin) -> Value {
    let snapshot = admin.live.load();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": admin.status.uptime_seconds(),
        "ready": !admin.drain.is_unready(),
        "connections": admin.drain.connections(),
        "config": { "generation": snapshot.generation, "hash": snapshot.hash, "last_reload": admin.status.last_reload() },
    })
}

pub(super) fn routes(admin: &Admin) -> Value {
    let snapshot = admin.live.load_full();
    snapshot.routes.iter().map(route_view).collect()
}

fn route_view(route: &Arc<Route>) -> Value {
    let filters: Vec<_> = route
        .chains
        .first()
        .map(|chain| chain.links().iter().map(|link| link.name).collect())
        .unwrap_or_default();
    let target = match &route.target {
        Target::Upstream(upstream) => json!({ "upstream": &**upstream.name() }),
        Target::Split(split) => json!({ "split": explain::variants(split).collect::<Vec<_>>() }),
        Target::Versions(versions) => json!({ "versions": explain::versions(versions).collect::<Vec<_>>() }),
        Target::Respond(reply) => json!({ "respond": reply.status().as_u16() }),
        Target::Redirect(redirect) => json!({ "redirect": redirect.status.as_u16() }),
        Target::Handler(_) => json!("handler"),
        Target::Nothing => Value::Null,
    };
    let mut view =
        json!({ "name": &*route.name, "matches": &*route.matches, "filters": filters, "target": target });
    if let Some(mirror) = &route.mirror {
        let (upstream, percent) = (&**mirror.upstream.name(), mirror.percent());
        view["mirror"] = json!({ "upstream": upstream, "percent": percent, "active": mirror.active() });
    }
    view
}

pub(super) fn consumers(admin: &Admin) -> Value {
    let snapshot = admin.live.load_full();
    let now = SystemTime::now();
    snapshot.consumers.entries().map(|entry| consumer_view(entry, now)).collect()
}

fn consumer_view(entry: &consumer::Entry, now: SystemTime) -> Value {
    let shown = |credential: &consumer::Credential, called: &str| {
        let mut view = json!({
            "expires": credential.expires.map(fmt_http_date),
            "expired": credential.expires.is_some_and(|expires| expires <= now),
        });
        view[called] = credential.name.as_deref().into();
        view
    };
    json!({
        "name": &*entry.consumer.name,
        "groups": entry.consumer.groups,
        "api_keys": entry.api_keys.iter().map(|key| shown(key, "name")).collect::<Vec<_>>(),
        "basic": entry.basic.iter().map(|login| shown(login, "username")).collect::<Vec<_>>(),
    })
}

pub(super) fn certificates(admin: &Admin) -> Value {
    let snapshot = admin.live.load_full();
    let now = SystemTime::now();
    let listeners = snapshot.listeners.iter().filter_map(|listener| Some((listener, listener.tls.as_ref()?)));
    let entries = listeners.flat_map(|(listener, tls)| {
        let entries = tls.certificates().entries().iter();
        entries.map(|entry| entry_view(&snapshot, &listener.name, entry, now))
    });
    entries.collect()
}

fn entry_view(snapshot: &Snapshot, listener: &str, entry: &Entry, now: SystemTime) -> Value {
    let issued = match entry {
        Entry::Loaded(certificate) => return certificate_view(listener, certificate, now),
        Entry::Issued(issued) => issued,
    };
    let mut view = match issued.certificate() {
        Some(certificate) => certificate_view(listener, &certificate, now),
        None => json!({ "listener": listener, "hosts": issued.hosts() }),
    };
    if let Some(managed) = snapshot.managed(issued) {
        let state = managed.progress.state();
        view["acme"] = json!({
            "directory": managed.directory.name,
            "state": state.word,
            "next": state.next.filter(|next| *next > now).map(fmt_http_date),
            "failures": state.failures,
            "error": state.error,
        });
    }
    view
}

fn certificate_view(listener: &str, certificate: &Certificate, now: SystemTime) -> Value {
    json!({
        "listener": listener,
        "file": certificate.file,
        "hosts": certificate.hosts,
        "other_names": certificate.others,
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "serial": certificate.serial,
        "sha256": certificate.fingerprint,
        "key": certificate.key_kind(),
        "not_before": fmt_http_date(certificate.not_before),
        "not_after": fmt_http_date(certificate.not_after),
        "days_left": certificate.left(now).as_secs() / (24 * 60 * 60),
    })
}

pub(super) fn upstreams(admin: &Admin) -> Value {
    let snapshot = admin.live.load_full();
    snapshot.upstreams.values().map(|upstream| upstream_view(upstream)).collect()
}

pub(super) fn upstream_view(upstream: &Upstream) -> Value {
    let (set, now) = (upstream.endpoints(), Instant::now());
    let endpoints: Vec<_> = set
        .iter()
        .map(|endpoint| {
            let standing = endpoint.standing();
            json!({
                "address": endpoint.address().to_string(),
                "weight": endpoint.weight(),
                "zone": endpoint.zone(),
                "priority": endpoint.priority(),
                "origin": endpoint.spec().origin.word(),
                "state": if endpoint.spec().draining { "draining" } else { "active" },
                "healthy": endpoint.is_healthy(now),
                "ejected_for_seconds": endpoint.ejected_for(now).map(|left| left.as_secs_f64()),
                "circuit": endpoint.circuit(now).map(State::word),
                "health": { "active": endpoint.checked().map(|checked| checked_view(&checked.report())) },
                "limit": endpoint.limit(),
                "active": standing.active(),
                "waiting": standing.waiting(),
                "requests": standing.requests(),
                "failures": standing.failures(),
                "latency_seconds": Some(standing.latency().estimate(now)).filter(|latency| *latency > 0.0),
            })
        })
        .collect();
    json!({
        "name": &**upstream.name(),
        "balance": upstream.choice().to_string(),
        "discover": upstream.found().map(|found| {
            json!({ "from": found.finder().to_string(), "error": found.error().as_deref() })
        }),
        "circuit": upstream.circuit(now).map(State::word),
        "panicking": upstream.is_panicking(now),
        "endpoints": endpoints,
    })
}

/// What probes have told of an endpoint.
fn checked_view(report: &HealthReport) -> Value {
    let last = report.last.as_ref().map(|last| {
        json!({
            "at": fmt_http_date(last.at),
            "took_seconds": last.took.as_secs_f64(),
            "error": last.error.as_deref(),
        })
    });
    json!({ "healthy": report.healthy, "in_a_row": report.in_a_row, "last": last })
}
