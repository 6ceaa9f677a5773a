//! What a whole configuration came to: every route with its chain and its target.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::{Step, chain, variants, versions};
use crate::snapshot::{ListenerPolicy, Route, Snapshot, Target};
use crate::tls::Entry;
use crate::types;
use crate::upstream::{Endpoint, LimitPolicy, UNLIMITED, Upstream};

/// A snapshot in words, routes in file order. The text is stable: two configurations with the same one do the same.
pub struct Outline<'a>(&'a Snapshot);

/// Puts a snapshot into words.
pub fn outline(snapshot: &Snapshot) -> Outline<'_> {
    Outline(snapshot)
}

impl Display for Outline<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let snapshot = self.0;
        for listener in &snapshot.listeners {
            tls(f, listener)?;
        }
        for route in &snapshot.routes {
            writeln!(f, "route {}", route.name)?;
            row(f, "matches", &route.matches)?;
            chains(f, snapshot, route)?;
            target(f, route)?;
            mirror(f, route)?;
            deadlines(f, route)?;
        }
        f.write_str("otherwise\n")?;
        chains(f, snapshot, &snapshot.unmatched)?;
        row(f, "answer", &"404, or 405 where another method is served")
    }
}

/// What there is to say of a listener that does more than to serve plaintext.
fn tls(f: &mut Formatter<'_>, listener: &ListenerPolicy) -> fmt::Result {
    if let Some(redirect) = listener.redirect_to_https {
        writeln!(f, "listener {}", listener.name)?;
        row(f, "answer", &format_args!("{} to https, port {}", redirect.status.as_u16(), redirect.port))?;
    }
    let Some(tls) = &listener.tls else { return Ok(()) };
    writeln!(f, "listener {}", listener.name)?;
    row(f, "tls", &tls.base())?;
    for (host, policy) in tls.hosts() {
        row(f, "", &format_args!("{host}: {policy}"))?;
    }
    for entry in tls.certificates().entries() {
        match entry {
            Entry::Loaded(certificate) => {
                row(f, "cert", &format_args!("{} ({})", certificate.names(), certificate.key_kind()))?;
            }
            Entry::Issued(issued) => {
                row(f, "cert", &format_args!("{} (by ACME)", issued.hosts().join(", ")))?
            }
        }
    }
    match &tls.hsts {
        Some(hsts) => row(f, "hsts", &hsts.to_str().unwrap_or_default()),
        None => Ok(()),
    }
}

fn row(f: &mut Formatter<'_>, name: &str, value: &dyn Display) -> fmt::Result {
    writeln!(f, "  {name:<9} {value}")
}

/// One line when all listeners run the same filters, else one for each listener.
fn chains(f: &mut Formatter<'_>, snapshot: &Snapshot, route: &Route) -> fmt::Result {
    let on = |listener: usize| chain(snapshot, route, listener);
    let all_alike = (1..snapshot.listeners.len()).all(|listener| on(listener) == on(0));
    if all_alike {
        return row(f, "filters", &filters(&on(0)));
    }
    for (at, listener) in snapshot.listeners.iter().enumerate() {
        row(f, "filters", &format_args!("{} on {}", filters(&on(at)), listener.name))?;
    }
    Ok(())
}

fn filters(steps: &[Step]) -> String {
    if steps.is_empty() {
        return "none".into();
    }
    let words = steps.iter().map(|step| match &step.when {
        Some(when) => format!("{} ({}, when {})", step.filter, step.stage, one_line(when)),
        None => format!("{} ({})", step.filter, step.stage),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// A condition may be written over several lines.
fn one_line(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn target(f: &mut Formatter<'_>, route: &Route) -> fmt::Result {
    match &route.target {
        Target::Upstream(upstream) => {
            row(f, "upstream", &endpoints(upstream))?;
            if let Some(found) = upstream.found() {
                row(f, "discover", found.finder())?;
            }
            balance(f, upstream)?;
            if let Some(active) = upstream.active_health() {
                row(f, "health", active)?;
            }
            upstream.limits().map_or(Ok(()), |policy| {
                let words = limits(policy);
                row(f, "limits", &format_args!("{words}, priority {}", route.bounds.priority.word()))
            })
        }
        Target::Split(split) => {
            for (at, view) in variants(split).enumerate() {
                let name = if at == 0 { "split" } else { "" };
                row(f, name, &format_args!("{} at {} ({}%)", view.variant, view.upstream, view.percent))?;
            }
            Ok(())
        }
        Target::Versions(all) => {
            for (at, view) in versions(all).enumerate() {
                let name = if at == 0 { "versions" } else { "" };
                let default = if view.default { ", the default" } else { "" };
                row(f, name, &format_args!("{} at {}{default}", view.version, view.upstream))?;
            }
            Ok(())
        }
        Target::Respond(reply) => row(f, "answer", &reply.status().as_u16()),
        Target::Redirect(to) => row(f, "redirect", &format_args!("{} with {}", to.to, to.status.as_u16())),
        Target::Handler(_) => row(f, "handler", &"in code"),
        Target::Nothing => Ok(()),
    }
}

fn mirror(f: &mut Formatter<'_>, route: &Route) -> fmt::Result {
    let Some(mirror) = &route.mirror else { return Ok(()) };
    let (name, percent) = (mirror.upstream.name(), mirror.percent());
    row(f, "mirror", &format_args!("{percent}% to {name}, {} at once", mirror.max_active))?;
    let (body, timeout) = (types::ByteSize::bytes(mirror.max_body), types::Duration::from(mirror.timeout));
    row(f, "", &format_args!("body at most {body}, in {timeout}"))
}

fn endpoints(upstream: &Upstream) -> String {
    let endpoint = |endpoint: &Endpoint| {
        let weight = Some(endpoint.weight()).filter(|weight| *weight != 1).map(|it| format!("weight {it}"));
        let zone = endpoint.zone().map(|it| format!("zone {it}"));
        let priority = Some(endpoint.priority()).filter(|it| *it != 0).map(|it| format!("priority {it}"));
        let draining = endpoint.spec().draining.then(|| "draining".to_owned());
        match [weight, zone, priority, draining].into_iter().flatten().collect::<Vec<_>>() {
            said if said.is_empty() => endpoint.address().to_string(),
            said => format!("{} ({})", endpoint.address(), said.join(", ")),
        }
    };
    let endpoints = match upstream.endpoints() {
        none if none.is_empty() => "no endpoints yet".to_owned(),
        set => set.iter().map(endpoint).collect::<Vec<_>>().join(", "),
    };
    let tls = upstream.tls().map_or(String::new(), |tls| format!(" by TLS, {tls}"));
    format!("{}: {endpoints}{tls}", upstream.name())
}

/// What there is to say of the choice, beside that endpoints take turns.
fn balance(f: &mut Formatter<'_>, upstream: &Upstream) -> fmt::Result {
    let choice = upstream.choice();
    if !choice.is_plain() {
        row(f, "balance", choice)?;
    }
    match &choice.zone {
        Some(zone) if upstream.endpoints().iter().any(|endpoint| endpoint.zone().is_some()) => {
            row(f, "zone", zone)
        }
        _ => Ok(()),
    }
}

/// What each endpoint is given at once, and who waits.
fn limits(policy: &LimitPolicy) -> String {
    let any = [(policy.max_requests, "requests"), (policy.max_connections, "connections")];
    let any = any.into_iter().filter(|(count, _)| *count < UNLIMITED);
    let mut words: Vec<_> = any.map(|(count, what)| format!("{count} {what} at once")).collect();
    words.extend(policy.adaptive.map(|bounds| format!("adaptive {} to {}", bounds.min, bounds.max)));
    let patience = types::Duration::from(policy.queue_timeout);
    format!("{}, {} wait for {patience}", words.join(", "), policy.max_queue)
}

fn deadlines(f: &mut Formatter<'_>, route: &Route) -> fmt::Result {
    let show = types::Duration::from;
    let own = &route.bounds.deadlines;
    let total = own.total.map_or("off".to_owned(), |total: Duration| show(total).to_string());
    row(
        f,
        "timeouts",
        &format_args!(
            "request {}, stream_idle {}, total {total}{}",
            show(own.request),
            show(own.stream_idle),
            if route.bounds.announce { ", announced" } else { "" }
        ),
    )?;
    if let Target::Upstream(_) = route.target {
        let to = &route.bounds.upstream;
        row(
            f,
            "",
            &format_args!(
                "connect {}, read {}, write {}, idle {}{}",
                show(to.connect),
                show(to.read),
                show(to.write),
                show(to.idle),
                to.lifetime.map_or(String::new(), |lifetime| format!(", lifetime {}", show(lifetime)))
            ),
        )?;
        let retry = &route.bounds.retry;
        match (retry.max_retries, route.bounds.deadlines.per_try) {
            (0, _) => row(f, "retries", &"none")?,
            (most, None) => row(f, "retries", &format_args!("at most {most}"))?,
            (most, Some(per_try)) => {
                row(f, "retries", &format_args!("at most {most}, {} for each attempt", show(per_try)))?;
            }
        }
        if let Some(after) = route.bounds.hedge {
            row(f, "hedged", &format_args!("after {after}"))?;
        }
    }
    row(f, "body", &format_args!("at most {}", types::ByteSize::bytes(route.bounds.request_body)))
}
