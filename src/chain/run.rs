//! The filters of one route, and the running of them.

mod preflight;
mod request;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use smallvec::SmallVec;

use self::request::Hooks;
pub use self::request::{Progress, Waits};
use super::erased::SharedFilter;
use super::filter::{Chunk, Flow, LogEntry, Slot};
use super::phases::{Phases, Stage};
use crate::condition::When;
use crate::exchange::{Exchange, Fault, Reply, RequestHeader, ResponseHeader, Result};

/// A filter in its place in a chain.
#[derive(Clone)]
pub struct Link {
    /// The filter's name: config key, metric label, docs page.
    pub name: &'static str,
    /// Where it belongs.
    pub stage: Stage,
    /// The filter.
    pub filter: SharedFilter,
    /// When it applies; always, if nothing is said.
    pub when: Option<When>,
}

impl Link {
    /// A filter in its place that always applies.
    pub fn new(name: &'static str, stage: Stage, filter: SharedFilter) -> Self {
        Self { name, stage, filter, when: None }
    }

    /// Whether it waits for the response to know whether it applies.
    fn awaits_response(&self) -> bool {
        self.when.as_ref().is_some_and(When::needs_response)
    }
}

/// Collects links in the order they are written and puts them in the order they run.
#[derive(Default)]
pub struct ChainBuilder(Vec<Link>);

impl ChainBuilder {
    /// Adds a link after those before it.
    pub fn push(&mut self, link: Link) {
        self.0.push(link);
    }

    /// The chain: by stage, then as written.
    pub fn build(mut self) -> Chain {
        self.0.sort_by_key(|link| link.stage);
        let joined = |phase: Phases| -> Box<[u16]> {
            let joins = |(at, link): (usize, &Link)| {
                // What depends on the response is decided when its head comes.
                let decides = phase == Phases::RESPONSE && link.awaits_response();
                let joins = decides || link.filter.phases().contains(phase);
                joins.then(|| u16::try_from(at).ok()).flatten()
            };
            self.0.iter().enumerate().filter_map(joins).collect()
        };
        let request = self.0.iter().enumerate().filter_map(|(at, link)| {
            let hooks = Hooks::of(link.filter.phases())?;
            Some((u16::try_from(at).ok()?, hooks))
        });
        Chain {
            request: request.collect(),
            upstream_request: joined(Phases::UPSTREAM_REQUEST),
            request_body: joined(Phases::REQUEST_BODY),
            response: joined(Phases::RESPONSE),
            response_body: joined(Phases::RESPONSE_BODY),
            response_trailers: joined(Phases::RESPONSE_TRAILERS),
            log: joined(Phases::LOG),
            needs_form: self.0.iter().any(|link| link.filter.needs_form()),
            conditional: self.0.iter().any(|link| link.when.is_some()),
            links: self.0.into_boxed_slice(),
        }
    }
}

/// The filters of one route in the order they run.
#[derive(Default)]
pub struct Chain {
    links: Box<[Link]>,
    /// Whether any of them applies on a condition.
    conditional: bool,
    /// Whether any of them goes by the fields of a form.
    pub(crate) needs_form: bool,
    /// Which links see the request, and by which hooks.
    request: Box<[(u16, Hooks)]>,
    upstream_request: Box<[u16]>,
    request_body: Box<[u16]>,
    response: Box<[u16]>,
    response_body: Box<[u16]>,
    response_trailers: Box<[u16]>,
    log: Box<[u16]>,
}

/// The memories of a chain's filters for one exchange.
#[derive(Default)]
pub struct Slots {
    states: SmallVec<[Slot; 4]>,
    /// What the conditions of the filters came to, of all filters when any has one.
    decisions: SmallVec<[Decision; 16]>,
}

/// Whether a filter applies to one exchange. It is decided when its first hook is due, and holds for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Open,
    Applies,
    /// It could not be told.
    AppliesInDoubt,
    DoesNot,
}

/// A verdict of one filter on a request or its body.
pub struct Verdict {
    /// The filter that answered.
    pub filter: &'static str,
    /// Its answer.
    pub reply: Box<Reply>,
}

impl Chain {
    /// The filters, in the order they run.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Fresh memories for one exchange.
    pub fn slots(&self) -> Slots {
        let open = if self.conditional { self.links.len() } else { 0 };
        Slots {
            states: self.links.iter().map(|link| link.filter.0.slot()).collect(),
            decisions: SmallVec::from_elem(Decision::Open, open),
        }
    }

    /// The filters that applied to an exchange because their conditions could not be told.
    pub fn in_doubt(&self, slots: &Slots) -> impl Iterator<Item = &'static str> {
        let links = self.links.iter().zip(&slots.decisions);
        links.filter(|(_, decision)| **decision == Decision::AppliesInDoubt).map(|(link, _)| link.name)
    }

    /// Whether any filter looks at request bodies.
    pub fn sees_request_body(&self) -> bool {
        !self.request_body.is_empty()
    }

    /// Whether any filter shapes response heads.
    pub fn shapes_response(&self) -> bool {
        !self.response.is_empty()
    }

    /// Whether any filter looks at response bodies.
    pub fn sees_response_body(&self) -> bool {
        !self.response_body.is_empty()
    }

    /// Whether any filter adds to the access log.
    pub fn sees_log(&self) -> bool {
        !self.log.is_empty()
    }

    /// Runs the upstream request hooks in order.
    pub fn upstream_request(
        &self,
        slots: &mut Slots,
        exchange: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()> {
        for &at in &self.upstream_request {
            let Some((link, slot)) = self.at(slots, at, exchange)? else { continue };
            guard(link, || link.filter.0.upstream_request(slot, exchange, head))?;
        }
        Ok(())
    }

    /// Runs the request body hooks in order, until one answers.
    pub fn request_body(
        &self,
        slots: &mut Slots,
        exchange: &mut Exchange<'_>,
        data: &mut Option<Bytes>,
        end: bool,
    ) -> Result<Option<Verdict>> {
        for &at in &self.request_body {
            let Some((link, slot)) = self.at(slots, at, exchange)? else { continue };
            let mut chunk = Chunk { data, end };
            match guard(link, || link.filter.0.request_body(slot, exchange, &mut chunk))? {
                Flow::Continue => {}
                Flow::Reply(reply) => return Ok(Some(Verdict { filter: link.name, reply })),
                Flow::Wait => return Err(waits_in_vain(link)),
            }
        }
        Ok(None)
    }

    /// Runs the response hooks in reverse.
    pub fn response(
        &self,
        slots: &mut Slots,
        exchange: &mut Exchange<'_>,
        head: &mut ResponseHeader,
    ) -> Result<()> {
        for &at in self.response.iter().rev() {
            let Some((link, slot)) = self.at_response(slots, at, exchange, Some(head))? else { continue };
            guard(link, || link.filter.0.response(slot, exchange, head))?;
        }
        Ok(())
    }

    /// Runs the response body hooks in reverse.
    pub fn response_body(
        &self,
        slots: &mut Slots,
        exchange: &mut Exchange<'_>,
        data: &mut Option<Bytes>,
        end: bool,
    ) -> Result<()> {
        for &at in self.response_body.iter().rev() {
            let Some((link, slot)) = self.at(slots, at, exchange)? else { continue };
            let mut chunk = Chunk { data, end };
            guard(link, || link.filter.0.response_body(slot, exchange, &mut chunk))?;
        }
        Ok(())
    }

    /// Ends a response body that has trailers: runs the trailers hooks and the body hooks in reverse, and returns what is
    /// left of the body. Trailers that were put into the body are gone.
    pub fn response_trailers(
        &self,
        slots: &mut Slots,
        exchange: &mut Exchange<'_>,
        trailers: &mut HeaderMap,
    ) -> Result<Option<Bytes>> {
        let mut rest = None;
        if self.response_trailers.is_empty() {
            self.response_body(slots, exchange, &mut rest, true)?;
            return Ok(rest);
        }
        let mut taken = false;
        for at in (0..self.links.len()).rev().filter_map(|at| u16::try_from(at).ok()) {
            if !taken
                && self.response_trailers.contains(&at)
                && let Some((link, slot)) = self.at(slots, at, exchange)?
            {
                let ending = guard(link, || link.filter.0.response_trailers(slot, exchange, trailers))?;
                if let Some(ending) = ending {
                    taken = true;
                    trailers.clear();
                    rest = Some(joined(rest.take(), ending));
                }
            }
            if self.response_body.contains(&at)
                && let Some((link, slot)) = self.at(slots, at, exchange)?
            {
                let mut chunk = Chunk { data: &mut rest, end: true };
                guard(link, || link.filter.0.response_body(slot, exchange, &mut chunk))?;
            }
        }
        Ok(rest)
    }

    /// Runs the log hooks in reverse. A panic costs the filter's own fields only.
    pub fn log(&self, slots: &mut Slots, exchange: &mut Exchange<'_>, entry: &mut LogEntry) {
        for &at in self.log.iter().rev() {
            let done = self.at(slots, at, exchange).and_then(|found| {
                let Some((link, slot)) = found else { return Ok(()) };
                guard(link, || {
                    link.filter.0.log(slot, exchange, entry);
                    Ok(())
                })
            });
            if let Err(fault) = done {
                log::error!("{fault}");
            }
        }
    }

    /// A link and its memory; `None` when it does not apply.
    fn at<'c, 's>(
        &'c self,
        slots: &'s mut Slots,
        at: u16,
        exchange: &Exchange<'_>,
    ) -> Result<Option<(&'c Link, &'s mut Slot)>> {
        self.at_response(slots, at, exchange, None)
    }

    fn at_response<'c, 's>(
        &'c self,
        slots: &'s mut Slots,
        at: u16,
        exchange: &Exchange<'_>,
        response: Option<&ResponseHeader>,
    ) -> Result<Option<(&'c Link, &'s mut Slot)>> {
        let at = usize::from(at);
        let Slots { states, decisions } = slots;
        let (link, state) = self
            .links
            .get(at)
            .zip(states.get_mut(at))
            .ok_or_else(|| Fault::new("the slots are of another chain"))?;
        if let Some(when) = &link.when {
            let decision =
                decisions.get_mut(at).ok_or_else(|| Fault::new("the slots are of another chain"))?;
            if *decision == Decision::Open {
                *decision = guard(link, || Ok(decide(link, when, exchange, response)))?;
            }
            if *decision == Decision::DoesNot {
                return Ok(None);
            }
        }
        Ok(Some((link, state)))
    }
}

#[cold]
fn decide(link: &Link, when: &When, exchange: &Exchange<'_>, response: Option<&ResponseHeader>) -> Decision {
    match when.applies(exchange, response) {
        (false, _) => Decision::DoesNot,
        (true, None) => Decision::Applies,
        (true, Some(trouble)) => {
            let (filter, route) = (link.name, exchange.route());
            log::debug!("whether {filter} applies on {route} cannot be told, so it does: {trouble}");
            Decision::AppliesInDoubt
        }
    }
}

/// Two pieces of a body as one.
fn joined(first: Option<Bytes>, second: Bytes) -> Bytes {
    match first.filter(|first| !first.is_empty()) {
        None => second,
        Some(first) => {
            let mut both = BytesMut::from(first);
            both.extend_from_slice(&second);
            both.freeze()
        }
    }
}

/// A filter wants to wait where it has no hook to do so.
#[cold]
fn waits_in_vain(link: &Link) -> Fault {
    Fault::new(format!("filter {}: it waits where it has no hook to", link.name))
}

/// Calls a hook; a panic in it becomes a fault of this one request.
fn guard<T>(link: &Link, hook: impl FnOnce() -> Result<T>) -> Result<T> {
    settled(link, catch_unwind(AssertUnwindSafe(hook)))
}

/// What a hook came to; a fault says whose it is.
fn settled<T>(link: &Link, outcome: std::thread::Result<Result<T>>) -> Result<T> {
    match outcome {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(fault)) => Err(Fault::new(format!("filter {}: {fault}", link.name))),
        Err(panic) => Err(Fault::panicked(&format!("filter {}", link.name), &*panic)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use http::HeaderValue;

    use super::*;
    use crate::chain::Filter;
    use crate::exchange::{Answer, Client, Facts, Rewrite};
    use crate::route::Captures;
    use crate::types::{Peer, Trust};

    /// Writes its name around the body and, where it takes trailers, in their place.
    struct Mark(&'static str, Takes);

    #[derive(PartialEq)]
    enum Takes {
        Nothing,
        AddsOne,
        All,
    }

    impl Filter for Mark {
        type State = ();

        fn phases(&self) -> Phases {
            match self.1 {
                Takes::Nothing => Phases::RESPONSE_BODY,
                Takes::AddsOne => Phases::RESPONSE_TRAILERS,
                Takes::All => Phases::RESPONSE_BODY | Phases::RESPONSE_TRAILERS,
            }
        }

        fn response_body(&self, (): &mut (), _: &mut Exchange<'_>, chunk: &mut Chunk<'_>) -> Result<()> {
            let data = chunk.data.take().unwrap_or_default();
            let end = if chunk.end { "." } else { "" };
            *chunk.data = Some([self.0.as_bytes(), b"(", &data, b")", end.as_bytes()].concat().into());
            Ok(())
        }

        fn response_trailers(
            &self,
            (): &mut (),
            _: &mut Exchange<'_>,
            trailers: &mut HeaderMap,
        ) -> Result<Option<Bytes>> {
            if self.1 == Takes::AddsOne {
                trailers.insert(self.0, HeaderValue::from_static("was here"));
                return Ok(None);
            }
            let names: Vec<_> = trailers.keys().map(|name| name.as_str()).collect();
            Ok(Some(format!("{}:{}", self.0, names.join("+")).into()))
        }
    }

    /// What is left of the body, and of the trailers.
    fn end(filters: Vec<Mark>) -> (String, Vec<String>) {
        let mut builder = ChainBuilder::default();
        for mark in filters {
            builder.push(Link::new(mark.0, Stage::Transform, SharedFilter::new(mark)));
        }
        let chain = builder.build();
        let request = RequestHeader::build("GET", b"/", None).unwrap();
        let mut facts = facts();
        let mut exchange = Exchange::new(&request, "route", &mut facts);
        let mut trailers = HeaderMap::from_iter([(http::header::AGE, HeaderValue::from_static("1"))]);
        let rest = chain.response_trailers(&mut chain.slots(), &mut exchange, &mut trailers).unwrap();
        let names = trailers.keys().map(|name| name.to_string()).collect();
        (String::from_utf8(rest.unwrap_or_default().to_vec()).unwrap(), names)
    }

    /// Refuses at once, waits before it refuses, or lets pass; and notes its hooks.
    struct Asked(Phases, &'static str);

    impl Filter for Asked {
        type State = ();

        fn phases(&self) -> Phases {
            self.0
        }

        fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
            exchange.remark("asked", "at_once");
            Ok(match self.1 {
                "waits" => Flow::Wait,
                "refuses" => Reply::content(http::StatusCode::IM_A_TEAPOT, "").into(),
                _ => Flow::Continue,
            })
        }

        async fn request_wait(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
            tokio::task::yield_now().await;
            exchange.remark("asked", "waited");
            Ok(if self.1 == "waits in vain" { Flow::Wait } else { Flow::Continue })
        }
    }

    #[tokio::test]
    async fn a_filter_waits_where_it_says_so() {
        let (now, wait) = (Phases::REQUEST, Phases::REQUEST_WAIT);
        let both = now | wait;
        for (filters, hooks, ends) in [
            (vec![(now, "passes"), (both, "passes")], "at_once at_once", Some(false)),
            (vec![(both, "waits"), (now, "passes")], "at_once waited at_once", Some(false)),
            (vec![(wait, ""), (both, "waits"), (wait, "")], "waited at_once waited waited", Some(false)),
            (vec![(both, "waits"), (now, "refuses"), (wait, "")], "at_once waited at_once", Some(true)),
            (vec![(both, "refuses"), (wait, "")], "at_once", Some(true)),
            (vec![(now, "waits")], "at_once", None),
            (vec![(wait, "waits in vain"), (now, "")], "waited", None),
        ] {
            let mut builder = ChainBuilder::default();
            for (phases, does) in filters {
                builder.push(Link::new("asked", Stage::Limit, SharedFilter::new(Asked(phases, does))));
            }
            let chain = builder.build();
            let request = RequestHeader::build("GET", b"/", None).unwrap();
            let mut facts = facts();
            let mut exchange = Exchange::new(&request, "route", &mut facts);
            let verdict = chain.request(&mut chain.slots(), &mut exchange).await;
            assert_eq!(verdict.ok().map(|verdict| verdict.is_some()), ends, "{hooks}");
            let noted: Vec<_> = facts.remarks.iter().map(|(_, remark)| *remark).collect();
            assert_eq!(noted.join(" "), hooks);
        }
    }

    fn facts() -> Facts {
        let (peer, local) = (Peer::Ip("192.0.2.7:1234".parse().unwrap()), "192.0.2.1:80".parse().unwrap());
        Facts {
            client: Client::identify(peer, Some(local), false, &HeaderMap::new(), &Trust::default()),
            tls: None,
            identity: Default::default(),
            host: "a.test".into(),
            captures: Captures::default(),
            request_id: None,
            rewrite: Rewrite::default(),
            body_limit: 0,
            may_have_body: true,
            form: None,
            started: Instant::now(),
            arrived: SystemTime::now(),
            answer: Answer::Upstream,
            remarks: Vec::new(),
        }
    }

    #[test]
    fn trailers_pass_the_filters_in_reverse() {
        let mark = |name, takes| Mark(name, takes);
        assert_eq!(end(vec![]), (String::new(), vec!["age".to_owned()]));
        assert_eq!(end(vec![mark("a", Takes::Nothing)]), ("a().".to_owned(), vec!["age".to_owned()]));
        let (rest, names) = end(vec![mark("b", Takes::AddsOne), mark("a", Takes::AddsOne)]);
        assert_eq!((rest.as_str(), names.join(" ").as_str()), ("", "age a b"));
        // The last of the chain is the first on the way back. What it leaves comes before the trailers of the next, whose
        // own body hook sees both; nobody sees the trailers after that.
        let chain = vec![
            mark("e", Takes::All),
            mark("d", Takes::AddsOne),
            mark("c", Takes::All),
            mark("b", Takes::AddsOne),
            mark("a", Takes::Nothing),
        ];
        assert_eq!(end(chain), ("e(c(a().c:age+b).).".to_owned(), vec![]));
    }
}
