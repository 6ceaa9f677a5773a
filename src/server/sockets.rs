//! Listening sockets: bound here, or handed over by an older process.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt};

use super::StartError;
use super::frame::Frame;

/// The name under which the admin listener's socket is handed over; no listener can be called so.
const ADMIN: &str = " admin";
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Listening sockets by the names of their listeners.
#[derive(Debug, Default)]
pub(super) struct Sockets(Vec<Bound>);

/// The socket of one listener.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) name: String,
    /// The address as configured; port 0 stays 0 here.
    wanted: SocketAddr,
    listener: TcpListener,
}

impl Sockets {
    /// One socket for each listener: the inherited one with its name and address, or a new one.
    pub(super) fn bind(frame: &Frame, mut inherited: Self) -> Result<Self, StartError> {
        let listeners = frame.listeners.iter().map(|(name, address)| (name.as_str(), *address));
        let admin = frame.admin.iter().map(|admin| (ADMIN, admin.address));
        let bound = listeners.chain(admin).map(|(name, address)| {
            let listener = match inherited.take(name, address) {
                Some(listener) => listener,
                None => open(address).map_err(|error| failed(name, address, error.into()))?,
            };
            Ok(Bound { name: name.to_owned(), wanted: address, listener })
        });
        bound.collect::<Result<_, _>>().map(Self)
    }

    /// Sockets that came from an older process.
    pub(super) fn inherited(sockets: Vec<(String, SocketAddr, OwnedFd)>) -> Self {
        let bound = |(name, wanted, fd)| Bound { name, wanted, listener: TcpListener::from(fd) };
        Self(sockets.into_iter().map(bound).collect())
    }

    /// Second handles to the listeners; the admin listener left out.
    pub(super) fn listeners(&self) -> impl Iterator<Item = Result<Bound, StartError>> {
        self.0.iter().filter(|bound| bound.name != ADMIN).map(Bound::again)
    }

    /// A second handle to the admin listener.
    pub(super) fn admin(&self) -> Result<Bound, StartError> {
        let admin = self.0.iter().find(|bound| bound.name == ADMIN);
        admin.ok_or_else(|| StartError::Bug("there is no admin listener".into()))?.again()
    }

    /// The addresses as they are, by listener name; the admin listener left out.
    pub(super) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let public = self.0.iter().filter(|bound| bound.name != ADMIN);
        public.filter_map(|bound| Some((bound.name.clone(), bound.listener.local_addr().ok()?))).collect()
    }

    /// The admin listener's address as it is.
    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        self.0.iter().find(|bound| bound.name == ADMIN)?.listener.local_addr().ok()
    }

    /// Names, configured addresses and sockets, to hand over.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, SocketAddr, &TcpListener)> {
        self.0.iter().map(|bound| (bound.name.as_str(), bound.wanted, &bound.listener))
    }

    /// By address first: a listener that was renamed keeps its socket. Port 0 is told apart by name.
    fn take(&mut self, name: &str, address: SocketAddr) -> Option<TcpListener> {
        let same = |bound: &Bound| bound.wanted == address && (address.port() != 0 || bound.name == name);
        let at = self.0.iter().position(same)?;
        Some(self.0.swap_remove(at).listener)
    }
}

impl Bound {
    /// Hands the socket to the runtime, in whose context this is called.
    ///
    /// # Errors
    ///
    /// When it cannot be waited at: a descriptor that was handed over may be anything.
    pub(super) fn register(self) -> Result<tokio::net::TcpListener, StartError> {
        let Self { name, wanted, listener } = self;
        tokio::net::TcpListener::from_std(listener).map_err(|error| failed(&name, wanted, error))
    }

    fn again(&self) -> Result<Self, StartError> {
        let listener = self.listener.try_clone().map_err(|error| failed(&self.name, self.wanted, error))?;
        Ok(Self { name: self.name.clone(), wanted: self.wanted, listener })
    }
}

fn failed(name: &str, address: SocketAddr, error: std::io::Error) -> StartError {
    StartError::Bind { name: name.trim().to_owned(), address, error }
}

fn open(address: SocketAddr) -> rustix::io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_socket_is_used_and_the_rest_bound() {
        let open = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = open.local_addr().unwrap();
        let frame = |name: &str| {
            let mut frame = Frame::new(&crate::config::Config::default());
            frame.listeners.push((name.into(), address));
            frame
        };
        let taken = Sockets::bind(&frame("web"), Sockets::default());
        assert!(matches!(taken, Err(StartError::Bind { .. })), "the address is taken");
        let inherited = Sockets::inherited(vec![("old".into(), address, OwnedFd::from(open))]);
        let sockets = Sockets::bind(&frame("renamed"), inherited).unwrap();
        assert_eq!(sockets.addresses(), [("renamed".to_owned(), address)]);
    }
}
