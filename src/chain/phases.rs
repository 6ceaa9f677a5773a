//! When a filter runs: its stage orders it among others, its phases say which hooks it has.

use std::fmt;
use std::ops::BitOr;

/// Where in the chain a filter belongs. Filters run in the order of their stages, then as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Sees everything, decides nothing.
    Observe,
    /// Who may come in at all, before anyone is asked for a name.
    Admit,
    /// Who it is.
    Authenticate,
    /// What they may do.
    Authorize,
    /// How much of it.
    Limit,
    /// Whether what they send is sound.
    Validate,
    /// Where it goes, and under what name.
    Route,
    /// In what shape.
    Transform,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 8] = [
        Self::Observe,
        Self::Admit,
        Self::Authenticate,
        Self::Authorize,
        Self::Limit,
        Self::Validate,
        Self::Route,
        Self::Transform,
    ];

    /// The stage's name, as shown by `explain` and the reference.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Admit => "admit",
            Self::Authenticate => "authenticate",
            Self::Authorize => "authorize",
            Self::Limit => "limit",
            Self::Validate => "validate",
            Self::Route => "route",
            Self::Transform => "transform",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases(u8);

impl Phases {
    /// No hook at all.
    pub const NONE: Self = Self(0);
    /// [`Filter::request`](super::Filter::request).
    pub const REQUEST: Self = Self(1);
    /// [`Filter::request_wait`](super::Filter::request_wait).
    pub const REQUEST_WAIT: Self = Self(1 << 1);
    /// [`Filter::upstream_request`](super::Filter::upstream_request).
    pub const UPSTREAM_REQUEST: Self = Self(1 << 2);
    /// [`Filter::request_body`](super::Filter::request_body).
    pub const REQUEST_BODY: Self = Self(1 << 3);
    /// [`Filter::response`](super::Filter::response).
    pub const RESPONSE: Self = Self(1 << 4);
    /// [`Filter::response_body`](super::Filter::response_body).
    pub const RESPONSE_BODY: Self = Self(1 << 5);
    /// [`Filter::response_trailers`](super::Filter::response_trailers).
    pub const RESPONSE_TRAILERS: Self = Self(1 << 6);
    /// [`Filter::log`](super::Filter::log).
    pub const LOG: Self = Self(1 << 7);

    /// Every hook, with its name.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::REQUEST, "request"),
        (Self::REQUEST_WAIT, "request_wait"),
        (Self::UPSTREAM_REQUEST, "upstream_request"),
        (Self::REQUEST_BODY, "request_body"),
        (Self::RESPONSE, "response"),
        (Self::RESPONSE_BODY, "response_body"),
        (Self::RESPONSE_TRAILERS, "response_trailers"),
        (Self::LOG, "log"),
    ];

    /// The hooks that run before there is a response.
    pub const BEFORE_RESPONSE: Self =
        Self(Self::REQUEST.0 | Self::REQUEST_WAIT.0 | Self::UPSTREAM_REQUEST.0 | Self::REQUEST_BODY.0);

    /// Whether any hook of `other` is in this set.
    pub const fn touches(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether every hook of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of the hooks in this set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().filter(move |(phase, _)| self.contains(*phase)).map(|(_, name)| name)
    }
}

impl BitOr for Phases {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
