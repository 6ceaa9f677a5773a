//! Listening sockets: bound here, or handed over by an older process.
//!
//! The file of a Unix socket takes the place of one that nobody listens at any more, and of nothing else. It is removed at
//! the end, unless a newer process listens at it by then.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt,
};

use super::StartError;
use super::frame::Frame;
use crate::edge::Listener;
use crate::types::ListenAddress;

/// The name under which the admin listener's socket is handed over; no listener can be called so.
const ADMIN: &str = " admin";
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Everyone may connect, as to a port: who shall not is kept out by the folder.
const MODE: u32 = 0o666;

/// Listening sockets by the names of their listeners.
#[derive(Debug, Default)]
pub(super) struct Sockets(Vec<Bound>);

/// The socket of one listener.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) name: String,
    /// The address as configured; port 0 stays 0 here.
    wanted: ListenAddress,
    socket: OwnedFd,
    /// The file of a Unix socket, told by device and inode.
    file: Option<(u64, u64)>,
}

impl Sockets {
    /// One socket for each listener: the inherited one with its name and address, or a new one.
    pub(super) fn bind(frame: &Frame, mut inherited: Self) -> Result<Self, StartError> {
        let listeners = frame.listeners.iter().map(|(name, address)| (name.as_str(), address.clone()));
        let admin = frame.admin.iter().map(|admin| (ADMIN, admin.address.into()));
        let bound = listeners.chain(admin).map(|(name, address)| {
            let socket = match inherited.take(name, &address) {
                Some(socket) => socket,
                None => open(&address).map_err(|error| failed(name, &address, error))?,
            };
            Ok(Bound::new(name, address, socket))
        });
        bound.collect::<Result<_, _>>().map(Self)
    }

    /// Sockets that came from an older process.
    pub(super) fn inherited(sockets: Vec<(String, ListenAddress, OwnedFd)>) -> Self {
        Self(sockets.into_iter().map(|(name, wanted, socket)| Bound::new(&name, wanted, socket)).collect())
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
    pub(super) fn addresses(&self) -> Vec<(String, ListenAddress)> {
        let public = self.0.iter().filter(|bound| bound.name != ADMIN);
        public.filter_map(|bound| Some((bound.name.clone(), bound.address()?))).collect()
    }

    /// The admin listener's address as it is.
    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        self.0.iter().find(|bound| bound.name == ADMIN)?.address()?.tcp()
    }

    /// Names, configured addresses and sockets, to hand over.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &ListenAddress, &OwnedFd)> {
        self.0.iter().map(|bound| (bound.name.as_str(), &bound.wanted, &bound.socket))
    }

    /// Removes the files of Unix sockets, those that are still ours.
    pub(super) fn remove_files(&self) {
        for bound in &self.0 {
            if let Some(path) =
                bound.wanted.unix().filter(|path| bound.file.is_some() && bound.file == file(path))
                && let Err(error) = fs::remove_file(path)
            {
                // Whoever comes next finds that nobody listens, and takes its place.
                log::warn!("cannot remove {}: {error}", bound.wanted);
            }
        }
    }

    /// By address first: a listener that was renamed keeps its socket. Port 0 is told apart by name.
    fn take(&mut self, name: &str, address: &ListenAddress) -> Option<OwnedFd> {
        let same = |bound: &Bound| bound.wanted == *address && (address.is_certain() || bound.name == name);
        let at = self.0.iter().position(same)?;
        Some(self.0.swap_remove(at).socket)
    }
}

impl Bound {
    fn new(name: &str, wanted: ListenAddress, socket: OwnedFd) -> Self {
        let file = wanted.unix().and_then(file);
        Self { name: name.to_owned(), wanted, socket, file }
    }

    /// Hands the socket to the runtime, in whose context this is called.
    ///
    /// # Errors
    ///
    /// When it cannot be waited at: a descriptor that was handed over may be anything.
    pub(super) fn register(self) -> Result<Listener, StartError> {
        let Self { name, wanted, socket, .. } = self;
        let listener = match &wanted {
            ListenAddress::Tcp(_) => Listener::tcp(socket),
            ListenAddress::Unix(_) => Listener::unix(socket),
        };
        listener.map_err(|error| failed(&name, &wanted, error))
    }

    /// The same, for a listener that is always TCP.
    ///
    /// # Errors
    ///
    /// As for [`register`](Self::register).
    pub(super) fn register_tcp(self) -> Result<tokio::net::TcpListener, StartError> {
        let Self { name, wanted, socket, .. } = self;
        tokio::net::TcpListener::from_std(socket.into()).map_err(|error| failed(&name, &wanted, error))
    }

    /// The address as it is.
    fn address(&self) -> Option<ListenAddress> {
        match &self.wanted {
            ListenAddress::Tcp(_) => {
                let socket = self.socket.try_clone().ok()?;
                TcpListener::from(socket).local_addr().ok().map(ListenAddress::Tcp)
            }
            ListenAddress::Unix(_) => Some(self.wanted.clone()),
        }
    }

    fn again(&self) -> Result<Self, StartError> {
        let socket = self.socket.try_clone().map_err(|error| failed(&self.name, &self.wanted, error))?;
        Ok(Self { name: self.name.clone(), wanted: self.wanted.clone(), socket, file: self.file })
    }
}

fn failed(name: &str, address: &ListenAddress, error: io::Error) -> StartError {
    StartError::Bind { name: name.trim().to_owned(), address: address.clone(), error }
}

fn open(address: &ListenAddress) -> io::Result<OwnedFd> {
    match address {
        ListenAddress::Tcp(address) => Ok(open_tcp(*address)?),
        ListenAddress::Unix(path) => open_unix(path),
    }
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

fn open_tcp(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, FLAGS, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn open_unix(path: &Path) -> io::Result<OwnedFd> {
    make_room(path)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Removes a socket that nobody listens at.
fn make_room(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

fn file(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|data| (data.dev(), data.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str, address: &ListenAddress) -> Frame {
        let mut frame = Frame::new(&crate::config::Config::default());
        frame.listeners.push((name.into(), address.clone()));
        frame
    }

    #[test]
    fn an_inherited_socket_is_used_and_the_rest_bound() {
        let socket = open_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = TcpListener::from(socket);
        let address = ListenAddress::Tcp(listener.local_addr().unwrap());
        let taken = Sockets::bind(&frame("web", &address), Sockets::default());
        assert!(matches!(taken, Err(StartError::Bind { .. })), "the address is taken");
        let inherited = Sockets::inherited(vec![("old".into(), address.clone(), listener.into())]);
        let sockets = Sockets::bind(&frame("renamed", &address), inherited).unwrap();
        assert_eq!(sockets.addresses(), [("renamed".to_owned(), address)]);
    }

    #[test]
    fn the_socket_of_a_dead_process_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let address = ListenAddress::Unix(path.clone());
        let bound = || Sockets::bind(&frame("web", &address), Sockets::default());
        let refusal = || bound().map(drop).unwrap_err().to_string();

        let living = bound().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(refusal().ends_with("another process listens there"), "{}", refusal());
        drop(living);
        assert!(path.exists(), "as a process that was killed leaves it");
        let next = bound().unwrap();
        next.remove_files();
        assert!(!path.exists());

        fs::write(&path, "precious").unwrap();
        assert!(refusal().ends_with("there is a file that is no socket"), "{}", refusal());
        assert!(refusal().contains(&format!("cannot listen on unix:{}", path.display())));
        next.remove_files();
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious", "it is not ours");
    }
}
