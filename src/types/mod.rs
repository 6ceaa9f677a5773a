//! Values that are parsed once, at the door, and trusted ever after. This room imports nothing.

mod byte_rate;
mod cidr;
mod duration;
mod host;
mod listen_address;
mod media;
mod memory_mark;
mod path;
mod peer;
mod percent;
mod rate;
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
pub use path::{NormalPath, PathError};
pub use peer::Peer;
pub use percent::Percent;
pub use rate::Rate;
pub use secret::{CREDENTIAL_FIELDS, CredentialFields, MASK, Secret};
pub use selector::Selector;
pub use size::ByteSize;
pub use trust::{Trust, TrustedProxy};
