//! Handing the listening sockets to a new process, with no way back only once the new one serves.
//!
//! 1. Told to (SIGUSR2, or `portcullis upgrade` over the upgrade socket), the old process starts its own program
//!    file again, with the same arguments. The new process's standard input is one end of a socket pair.
//! 2. Over it go the names and addresses of the listeners, with their sockets beside them (`SCM_RIGHTS`).
//! 3. The new process reads its configuration, binds what is new to it, starts, and says `ready`.
//! 4. Only then does the old one drain. Whatever goes wrong before (a bad configuration, an address in use, a crash,
//!    no word within a minute) ends the new process and leaves the old one serving as if nothing had been.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::StartError;
use super::life::{Command, Commands};
use super::sockets::Sockets;

/// Set in the new process's environment: its standard input is the handover.
const MARK: &str = "PORTCULLIS_HANDOVER";
const READY: &[u8] = b"ready";
/// How long the new process may take to serve.
const PATIENCE: Duration = Duration::from_secs(60);
/// The kernel passes at most 253 descriptors in one message.
const MOST: usize = 253;

/// What is said of each socket, in their order.
#[derive(Serialize, Deserialize)]
struct Passed {
    name: String,
    address: SocketAddr,
}

/// The new process's end: an older process waits at the other.
pub(super) struct Handover {
    channel: UnixStream,
    sockets: parking_lot::Mutex<Option<Vec<(String, SocketAddr, OwnedFd)>>>,
}

impl Handover {
    /// The handover on standard input, when an older process started this one.
    pub(super) fn inherited() -> Result<Option<Self>, StartError> {
        if std::env::var_os(MARK).is_none() {
            return Ok(None);
        }
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(StartError::Handover)?;
        let channel = UnixStream::from(input);
        let sockets = receive(&channel).map_err(StartError::Handover)?;
        Ok(Some(Self { channel, sockets: parking_lot::Mutex::new(Some(sockets)) }))
    }

    /// The sockets that were handed over; once.
    pub(super) fn sockets(&self) -> Result<Sockets, StartError> {
        let sockets = self.sockets.lock().take();
        sockets.map(Sockets::inherited).ok_or_else(|| StartError::Bug("sockets are taken once".into()))
    }

    /// Says that this process serves.
    pub(super) fn ready(mut self) {
        if let Err(error) = self.channel.write_all(READY) {
            log::warn!("the older process did not hear that this one is ready: {error}");
        }
    }
}

/// Starts a new process and hands over to it. Returns its process id once it serves.
pub(super) async fn upgrade(sockets: &Sockets) -> Result<u32, String> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| format!("no socket pair: {error}"))?;
    let passed: Vec<Passed> =
        sockets.iter().map(|(name, address, _)| Passed { name: name.to_owned(), address }).collect();
    let descriptors: Result<Vec<OwnedFd>, _> =
        sockets.iter().map(|(_, _, socket)| socket.as_fd().try_clone_to_owned()).collect();
    let descriptors = descriptors.map_err(|error| format!("cannot duplicate a socket: {error}"))?;
    let started = tokio::task::spawn_blocking(move || {
        let mut child = start(theirs)?;
        match hand_over(&ours, &passed, &descriptors).and_then(|()| wait(ours, &mut child)) {
            Ok(()) => Ok(child.id()),
            Err(message) => {
                // It is our own child, and it does not serve.
                let _ = child.kill();
                let _ = child.wait();
                Err(message)
            }
        }
    });
    started.await.map_err(|error| error.to_string())?
}

fn start(input: UnixStream) -> Result<Child, String> {
    let program = program().ok_or("the program file is not known")?;
    std::process::Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env(MARK, "stdin")
        .stdin(Stdio::from(OwnedFd::from(input)))
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))
}

/// The file this program was started from. A newer version has taken its place by now, which the system shows by
/// calling the old one deleted.
fn program() -> Option<std::path::PathBuf> {
    let path = std::env::current_exe().ok()?;
    match path.to_str()?.strip_suffix(" (deleted)") {
        Some(path) => Some(path.into()),
        None => Some(path),
    }
}

fn hand_over(channel: &UnixStream, passed: &[Passed], sockets: &[OwnedFd]) -> Result<(), String> {
    if sockets.len() > MOST {
        return Err(format!("{} listeners are more than the {MOST} that can be handed over", sockets.len()));
    }
    let words = serde_json::to_vec(passed).map_err(|error| error.to_string())?;
    let length = u32::try_from(words.len()).map_err(|error| error.to_string())?.to_be_bytes();
    let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err("the sockets do not fit into one message".into());
    }
    let failed = |error: io::Error| format!("the new process does not listen: {error}");
    sendmsg(channel, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)
        .map_err(|error| failed(error.into()))?;
    let mut channel = channel;
    channel.write_all(&words).map_err(failed)
}

fn receive(channel: &UnixStream) -> io::Result<Vec<(String, SocketAddr, OwnedFd)>> {
    let mut length = [0; 4];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(channel, &mut [IoSliceMut::new(&mut length)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes != length.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let sockets: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
            _ => None,
        })
        .flatten()
        .collect();
    let mut words = vec![0; u32::from_be_bytes(length) as usize];
    let mut channel = channel;
    channel.read_exact(&mut words)?;
    let passed: Vec<Passed> = serde_json::from_slice(&words)?;
    if passed.len() != sockets.len() {
        return Err(io::Error::other("names and sockets do not match"));
    }
    Ok(passed
        .into_iter()
        .zip(sockets)
        .map(|(passed, socket)| (passed.name, passed.address, socket))
        .collect())
}

/// Waits for the word that the new process serves.
fn wait(mut channel: UnixStream, child: &mut Child) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    let mut word = [0; READY.len()];
    let mut heard = 0;
    while heard < word.len() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("the new process was not ready within {PATIENCE:?}"));
        }
        channel.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        match channel.read(word.get_mut(heard..).unwrap_or_default()) {
            Ok(0) => {
                let status = child.wait().map_err(|error| error.to_string())?;
                return Err(format!(
                    "the new process ended before it was ready ({status}): its log says why"
                ));
            }
            Ok(n) => heard += n,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    if word == READY {
        Ok(())
    } else {
        Err("the new process said something else than that it is ready".into())
    }
}

/// Listens for `portcullis upgrade`. Whoever may write to the socket may upgrade: it is made for its owner alone.
pub(super) fn listen(path: &Path, commands: &Commands) {
    match open(path) {
        Ok(listener) => {
            let commands = commands.clone();
            tokio::spawn(answer(listener, commands));
        }
        Err(error) => log::error!("upgrade socket {}: {error}", path.display()),
    }
}

/// Puts a new socket in the place of the one that an older process may still have there.
fn open(path: &Path) -> io::Result<tokio::net::UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let fresh = path.with_extension(format!("{}", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

async fn answer(listener: tokio::net::UnixListener, commands: Commands) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    while let Ok((stream, _)) = listener.accept().await {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_line(&mut line)).await;
        if !matches!(read, Ok(Ok(_))) || line.trim() != "upgrade" {
            continue;
        }
        let (sender, outcome) = tokio::sync::oneshot::channel();
        commands.send(Command::Upgrade(Some(sender)));
        let words = match outcome.await {
            Ok(Ok(pid)) => format!("ok {pid}\n"),
            Ok(Err(message)) => format!("error {message}\n"),
            Err(_) => "error the gateway is ending\n".into(),
        };
        let _ = stream.get_mut().write_all(words.as_bytes()).await;
    }
}

/// Asks the process that listens at `path` to upgrade. Returns the new process's id.
///
/// # Errors
///
/// Why it did not; the old process goes on then.
pub fn ask(path: &Path) -> Result<u32, String> {
    let connect = |error| format!("no gateway listens at {}: {error}", path.display());
    let mut stream = UnixStream::connect(path).map_err(connect)?;
    stream.write_all(b"upgrade\n").map_err(connect)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(connect)?;
    match answer.trim().split_once(' ') {
        Some(("ok", pid)) => pid.parse().map_err(|_| format!("unknown answer: {answer}")),
        Some(("error", message)) => Err(message.to_owned()),
        _ => Err(format!("unknown answer: {answer}")),
    }
}
