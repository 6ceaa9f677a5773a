//! The strict reader of requests, in front of a lenient one. Pure: no I/O, no clock.
//!
//! 1. Every head passes [`head`] as raw bytes before the proxy engine parses it; every body passes [`framing`].
//! 2. What the guard lets through has exactly one reading. What could be read in two ways is refused, never
//!    repaired: a repaired request is one that the gateway and the upstream may understand differently.
//! 3. A refusal is one [`Refusal`], with the status, the reason code and the sentence the client may see.
//! 4. An HTTP/2 head, which a library takes apart, passes [`http2`] and leaves in the form of HTTP/1.1.
//! 5. The meaning of a path (dot segments, encoded slashes) is the router's business, not the guard's.

mod authority;
mod field;
mod origin_form;
mod request_line;
mod semantics;

pub mod framing;
pub mod head;
pub mod http2;
pub mod refusal;

pub use framing::{BodyFraming, BodyScanner, Fed};
pub use head::{Head, HeadLimits, HeadScanner, Progress};
pub use origin_form::in_origin_form;
pub use refusal::Refusal;
pub use request_line::{TargetForm, Version};
