//! What became of an attempt at an endpoint: one value, from which all else follows.
//!
//! Passive health, the breaker, retries, the latency estimate and the metrics each read it and nothing besides, so that they
//! cannot disagree.

use std::time::Duration;

use super::retry::RetryOn;

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// From its beginning to the response head, if there was one.
    pub to_head: Option<Duration>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// No connection was made.
    ConnectFailed,
    /// No connection was made in time.
    ConnectTimeout,
    /// The two sides did not come to speak TLS.
    TlsFailed,
    /// The connection broke.
    Reset,
    /// The endpoint was silent for too long.
    ReadTimeout,
    /// The attempt had its time (`per_try`) and the endpoint's head was not there.
    TryTimeout,
    /// The endpoint took nothing for too long.
    WriteTimeout,
    /// What it sent is no answer.
    Invalid,
    /// It had no room for another stream, and has not looked at the request (RFC 9113, section 8.7).
    Refused,
    /// A pooled connection had been closed by the time that it was used.
    Stale,
    /// The client left, or the gateway gave up by no fault of the endpoint.
    Aborted,
    /// It was given up when it had waited so long, as the other attempt of a hedged request was answered: this one would have
    /// taken longer.
    Outrun(Waited),
    /// With an answer, of this status, and of this status of gRPC if it is a call's.
    Answered(u16, Option<u16>),
}

/// How long an attempt waited that was given up for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited {
    /// From its beginning.
    pub time: Duration,
    /// Whether it had its time, by the measure of hedges.
    pub long: bool,
}

/// How an attempt counts against its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It went well.
    Success,
    /// It failed by the endpoint's fault.
    Failure,
    /// It tells neither of the endpoint: the client left, or a pooled connection was stale.
    Neutral,
}

/// The statuses of gRPC that tell of a server in trouble: INTERNAL, UNAVAILABLE, DATA_LOSS. The others speak of the call.
const GRPC_FAILURES: [u16; 3] = [13, 14, 15];

impl End {
    /// How it counts against the endpoint.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Stale | Self::Refused | Self::Aborted | Self::Outrun(_) => Verdict::Neutral,
            Self::Answered(500.., _) => Verdict::Failure,
            Self::Answered(_, Some(status)) if GRPC_FAILURES.contains(&status) => Verdict::Failure,
            Self::Answered(..) => Verdict::Success,
            _ => Verdict::Failure,
        }
    }

    /// The word for it in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::TlsFailed => "tls_failed",
            Self::Reset => "reset",
            Self::ReadTimeout => "read_timeout",
            Self::TryTimeout => "try_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Invalid => "invalid_response",
            Self::Refused => "refused",
            Self::Stale => "stale_connection",
            Self::Aborted => "aborted",
            Self::Outrun(_) => "outrun",
            Self::Answered(..) if self.verdict() == Verdict::Failure => "server_error",
            Self::Answered(..) => "success",
        }
    }

    /// What a retry policy calls it, before an answer has begun.
    pub fn cause(self) -> Option<RetryOn> {
        match self {
            Self::ConnectFailed | Self::ConnectTimeout | Self::TlsFailed => Some(RetryOn::ConnectFailure),
            Self::Reset => Some(RetryOn::Reset),
            Self::ReadTimeout | Self::WriteTimeout | Self::TryTimeout => Some(RetryOn::Timeout),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_endpoints_fault_is_not_held_against_it() {
        let outrun = End::Outrun(Waited { time: Duration::from_secs(9), long: true });
        for end in [End::Stale, End::Refused, End::Aborted, outrun] {
            assert_eq!(end.verdict(), Verdict::Neutral);
        }
        for end in [End::Answered(404, None), End::Answered(200, Some(5)), End::Answered(101, None)] {
            assert_eq!((end.verdict(), end.word()), (Verdict::Success, "success"));
        }
        for end in [End::Answered(503, None), End::Answered(200, Some(14))] {
            assert_eq!((end.verdict(), end.word()), (Verdict::Failure, "server_error"));
        }
        assert_eq!(End::ConnectTimeout.verdict(), Verdict::Failure);
    }
}
