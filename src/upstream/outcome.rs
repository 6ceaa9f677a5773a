//! What became of an attempt.

/// How an attempt counts against the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint answered as it should.
    Success,
    /// The endpoint failed.
    Failure,
    /// It tells nothing of the endpoint: the client left, a stale connection.
    Neutral,
}
