//! The strict reader of raw HTTP/1.x requests, in front of a lenient one. Pure: no I/O, no clock.
//!
//! 1. Every head passes [`head`] as raw bytes before the proxy engine parses it; every body passes [`framing`].
//! 2. What the guard lets through has exactly one reading. What could be read in two ways is refused, never
//!    repaired: a repaired request is one that the gateway and the upstream may understand differently.
//! 3. A refusal is one [`Refusal`], with the status, the reason code and the sentence the client may see.
//! 4. The meaning of a path (dot segments, encoded slashes) is the router's business, not the guard's.

mod authority;
mod field;
mod origin_form;
mod request_line;
mod semantics;

pub mod framing;
pub mod head;
pub mod refusal;

pub use framing::{BodyFraming, BodyScanner, Fed};
pub use head::{Head, HeadLimits, HeadScanner, Progress};
pub use origin_form::in_origin_form;
pub use refusal::Refusal;
pub use request_line::{TargetForm, Version};
