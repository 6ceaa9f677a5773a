//! Values that are parsed once, at the door, and trusted ever after. This room imports nothing.

mod byte_rate;
mod cidr;
mod duration;
mod host;
mod listen_address;
mod media;
mod memory_mark;
mod moment;
mod path;
mod peer;
mod percent;
mod ranges;
mod rate;
mod retry_after;
mod secret;
mod selector;
mod size;
mod trust;

pub use byte_rate::ByteRate;
pub use cidr::Cidr;
pub use duration::Duration;
pub use host::{Host, HostError, HostPattern, HostPatternError, PlainAuthority};
pub use listen_address::ListenAddress;
pub use media::MediaRange;
pub use memory_mark::MemoryMark;
pub use moment::Moment;
pub use path::{NormalPath, PathError};
pub use peer::Peer;
pub use percent::Percent;
pub use ranges::Ranges;
pub use rate::Rate;
pub use retry_after::retry_after;
pub use secret::{CREDENTIAL_FIELDS, CredentialFields, MASK, Secret};
pub use selector::Selector;
pub use size::ByteSize;
pub use trust::{Trust, TrustedProxy};
