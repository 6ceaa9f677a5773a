//! Which attempts are made again. Whether one *can* be is for the proxy to say: whether an answer has begun, whether the
//! body is still at hand.

use std::time::Duration;

use http::Method;

use super::backoff::Backoff;

/// Which attempts are made again, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RetryPolicy {
    /// The most attempts after the first.
    pub max_retries: u32,
    /// After what.
    pub on: Causes,
    /// Methods that may be sent twice.
    pub methods: Methods,
    /// The pause before each.
    pub backoff: Backoff,
    /// The longest `Retry-After` that is waited for.
    pub max_retry_after: Duration,
    /// The longest request body, in bytes, that is kept to be sent again.
    pub max_body: u64,
}

/// After what an attempt is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection was made.
    ConnectFailure,
    /// The connection broke.
    Reset,
    /// The response head did not come in time.
    Timeout,
    /// An answer of this status.
    Status(u16),
    /// A call's answer that is nothing but this status of gRPC.
    Grpc(u16),
}

/// A set of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Causes {
    connect_failure: bool,
    reset: bool,
    timeout: bool,
    statuses: [u64; 4],
    grpc: u32,
}

/// A set of methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Methods(u16);

/// Those that a set can hold: the ones that RFC 9110 and RFC 5789 define, but CONNECT.
const METHODS: [Method; 8] = [
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::TRACE,
    Method::PUT,
    Method::DELETE,
    Method::POST,
    Method::PATCH,
];

/// The first status that can be a cause.
const FIRST: u16 = 400;

impl RetryPolicy {
    /// No attempt is made again.
    pub const NEVER: Self = Self {
        max_retries: 0,
        on: Causes { connect_failure: false, reset: false, timeout: false, statuses: [0; 4], grpc: 0 },
        methods: Methods(0),
        backoff: Backoff::Fixed(Duration::ZERO),
        max_retry_after: Duration::ZERO,
        max_body: 0,
    };

    /// Whether an attempt that ended so is made again, after so many `retries`; `may_repeat` says that the request may be sent
    /// twice.
    pub fn wants(&self, cause: RetryOn, retries: u32, may_repeat: bool) -> bool {
        // Nothing was sent; or who names a status of gRPC speaks of calls, whose method says nothing.
        let harmless = matches!(cause, RetryOn::ConnectFailure | RetryOn::Grpc(_));
        retries < self.max_retries && (may_repeat || harmless) && self.on.contains(cause)
    }

    /// Whether a request may be sent again after some of it was: its body is kept until then.
    pub fn may_send_anew(&self, may_repeat: bool, is_call: bool) -> bool {
        let on = &self.on;
        let after_it_was_sent = on.reset || on.timeout || on.statuses != [0; 4];
        let wanted = may_repeat && after_it_was_sent || is_call && on.grpc != 0;
        self.max_retries > 0 && wanted
    }
}

impl Causes {
    /// Whether this is one.
    pub fn contains(&self, cause: RetryOn) -> bool {
        match cause {
            RetryOn::ConnectFailure => self.connect_failure,
            RetryOn::Reset => self.reset,
            RetryOn::Timeout => self.timeout,
            RetryOn::Status(status) => {
                place(status).is_some_and(|(word, bit)| self.statuses[word] & bit != 0)
            }
            RetryOn::Grpc(status) => bit(status).is_some_and(|bit| self.grpc & bit != 0),
        }
    }

    /// Makes this one.
    pub fn insert(&mut self, cause: RetryOn) {
        match cause {
            RetryOn::ConnectFailure => self.connect_failure = true,
            RetryOn::Reset => self.reset = true,
            RetryOn::Timeout => self.timeout = true,
            RetryOn::Status(status) => {
                if let Some((word, bit)) = place(status) {
                    self.statuses[word] |= bit;
                }
            }
            RetryOn::Grpc(status) => self.grpc |= bit(status).unwrap_or_default(),
        }
    }
}

impl FromIterator<RetryOn> for Causes {
    fn from_iter<I: IntoIterator<Item = RetryOn>>(causes: I) -> Self {
        let mut all = Self::default();
        causes.into_iter().for_each(|cause| all.insert(cause));
        all
    }
}

fn place(status: u16) -> Option<(usize, u64)> {
    let at = status.checked_sub(FIRST).filter(|at| *at < 200)?;
    Some((usize::from(at / 64), 1 << (at % 64)))
}

fn bit(status: u16) -> Option<u32> {
    1u32.checked_shl(u32::from(status))
}

impl Methods {
    /// Those that mean the same when they are repeated (RFC 9110, section 9.2.2).
    pub fn idempotent() -> Self {
        METHODS.iter().filter(|method| method.is_idempotent()).filter_map(Self::bit).fold(Self(0), Self::with)
    }

    /// With one more; `None` when a set cannot hold it.
    pub fn and(self, method: &Method) -> Option<Self> {
        Self::bit(method).map(|bit| self.with(bit))
    }

    /// Whether it is one of them.
    pub fn contains(self, method: &Method) -> bool {
        Self::bit(method).is_some_and(|bit| self.0 & bit != 0)
    }

    fn with(self, bit: u16) -> Self {
        Self(self.0 | bit)
    }

    fn bit(method: &Method) -> Option<u16> {
        METHODS.iter().position(|known| known == method).map(|at| 1 << at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(on: &[RetryOn]) -> RetryPolicy {
        RetryPolicy { max_retries: 2, on: on.iter().copied().collect(), ..RetryPolicy::NEVER }
    }

    #[test]
    fn what_may_have_been_done_is_not_done_twice() {
        let policy =
            policy(&[RetryOn::ConnectFailure, RetryOn::Reset, RetryOn::Status(503), RetryOn::Grpc(14)]);
        for (cause, harmless) in [
            (RetryOn::ConnectFailure, true),
            (RetryOn::Grpc(14), true),
            (RetryOn::Reset, false),
            (RetryOn::Status(503), false),
        ] {
            assert!(policy.wants(cause, 1, true) && !policy.wants(cause, 2, true), "{cause:?}");
            assert_eq!(policy.wants(cause, 0, false), harmless, "{cause:?}");
        }
        assert!(!policy.wants(RetryOn::Timeout, 0, true) && !policy.wants(RetryOn::Grpc(4), 0, true));
    }

    #[test]
    fn a_body_is_kept_where_its_request_may_be_sent_anew() {
        let row = |on: &[RetryOn]| {
            let policy = policy(on);
            [(true, false), (false, false), (false, true)]
                .map(|(may_repeat, is_call)| policy.may_send_anew(may_repeat, is_call))
        };
        assert_eq!(row(&[RetryOn::ConnectFailure]), [false; 3]);
        for on in [RetryOn::Reset, RetryOn::Timeout, RetryOn::Status(503)] {
            assert_eq!(row(&[on]), [true, false, false], "{on:?}");
        }
        assert_eq!(row(&[RetryOn::Grpc(14)]), [false, false, true]);
        let never = RetryPolicy { max_retries: 0, ..policy(&[RetryOn::Reset]) };
        assert!(!never.may_send_anew(true, true));
    }

    #[test]
    fn methods_that_may_be_repeated() {
        let idempotent = Methods::idempotent();
        for method in &METHODS {
            assert_eq!(idempotent.contains(method), method.is_idempotent(), "{method}");
        }
        assert!(idempotent.and(&Method::POST).unwrap().contains(&Method::POST));
        assert!(idempotent.and(&Method::CONNECT).is_none() && !idempotent.contains(&Method::CONNECT));
    }

    proptest! {
        #[test]
        fn a_set_of_statuses_has_what_was_put_in(put in prop::collection::vec(400u16..600, 0..20), asked in 0u16..1000) {
            let causes: Causes = put.iter().copied().map(RetryOn::Status).collect();
            prop_assert_eq!(causes.contains(RetryOn::Status(asked)), put.contains(&asked));
        }
    }
}
