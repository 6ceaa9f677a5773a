//! Finds the route of a request. Pure: no I/O, no clock, no configuration words.
//!
//! 1. A route matches by host, path, listener, method, header fields and query. Host and path come in canonical
//!    form ([`Host`](crate::types::Host), [`NormalPath`](crate::types::NormalPath)).
//! 2. Of all that match, the most specific wins, by the first difference in:
//!    - host: exact, longest wildcard, any;
//!    - path: exact; parameters (literal segments before captures, leftmost first); longest prefix or tail (more
//!      segments, then literals before captures); regex in file order;
//!    - the number of method, header and query conditions (`methods` counts as one);
//!    - file order.
//! 3. A route whose conditions fail makes way for the next best, across path classes and host levels.
//! 4. When none matches, but some would with another method, the answer is that set of methods.
//!
//! Looking up costs hash probes that depend on the length of host and path and on the depth of the patterns, not on
//! the number of routes. Only regexes are tried one by one, after everything else on their host.
//!
//! Hashes are seeded at random, since clients choose what is hashed.

mod captures;
mod condition;
mod hosts;
mod matcher;
mod pattern;
mod tree;

pub use captures::Captures;
pub use condition::{
    HeaderCondition, ListenerSet, Lookup, MethodSet, QueryCondition, ValueMatch, query_names, query_value,
    query_values, replace_query_values,
};
pub use matcher::{Found, RouteSpec, Router, RouterBuilder};
pub use pattern::{PathPattern, PathRegex, PathSpec, PatternError};
