//! Filters and the chain of them that each route compiles to.
//!
//! A [`Filter`] is one concern. A [`Chain`] is the filters of one route in their order, with an index list per
//! phase, so that a phase a filter does not join costs nothing.

mod authenticator;
mod erased;
mod filter;
mod phases;
mod run;

pub use authenticator::Authenticator;
pub use filter::{Chunk, Filter, Flow, LogEntry};
pub use phases::{Phases, Stage};
pub use run::{Chain, ChainBuilder, Link, Progress, Slots, Verdict, Waits};

pub use erased::{Memory, SharedFilter};
