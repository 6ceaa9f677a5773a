//! A filter with its types forgotten, so that a chain can hold many kinds.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;

use super::authenticator::Authenticator;
use super::filter::{Chunk, Filter, Flow, LogEntry, Slot};
use super::phases::Phases;
use crate::exchange::{Exchange, Fault, RequestHeader, ResponseHeader, Result};

/// A filter that many chains share.
#[derive(Clone)]
pub struct SharedFilter(pub(super) Arc<dyn Erased>);

impl SharedFilter {
    /// Makes a filter shareable.
    pub fn new(filter: impl Filter) -> Self {
        Self(Arc::new(filter))
    }

    /// The hooks the filter joins.
    pub fn phases(&self) -> Phases {
        self.0.phases()
    }

    /// Whether the filter goes by the fields of a form.
    pub fn needs_form(&self) -> bool {
        self.0.needs_form()
    }

    /// Whether the filter answers preflights.
    pub fn takes_preflights(&self) -> bool {
        self.0.takes_preflights()
    }

    /// The filter as one that finds out who clients are, if it is that.
    pub fn authenticator(&self) -> Option<&dyn Authenticator> {
        self.0.authenticator()
    }

    /// The hooks that the filter implements but does not name in `phases`, found by calling the unnamed ones.
    /// For tests: a hook may have effects.
    pub async fn unnamed_hooks(&self, exchange: &mut Exchange<'_>) -> Vec<&'static str> {
        let mut found = Vec::new();
        for (phase, name) in Phases::ALL {
            if !self.phases().contains(phase) && !self.is_default(phase, exchange).await {
                found.push(name);
            }
        }
        found
    }

    async fn is_default(&self, phase: Phases, exchange: &mut Exchange<'_>) -> bool {
        let mut slot = self.0.slot();
        exchange.take_untouched();
        let mut none = None;
        let mut chunk = Chunk { data: &mut none, end: true };
        match phase {
            Phases::REQUEST => drop(self.0.request(&mut slot, exchange)),
            Phases::REQUEST_WAIT => drop(self.0.request_wait(&mut slot, exchange).await),
            Phases::REQUEST_BODY => drop(self.0.request_body(&mut slot, exchange, &mut chunk)),
            Phases::RESPONSE_BODY => drop(self.0.response_body(&mut slot, exchange, &mut chunk)),
            Phases::RESPONSE_TRAILERS => {
                drop(self.0.response_trailers(&mut slot, exchange, &mut HeaderMap::new()));
            }
            Phases::LOG => self.0.log(&mut slot, exchange, &mut LogEntry::default()),
            Phases::UPSTREAM_REQUEST => {
                let mut head = exchange.request().clone();
                drop(self.0.upstream_request(&mut slot, exchange, &mut head));
            }
            _ => {
                if let Ok(mut head) = ResponseHeader::build(200, None) {
                    drop(self.0.response(&mut slot, exchange, &mut head));
                }
            }
        }
        exchange.take_untouched()
    }
}

/// The memory that a shared filter has of one exchange.
#[derive(Default)]
pub struct Memory(Slot);

impl Memory {
    fn of(&mut self, filter: &SharedFilter) -> &mut Slot {
        if self.0.is_none() {
            self.0 = filter.0.slot();
        }
        &mut self.0
    }
}

/// For a filter that runs others in its own hooks; a chain does without.
impl Filter for SharedFilter {
    type State = Memory;

    fn phases(&self) -> Phases {
        self.0.phases()
    }

    fn takes_preflights(&self) -> bool {
        self.0.takes_preflights()
    }

    fn needs_form(&self) -> bool {
        self.0.needs_form()
    }

    fn authenticator(&self) -> Option<&dyn Authenticator> {
        self.0.authenticator()
    }

    fn request(&self, memory: &mut Memory, exchange: &mut Exchange<'_>) -> Result<Flow> {
        self.0.request(memory.of(self), exchange)
    }

    async fn request_wait(&self, memory: &mut Memory, exchange: &mut Exchange<'_>) -> Result<Flow> {
        self.0.request_wait(memory.of(self), exchange).await
    }

    fn upstream_request(
        &self,
        memory: &mut Memory,
        exchange: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()> {
        self.0.upstream_request(memory.of(self), exchange, head)
    }

    fn request_body(
        &self,
        memory: &mut Memory,
        exchange: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<Flow> {
        self.0.request_body(memory.of(self), exchange, chunk)
    }

    fn response(
        &self,
        memory: &mut Memory,
        exchange: &mut Exchange<'_>,
        head: &mut ResponseHeader,
    ) -> Result<()> {
        self.0.response(memory.of(self), exchange, head)
    }

    fn response_body(
        &self,
        memory: &mut Memory,
        exchange: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<()> {
        self.0.response_body(memory.of(self), exchange, chunk)
    }

    fn response_trailers(
        &self,
        memory: &mut Memory,
        exchange: &mut Exchange<'_>,
        trailers: &mut HeaderMap,
    ) -> Result<Option<Bytes>> {
        self.0.response_trailers(memory.of(self), exchange, trailers)
    }

    fn log(&self, memory: &mut Memory, exchange: &mut Exchange<'_>, entry: &mut LogEntry) {
        self.0.log(memory.of(self), exchange, entry);
    }
}

/// [`Filter`] without its associated type.
pub(super) trait Erased: Send + Sync {
    fn phases(&self) -> Phases;
    fn takes_preflights(&self) -> bool;
    fn needs_form(&self) -> bool;
    fn authenticator(&self) -> Option<&dyn Authenticator>;
    fn slot(&self) -> Slot;
    fn request(&self, slot: &mut Slot, exchange: &mut Exchange<'_>) -> Result<Flow>;
    fn request_wait<'a>(
        &'a self,
        slot: &'a mut Slot,
        exchange: &'a mut Exchange<'_>,
    ) -> BoxFuture<'a, Result<Flow>>;
    fn upstream_request(
        &self,
        slot: &mut Slot,
        exchange: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()>;
    fn request_body(
        &self,
        slot: &mut Slot,
        exchange: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<Flow>;
    fn response(&self, slot: &mut Slot, exchange: &mut Exchange<'_>, head: &mut ResponseHeader)
    -> Result<()>;
    fn response_body(
        &self,
        slot: &mut Slot,
        exchange: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<()>;
    fn response_trailers(
        &self,
        slot: &mut Slot,
        exchange: &mut Exchange<'_>,
        trailers: &mut HeaderMap,
    ) -> Result<Option<Bytes>>;
    fn log(&self, slot: &mut Slot, exchange: &mut Exchange<'_>, entry: &mut LogEntry);
}

/// Calls `$hook` with the slot as the filter's own state. A filter whose state has no size needs no slot.
macro_rules! with_state {
    ($filter:ty, $slot:expr, |$state:ident| $call:expr) => {
        if size_of::<<$filter as Filter>::State>() == 0 {
            let $state = &mut <$filter as Filter>::State::default();
            $call
        } else {
            let $state = $slot
                .as_deref_mut()
                .and_then(<dyn Any + Send + Sync>::downcast_mut)
                .ok_or_else(|| Fault::new("a filter lost its state"))?;
            $call
        }
    };
}

impl<F: Filter> Erased for F {
    fn phases(&self) -> Phases {
        Filter::phases(self)
    }

    fn takes_preflights(&self) -> bool {
        Filter::takes_preflights(self)
    }

    fn needs_form(&self) -> bool {
        Filter::needs_form(self)
    }

    fn authenticator(&self) -> Option<&dyn Authenticator> {
        Filter::authenticator(self)
    }

    fn slot(&self) -> Slot {
        (size_of::<F::State>() > 0).then(|| Box::<F::State>::default() as Box<dyn Any + Send + Sync>)
    }

    fn request(&self, slot: &mut Slot, exchange: &mut Exchange<'_>) -> Result<Flow> {
        with_state!(F, slot, |state| Filter::request(self, state, exchange))
    }

    fn request_wait<'a>(
        &'a self,
        slot: &'a mut Slot,
        exchange: &'a mut Exchange<'_>,
    ) -> BoxFuture<'a, Result<Flow>> {
        Box::pin(
            async move { with_state!(F, slot, |state| Filter::request_wait(self, state, exchange).await) },
        )
    }

    fn upstream_request(
        &self,
        slot: &mut Slot,
        exchange: &mut Exchange<'_>,
        head: &mut RequestHeader,
    ) -> Result<()> {
        with_state!(F, slot, |state| Filter::upstream_request(self, state, exchange, head))
    }

    fn request_body(
        &self,
        slot: &mut Slot,
        exchange: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<Flow> {
        with_state!(F, slot, |state| Filter::request_body(self, state, exchange, chunk))
    }

    fn response(
        &self,
        slot: &mut Slot,
        exchange: &mut Exchange<'_>,
        head: &mut ResponseHeader,
    ) -> Result<()> {
        with_state!(F, slot, |state| Filter::response(self, state, exchange, head))
    }

    fn response_body(
        &self,
        slot: &mut Slot,
        exchange: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> Result<()> {
        with_state!(F, slot, |state| Filter::response_body(self, state, exchange, chunk))
    }

    fn response_trailers(
        &self,
        slot: &mut Slot,
        exchange: &mut Exchange<'_>,
        trailers: &mut HeaderMap,
    ) -> Result<Option<Bytes>> {
        with_state!(F, slot, |state| Filter::response_trailers(self, state, exchange, trailers))
    }

    fn log(&self, slot: &mut Slot, exchange: &mut Exchange<'_>, entry: &mut LogEntry) {
        let mut call = || -> Result<()> {
            with_state!(F, slot, |state| Filter::log(self, state, exchange, entry));
            Ok(())
        };
        if let Err(fault) = call() {
            log::error!("{fault}");
        }
    }
}
