//! Stores that several machines share.
//!
//! 1. A store is a handle that is made without connecting. The first command connects; a connection that is lost is
//!    made anew by the next command.
//! 2. Every command has a deadline, the time to connect included. Connecting itself goes on in a task of its own, so
//!    that a deadline which is too short to connect within does not keep it from ever coming about.
//! 3. While a server cannot be reached commands fail at once, but for one try now and then.
//! 4. A handle is adopted by what it means (URL, timeout, authorities): a reload does not connect anew.
//! 5. No message has a part of the URL but host and port, nor anything that was sent.

mod error;
mod line;
mod redis;
mod server;

pub use error::Error;
pub use redis::Redis;
pub use server::{Server, Unusable};
