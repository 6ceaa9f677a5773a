//! Where `portcullis upgrade` asks for an upgrade: a Unix socket, for its owner alone.
//!
//! 1. The socket is bound under a name of its own before anything is served, so that a path that cannot be used keeps
//!    the process from starting, and takes its place under the configured name only when this process serves. What
//!    stood there (the socket of an older process, or of one that crashed) goes.
//! 2. Whoever may write to the socket may upgrade. Its mode is set before it is bound: there is no moment in which
//!    others could connect.
//! 3. It is removed at the end, unless a newer process has put its own in its place.

use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::life::{Command, Commands};

/// How long someone who connected may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait after an accept that failed for want of something (descriptors, memory).
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// Those who may wait to be heard.
const BACKLOG: i32 = 16;

/// The socket of this process.
pub(super) struct UpgradeSocket {
    path: PathBuf,
    /// Where it is bound until it is published.
    fresh: PathBuf,
    /// Device and inode: whether what stands at `path` is ours.
    identity: (u64, u64),
    listener: UnixListener,
}

/// Someone who asked for an upgrade and waits for its outcome.
#[derive(Debug)]
pub struct Asker(tokio::net::UnixStream);

impl UpgradeSocket {
    /// Binds a socket, not yet under its name. A missing folder is made, for its owner alone.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) =
            path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        {
            DirBuilder::new().mode(0o700).create(folder)?;
        }
        if path.is_dir() {
            // What only the last step would find out, when clients are being served.
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{}", std::process::id()));
        let fresh = path.with_file_name(name);
        // Left by a process that had this number and did not get far.
        let _ = fs::remove_file(&fresh);
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        // The file gets the mode of the socket (Linux).
        fchmod(socket.as_fd(), Mode::RUSR | Mode::WUSR)?;
        bind(&socket, &SocketAddrUnix::new(&fresh)?)?;
        listen(&socket, BACKLOG)?;
        let identity = identity(&fresh)?;
        Ok(Self { path: path.to_owned(), fresh, identity, listener: UnixListener::from(socket) })
    }

    /// Puts the socket under its name and passes on what is asked there. Needs a runtime.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn publish(&self, commands: &Commands) -> io::Result<()> {
        let listener = tokio::net::UnixListener::from_std(self.listener.try_clone()?)?;
        fs::rename(&self.fresh, &self.path)?;
        tokio::spawn(accept(listener, commands.clone()));
        Ok(())
    }

    /// The configured path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UpgradeSocket {
    fn drop(&mut self) {
        for path in [&self.fresh, &self.path] {
            if identity(path).is_ok_and(|found| found == self.identity) {
                // What cannot be removed is refused by the next who asks: nobody listens.
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|data| (data.dev(), data.ino()))
}

async fn accept(listener: tokio::net::UnixListener, commands: Commands) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(hear(stream, commands.clone()))),
            Err(error) => {
                log::error!("upgrade socket: cannot accept: {error}");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

async fn hear(stream: tokio::net::UnixStream, commands: Commands) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let read = async { (&mut stream).take(16).read_line(&mut line).await };
    let read = tokio::time::timeout(PATIENCE, read).await;
    if matches!(read, Ok(Ok(_))) && line == "upgrade\n" {
        commands.send(Command::Upgrade(Some(Asker(stream.into_inner()))));
    }
}

impl Asker {
    /// Tells the outcome: the new process's id, or why there is none.
    pub(super) async fn tell(mut self, outcome: &Result<u32, String>) {
        let words = match outcome {
            Ok(pid) => format!("ok {pid}\n"),
            Err(message) => format!("error {message}\n"),
        };
        // Who asked may have gone; the log says the same.
        let _ = tokio::time::timeout(PATIENCE, self.0.write_all(words.as_bytes())).await;
    }
}

/// Asks the process that listens at `path` to upgrade. Returns the new process's id.
///
/// # Errors
///
/// Why it did not; the old process goes on then.
pub fn ask(path: &Path) -> Result<u32, String> {
    let failed = |error| format!("no gateway listens at {}: {error}", path.display());
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream.write_all(b"upgrade\n").map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    match answer.trim_end().split_once(' ') {
        Some(("ok", pid)) => pid.parse().map_err(|_| format!("unknown answer: {answer}")),
        Some(("error", message)) => Err(message.to_owned()),
        _ if answer.is_empty() => Err("the gateway ended before it answered".into()),
        _ => Err(format!("unknown answer: {answer}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn it_is_for_its_owner_alone_from_the_start_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/upgrade.sock");
        let socket = UpgradeSocket::bind(&path).unwrap();
        assert_eq!((mode(&socket.fresh), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(!path.exists());
        drop(socket);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn it_takes_the_place_of_a_stale_one_and_goes_with_its_process_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade.sock");
        drop(UnixListener::bind(&path).unwrap());
        let commands = Commands::default();
        let first = UpgradeSocket::bind(&path).unwrap();
        first.publish(&commands).unwrap();
        assert_eq!(mode(&path), 0o600);
        let second = UpgradeSocket::bind(&path).unwrap();
        second.publish(&commands).unwrap();
        drop(first);
        assert!(path.exists(), "the second one's");
        drop(second);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_path_that_cannot_be_used_is_an_error() {
        assert!(UpgradeSocket::bind(Path::new("/proc/none/upgrade.sock")).is_err());
        assert!(UpgradeSocket::bind(Path::new("/")).is_err());
        assert!(UpgradeSocket::bind(&Path::new("/tmp").join("x".repeat(200))).is_err());
    }
}
