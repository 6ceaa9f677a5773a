//! Accepting connections, as many as allowed.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_limits::inflight::{Guard, Inflight};

use super::transport::{Ends, Listener, Transport};

/// How long to wait after an accept that failed for want of something (descriptors, memory).
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Counts the connections of one listener, in all and by address.
pub struct Caps {
    open: Arc<AtomicUsize>,
    by_address: Inflight,
}

/// A place taken by a connection.
pub struct Place {
    open: Arc<AtomicUsize>,
}

/// A place among the connections of one address.
pub struct Share(#[allow(dead_code, reason = "held for its drop")] Guard);

/// Why a connection has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The listener has as many connections as it may.
    Listener,
    /// This address has as many connections as it may.
    Address,
}

impl Full {
    /// The reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Listener => "too_many_connections",
            Self::Address => "too_many_connections_from_address",
        }
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self { open: Arc::default(), by_address: Inflight::new() }
    }
}

impl Caps {
    /// Takes a place, if there is one.
    pub fn take(&self, most: usize) -> Result<Place, Full> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Listener);
        }
        Ok(Place { open: Arc::clone(&self.open) })
    }

    /// Takes a place among those of `ip`, if there is one.
    ///
    /// Addresses are counted by an estimate that never counts too few; with many thousand addresses at once it may
    /// count a few too many.
    pub fn share(&self, ip: IpAddr, most: usize) -> Result<Share, Full> {
        let (share, count) = self.by_address.incr(counted_as(ip), 1);
        if count > isize::try_from(most).unwrap_or(isize::MAX) {
            return Err(Full::Address);
        }
        Ok(Share(share))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One IPv6 subscriber has a /64.
fn counted_as(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// Accepts one connection, however long it takes. Failures of a connection are passed over; a want of descriptors
/// or memory is waited out.
pub async fn accept(listener: &Listener, name: &str) -> (Transport, Ends) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                log::error!("listener {name}: cannot accept: {error}");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_and_given_back() {
        let caps = Caps::default();
        let ip = "192.0.2.1".parse().unwrap();
        let share = caps.share(ip, 1).unwrap();
        assert_eq!(caps.share(ip, 1).err(), Some(Full::Address));
        assert_eq!(caps.share("::ffff:192.0.2.1".parse().unwrap(), 1).err(), Some(Full::Address));
        assert!(caps.share("192.0.2.2".parse().unwrap(), 1).is_ok());
        drop(share);
        assert!(caps.share(ip, 1).is_ok());
        let (first, _second) = (caps.take(2).unwrap(), caps.take(2).unwrap());
        assert_eq!(caps.take(2).err(), Some(Full::Listener));
        drop(first);
        assert!(caps.take(2).is_ok());
        assert_eq!(caps.open.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_slash_64_counts_as_one() {
        let caps = Caps::default();
        let _first = caps.share("2001:db8::1".parse().unwrap(), 1).unwrap();
        assert!(caps.share("2001:db8::2".parse().unwrap(), 1).is_err());
        assert!(caps.share("2001:db8:0:1::1".parse().unwrap(), 1).is_ok());
    }
}
