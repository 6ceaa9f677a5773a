//! Values that are parsed once, at the door, and trusted ever after. This room imports nothing.

mod cidr;
mod duration;
mod host;
mod media;
mod path;
mod percent;
mod secret;
mod size;

pub use cidr::Cidr;
pub use duration::Duration;
pub use host::{Host, HostError, HostPattern, HostPatternError, PlainAuthority};
pub use media::MediaRange;
pub use path::{NormalPath, PathError};
pub use percent::Percent;
pub use secret::{CREDENTIAL_FIELDS, CredentialFields, MASK, Secret};
pub use size::ByteSize;
