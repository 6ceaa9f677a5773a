//! `mirror`: where copies of a route's requests go.

use std::sync::Arc;

use super::Compiler;
use crate::config::{Mirror as Words, Route, Timeouts};
use crate::document::ConfigError;
use crate::snapshot::{Copies, Mirror};
use crate::types::ByteSize;

const MAX_BODY: ByteSize = ByteSize::kib(64);

impl Compiler<'_> {
    /// Where copies of a route's requests go; what is wrong with its words was said.
    pub(super) fn mirror(&self, route: &Route) -> Option<Arc<Mirror>> {
        let words = route.mirror.as_ref()?;
        let memory = self.config.server.retry_memory;
        Some(Arc::new(Mirror {
            upstream: Arc::clone(self.upstreams.get(words.upstream.as_str())?),
            share: words.percent.fraction(),
            max_body: words.max_body.unwrap_or(MAX_BODY.min(memory)).get(),
            timeout: words.timeout.get(),
            max_active: words.max_active,
            timeouts: self.upstream_timeouts(&Timeouts::default(), Some(&words.upstream)),
            copies: self.inputs.state.adopt(format!("mirror:{}", route.name), Copies::default),
        }))
    }

    /// Whether the words of a route make sense that leads to these upstreams.
    pub(super) fn check_mirror(&mut self, path: &str, route: &Route, upstreams: &[&str]) {
        let Some(words) = &route.mirror else { return };
        let path = format!("{path}.mirror");
        if upstreams.is_empty() {
            self.error(path.clone(), "only requests to an upstream can be copied");
        }
        self.upstream(format!("{path}.upstream"), &words.upstream);
        if let Some(why) = self.unfit(words, upstreams) {
            self.error(format!("{path}.upstream"), why);
        }
        if words.percent.fraction() == 0.0 {
            let error = ConfigError::new(format!("{path}.percent"), "nothing would be copied");
            self.errors.push(error.with_hint("leave `mirror` out"));
        }
        let memory = self.config.server.retry_memory;
        if words.max_body.is_some_and(|most| most > memory) {
            let message =
                format!("this is more than is kept of all bodies together: {memory} (`server.retry_memory`)");
            self.error(format!("{path}.max_body"), message);
        }
        if words.timeout.get().is_zero() {
            self.error(format!("{path}.timeout"), "a timeout cannot be zero");
        }
        if words.max_active == 0 {
            self.error(format!("{path}.max_active"), "nothing would be copied: this is 1 or more");
        }
    }

    /// Why copies cannot go to an upstream, of requests that go to these.
    fn unfit(&self, words: &Words, upstreams: &[&str]) -> Option<&'static str> {
        if upstreams.contains(&words.upstream.as_str()) {
            return Some("this is where the requests themselves go");
        }
        // Copies have connections of their own, beside those that the bound is kept for.
        let limits = self.config.upstreams.get(&words.upstream)?.limits.as_ref()?;
        limits.max_connections.map(|_| {
            "the upstream bounds its connections (`limits.max_connections`): bound its requests instead, by `max_requests`"
        })
    }
}
