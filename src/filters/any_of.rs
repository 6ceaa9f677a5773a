//! `any_of`: who it is, by one of several ways.
//!
//! 1. The first member whose credentials the request brings decides alone, as if there were no other: what is wrong with
//!    them is refused, whatever else the request brings.
//! 2. Without any, the client is the `anonymous` consumer of the first member that has one. Else the request is refused
//!    (401), with the challenge of each member.
//! 3. Credentials that no member has looked at go no further, whatever their member's `hide` says: an upstream would take them
//!    for proof.
//! 4. No other hook of a member runs for a request that another decided about.

use bytes::Bytes;
use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{Authenticator, Chunk, Filter, Flow, Link, LogEntry, Memory, Phases, Stage};
use crate::document::{ConfigError, Errors};
use crate::exchange::{Exchange, Fault, Reason, Reply, RequestHeader, ResponseHeader, Result};
use crate::registry::{FilterKind, Members, Scope};

/// Finds out who the client is by one of several filters: the first whose credentials the request brings decides, and refuses
/// what is wrong with them. A request without any is refused (401) with the challenge of each, unless one of them has an
/// `anonymous` consumer. Credentials of the other members go no further, as nobody has looked at them.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("minItems" = 2))]
pub struct Config(Members);

/// Several filters of which one decides.
pub struct AnyOf {
    members: Box<[Link]>,
    phases: Phases,
}

/// Which member decides about an exchange, and what it remembers of it.
#[derive(Default)]
pub struct Decider(Option<(usize, Memory)>);

impl FilterKind for AnyOf {
    const NAME: &'static str = "any_of";
    const STAGE: Stage = Stage::Authenticate;
    const EXAMPLE: &'static str = "[{ api_key: { from: [\"header:x-key\"] } }, { basic: { realm: shop } }]";
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>) -> std::result::Result<Self, Errors> {
        let mut errors = Errors::default();
        if config.0.len() < 2 {
            let error = ConfigError::new("", "one of several suffices: write two members or more");
            errors.push(error.with_hint("a single filter stands by itself"));
        }
        let mut members = Vec::with_capacity(config.0.len());
        for (path, link) in config.0.build(Self::NAME, Self::STAGE, scope, &mut errors) {
            let decides = link.filter.phases().touches(Phases::REQUEST | Phases::REQUEST_WAIT);
            if decides && link.filter.authenticator().is_some() {
                members.push(link);
            } else {
                let message = format!("`{}` cannot tell whether a request brings credentials", link.name);
                let hint = "a filter that can has `Filter::authenticator`";
                errors.push(ConfigError::new(path, message).with_hint(hint));
            }
        }
        errors.or(Self::of(members))
    }

    fn members(config: &mut Config) -> Option<&mut Members> {
        Some(&mut config.0)
    }
}

impl Filter for AnyOf {
    type State = Decider;

    fn phases(&self) -> Phases {
        self.phases
    }

    fn takes_preflights(&self) -> bool {
        self.members.iter().any(|link| link.filter.takes_preflights())
    }

    fn needs_form(&self) -> bool {
        self.members.iter().any(|link| link.filter.needs_form())
    }

    fn request(&self, decider: &mut Decider, exchange: &mut Exchange<'_>) -> Result<Flow> {
        match self.decide(decider, exchange) {
            Some((link, _)) if !link.filter.phases().contains(Phases::REQUEST) => Ok(Flow::Wait),
            Some((link, memory)) => match named(link, link.filter.request(memory, exchange))? {
                Flow::Wait if !link.filter.phases().contains(Phases::REQUEST_WAIT) => {
                    named(link, Err(Fault::new("it waits where it has no hook to")))
                }
                flow => Ok(flow),
            },
            None => Ok(self.refuse()),
        }
    }

    async fn request_wait(&self, decider: &mut Decider, exchange: &mut Exchange<'_>) -> Result<Flow> {
        match self.decider(decider, Phases::REQUEST_WAIT, exchange) {
            Some((link, memory)) => named(link, link.filter.request_wait(memory, exchange).await),
            None => Err(Fault::new("no member waits")),
        }
    }

    fn upstream_request(
        &self,
        decider: &mut Decider,
        exchange: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()> {
        let decides = decider.0.as_ref().map(|(at, _)| *at);
        for (link, member) in self.authenticators(decides) {
            named(link, member.hide_in_head(exchange, head))?;
        }
        match self.decider(decider, Phases::UPSTREAM_REQUEST, exchange) {
            Some((link, memory)) => named(link, link.filter.upstream_request(memory, exchange, head)),
            None => Ok(()),
        }
    }

    fn request_body(
        &self,
        decider: &mut Decider,
        exchange: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<Flow> {
        match self.decider(decider, Phases::REQUEST_BODY, exchange) {
            Some((link, memory)) => named(link, link.filter.request_body(memory, exchange, chunk)),
            None => Ok(Flow::Continue),
        }
    }

    fn response(
        &self,
        decider: &mut Decider,
        exchange: &mut Exchange<'_>,
        head: &mut ResponseHeader,
    ) -> Result<()> {
        match self.decider(decider, Phases::RESPONSE, exchange) {
            Some((link, memory)) => named(link, link.filter.response(memory, exchange, head)),
            None => Ok(()),
        }
    }

    fn response_body(
        &self,
        decider: &mut Decider,
        exchange: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<()> {
        match self.decider(decider, Phases::RESPONSE_BODY, exchange) {
            Some((link, memory)) => named(link, link.filter.response_body(memory, exchange, chunk)),
            None => Ok(()),
        }
    }

    fn response_trailers(
        &self,
        decider: &mut Decider,
        exchange: &mut Exchange<'_>,
        trailers: &mut HeaderMap,
    ) -> Result<Option<Bytes>> {
        match self.decider(decider, Phases::RESPONSE_TRAILERS, exchange) {
            Some((link, memory)) => named(link, link.filter.response_trailers(memory, exchange, trailers)),
            None => Ok(None),
        }
    }

    fn log(&self, decider: &mut Decider, exchange: &mut Exchange<'_>, entry: &mut LogEntry) {
        if let Some((link, memory)) = self.decider(decider, Phases::LOG, exchange) {
            link.filter.log(memory, exchange, entry);
        }
    }
}

impl AnyOf {
    fn of(members: Vec<Link>) -> Self {
        let own = Phases::REQUEST | Phases::UPSTREAM_REQUEST;
        let phases = members.iter().fold(own, |all, link| all | link.filter.phases());
        Self { members: members.into(), phases }
    }

    /// Chooses the member that decides; none does about a request without credentials where nobody is welcome without.
    fn decide<'c>(
        &'c self,
        decider: &'c mut Decider,
        exchange: &mut Exchange<'_>,
    ) -> Option<(&'c Link, &'c mut Memory)> {
        let first = |wanted: &dyn Fn(&dyn Authenticator) -> bool| {
            self.members.iter().position(|link| link.filter.authenticator().is_some_and(wanted))
        };
        let brought = first(&|member| member.is_brought(exchange));
        let at = brought.or_else(|| first(&|member| member.takes_anyone()))?;
        self.authenticators(Some(at)).for_each(|(_, member)| member.hide_in_query(exchange));
        let (_, memory) = decider.0.insert((at, Memory::default()));
        self.members.get(at).map(|link| (link, memory))
    }

    /// The member that has decided, if it joins this phase.
    fn decider<'c>(
        &'c self,
        decider: &'c mut Decider,
        phase: Phases,
        exchange: &mut Exchange<'_>,
    ) -> Option<(&'c Link, &'c mut Memory)> {
        let found = decider.0.as_mut().and_then(|(at, memory)| Some((self.members.get(*at)?, memory)));
        let found = found.filter(|(link, _)| link.filter.phases().contains(phase));
        if found.is_none() {
            exchange.untouched();
        }
        found
    }

    /// The members, without this one.
    fn authenticators(&self, but: Option<usize>) -> impl Iterator<Item = (&Link, &dyn Authenticator)> {
        let others = self.members.iter().enumerate().filter(move |(at, _)| Some(*at) != but);
        others.filter_map(|(_, link)| Some((link, link.filter.authenticator()?)))
    }

    fn refuse(&self) -> Flow {
        let mut fields = HeaderMap::new();
        for challenge in self.authenticators(None).filter_map(|(_, member)| member.challenge()) {
            fields.append(WWW_AUTHENTICATE, challenge);
        }
        Reply::refuse(Reason::CREDENTIALS_MISSING).headers(fields).into()
    }
}

/// What a hook of a member came to; a fault says whose it is.
fn named<T>(link: &Link, outcome: Result<T>) -> Result<T> {
    outcome.map_err(|fault| Fault::new(format!("{}: {fault}", link.name)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::chain::{Chain, ChainBuilder, SharedFilter};
    use crate::exchange::Facts;

    /// Decides where its query is asked with, joins every hook but one, and notes which ones run.
    struct Notes {
        query: &'static str,
        waits: bool,
        anyone: bool,
    }

    impl Authenticator for Notes {
        fn is_brought(&self, exchange: &Exchange<'_>) -> bool {
            exchange.query() == Some(self.query)
        }

        fn takes_anyone(&self) -> bool {
            self.anyone
        }

        fn hide_in_query(&self, exchange: &mut Exchange<'_>) {
            exchange.rewrite_query(format!(
                "{} hidden by {}",
                exchange.upstream_query().unwrap(),
                self.query
            ));
        }

        fn hide_in_head(&self, _: &Exchange<'_>, head: &mut RequestHeader) -> Result<()> {
            head.append_header("hidden-by", self.query)?;
            Ok(())
        }
    }

    impl Filter for Notes {
        type State = String;

        fn phases(&self) -> Phases {
            let other = if self.waits { Phases::REQUEST } else { Phases::REQUEST_WAIT };
            let own = Phases::ALL.into_iter().map(|(phase, _)| phase).filter(|phase| *phase != other);
            own.fold(Phases::NONE, |all, phase| all | phase)
        }

        fn authenticator(&self) -> Option<&dyn Authenticator> {
            Some(self)
        }

        fn request(&self, seen: &mut String, _: &mut Exchange<'_>) -> Result<Flow> {
            seen.push_str(self.query);
            Ok(Flow::Continue)
        }

        async fn request_wait(&self, seen: &mut String, _: &mut Exchange<'_>) -> Result<Flow> {
            tokio::task::yield_now().await;
            seen.push_str(&format!("{} waited", self.query));
            Ok(Flow::Continue)
        }

        fn upstream_request(
            &self,
            seen: &mut String,
            _: &mut Exchange<'_>,
            _: &mut RequestHeader,
        ) -> Result<()> {
            seen.push_str(", upstream_request");
            Ok(())
        }

        fn request_body(&self, seen: &mut String, _: &mut Exchange<'_>, _: &mut Chunk<'_>) -> Result<Flow> {
            seen.push_str(", request_body");
            Ok(Flow::Continue)
        }

        fn response(&self, seen: &mut String, _: &mut Exchange<'_>, _: &mut ResponseHeader) -> Result<()> {
            seen.push_str(", response");
            Ok(())
        }

        fn response_body(&self, seen: &mut String, _: &mut Exchange<'_>, _: &mut Chunk<'_>) -> Result<()> {
            seen.push_str(", response_body");
            Err(Fault::new("enough"))
        }

        fn response_trailers(
            &self,
            seen: &mut String,
            _: &mut Exchange<'_>,
            _: &mut HeaderMap,
        ) -> Result<Option<Bytes>> {
            seen.push_str(", response_trailers");
            Ok(None)
        }

        fn log(&self, seen: &mut String, _: &mut Exchange<'_>, entry: &mut LogEntry) {
            entry.field("seen", seen.as_str());
        }
    }

    fn chain(members: impl IntoIterator<Item = Notes>) -> Chain {
        let links = members
            .into_iter()
            .map(|notes| Link::new(notes.query, Stage::Authenticate, SharedFilter::new(notes)));
        let any_of = AnyOf::of(links.collect());
        let mut chain = ChainBuilder::default();
        chain.push(Link::new("any_of", Stage::Authenticate, SharedFilter::new(any_of)));
        chain.build()
    }

    /// What the members noted of a request with this query; the query and the fields that go upstream.
    async fn noted(chain: &Chain, query: &str) -> (String, String, Vec<HeaderValue>) {
        let request = RequestHeader::build("GET", format!("/?{query}").as_bytes(), None).unwrap();
        let mut facts = Facts::of_head("a.test");
        let (mut slots, mut exchange) = (chain.slots(), Exchange::new(&request, "route", &mut facts));
        let verdict = chain.request(&mut slots, &mut exchange).await.unwrap();
        let mut head = request.clone();
        if let Some(verdict) = verdict {
            assert_eq!(verdict.reply.reason(), Some(Reason::CREDENTIALS_MISSING));
        } else {
            chain.upstream_request(&mut slots, &mut exchange, &mut head).unwrap();
            let body = chain.request_body(&mut slots, &mut exchange, &mut None, true).unwrap();
            assert!(body.is_none());
        }
        let mut answer = ResponseHeader::build(200, None).unwrap();
        chain.response(&mut slots, &mut exchange, &mut answer).unwrap();
        let fault = chain.response_trailers(&mut slots, &mut exchange, &mut HeaderMap::new()).err();
        let mut entry = LogEntry::default();
        chain.log(&mut slots, &mut exchange, &mut entry);
        let seen = entry.fields().first().map(|(_, seen)| seen.clone()).unwrap_or_default();
        let told = fault.map(|fault| format!(", {fault}")).unwrap_or_default();
        let fields = head.headers.get_all("hidden-by").iter().cloned().collect();
        (seen + &told, exchange.upstream_query().unwrap().to_owned(), fields)
    }

    #[tokio::test]
    async fn every_hook_of_the_member_that_decides_runs_and_none_of_another() {
        let rest =
            ", upstream_request, request_body, response, response_trailers, response_body, filter any_of";
        let member = |query, waits, anyone| Notes { query, waits, anyone };
        for waits in [false, true] {
            let chain = chain([member("a", false, false), member("b", waits, false)]);
            assert_eq!(
                noted(&chain, "a").await,
                (format!("a{rest}: a: enough"), "a hidden by b".into(), vec![HeaderValue::from_static("b")])
            );
            let b = if waits { "b waited" } else { "b" };
            assert_eq!(
                noted(&chain, "b").await,
                (
                    format!("{b}{rest}: b: enough"),
                    "b hidden by a".into(),
                    vec![HeaderValue::from_static("a")]
                )
            );
            assert_eq!(noted(&chain, "c").await, (String::new(), "c".into(), vec![]));
        }
        let chain = chain([member("a", false, false), member("b", false, true), member("c", true, true)]);
        assert!(noted(&chain, "d").await.0.starts_with("b, "));
        assert!(noted(&chain, "c").await.0.starts_with("c waited, "));
    }
}
