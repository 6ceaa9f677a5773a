//! Handing the listening sockets to a new process, with no way back only once the new one serves.
//!
//! 1. Told to (SIGUSR2, or `portcullis upgrade` over the upgrade socket), the old process starts its own program
//!    file again, with the same arguments. The new process's standard input is one end of a socket pair.
//! 2. Over it go the names and addresses of the listeners, with their sockets beside them (`SCM_RIGHTS`), and the keys
//!    of their TLS tickets, so that clients resume their sessions with the new process; and of upstreams the keys of sticky
//!    cookies that nobody configured, and what an operator has changed of their endpoints.
//! 3. The new process reads its configuration, binds what is new to it, starts, and says `ready`; or says why not.
//! 4. Only then does the old one drain. Whatever goes wrong before (a bad configuration, an address in use, a crash,
//!    no word in time) ends the new process and leaves the old one serving as if nothing had been.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::StartError;
use super::sockets::Sockets;
use crate::snapshot::Snapshot;
use crate::tls::TicketKey;
use crate::types::ListenAddress;
use crate::upstream::Handed;

/// Set in the new process's environment: its standard input is the handover.
const MARK: &str = "PORTCULLIS_HANDOVER";
const READY: &[u8] = b"ready\n";
/// Goes before the reason of a new process that will not serve.
const REFUSED: &str = "refused ";
/// The longest reason that is listened to.
const LONGEST: usize = 256 << 10;
/// How often the old process looks whether the new one is still there, and whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// How long a process that closed the handover may take to end.
const LAST_MOMENTS: Duration = Duration::from_secs(1);
/// How long a new process may leave what is handed over unread.
const LONGEST_WRITE: Duration = Duration::from_secs(5);
/// The most bytes of words that are handed over.
const LONGEST_WORDS: usize = 16 << 20;
/// The kernel passes at most 253 descriptors in one message.
const MOST: usize = 253;

/// What is said of each socket, in their order.
#[derive(Serialize, Deserialize)]
struct Passed {
    name: String,
    address: ListenAddress,
    /// The keys of its TLS tickets. Older releases neither send nor read them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tickets: Vec<TicketKey>,
    /// What is known of upstreams. It stands with the first socket: older releases read a list of sockets, and skip what they
    /// do not know of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstreams: Option<Value>,
}

/// What is known of upstreams, by their names.
#[derive(Serialize, Deserialize)]
struct Upstreams {
    version: u32,
    by_name: BTreeMap<String, Value>,
}

/// Of [`Upstreams`]: what has another is left out.
const VERSION: u32 = 1;

/// The keys of TLS tickets by listener.
pub(super) type TicketKeys = BTreeMap<String, Vec<TicketKey>>;

/// What an older process leaves to this one.
#[derive(Default)]
pub(super) struct Inheritance {
    pub(super) sockets: Sockets,
    pub(super) tickets: TicketKeys,
    pub(super) upstreams: BTreeMap<String, Handed>,
}

/// The older process, seen from the new one: it waits for a word.
pub(super) struct Predecessor(UnixStream);

impl Predecessor {
    /// The older process that started this one to take over, and what it leaves.
    pub(super) fn inherited() -> Result<Option<(Self, Inheritance)>, StartError> {
        if std::env::var_os(MARK).is_none() {
            return Ok(None);
        }
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(StartError::Handover)?;
        let channel = UnixStream::from(input);
        let inheritance = receive(&channel).map_err(StartError::Handover)?;
        Ok(Some((Self(channel), inheritance)))
    }

    /// Says that this process serves.
    pub(super) fn ready(&self) {
        if let Err(error) = (&self.0).write_all(READY) {
            log::warn!("the older process did not hear that this one is ready: {error}");
        }
    }

    /// Says why this process will not serve. An older process that is gone has no use for it.
    pub(super) fn refuse(&self, error: &StartError) {
        let _ = (&self.0).write_all(format!("{REFUSED}{error}").as_bytes());
    }
}

/// An upgrade under way.
pub(super) struct Upgrade {
    cancelled: Arc<AtomicBool>,
    task: JoinHandle<Result<Child, String>>,
}

impl Upgrade {
    /// Starts a new process, which has so long to be ready.
    pub(super) fn start(sockets: &Sockets, snapshot: &Snapshot, patience: Duration) -> Result<Self, String> {
        let tickets = |name: &str| {
            let listener = snapshot.listeners.iter().find(|listener| *listener.name == *name);
            listener.and_then(|listener| Some(listener.tls.as_ref()?.ticket_keys())).unwrap_or_default()
        };
        let passed = |(name, address, _): (&str, &ListenAddress, _)| Passed {
            name: name.to_owned(),
            address: address.clone(),
            tickets: tickets(name),
            upstreams: None,
        };
        let mut passed: Vec<Passed> = sockets.iter().map(passed).collect();
        if let Some(first) = passed.first_mut() {
            first.upstreams = upstreams(snapshot);
        }
        let descriptors: Result<Vec<OwnedFd>, _> =
            sockets.iter().map(|(_, _, socket)| socket.as_fd().try_clone_to_owned()).collect();
        let descriptors = descriptors.map_err(|error| format!("cannot duplicate a socket: {error}"))?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&cancelled);
        let task = tokio::task::spawn_blocking(move || {
            let (ours, theirs) = UnixStream::pair().map_err(|error| format!("no socket pair: {error}"))?;
            let mut child = spawn(theirs)?;
            let taken = hand_over(&ours, &passed, &descriptors)
                .map_err(|error| instead(&[], &mut child, &error))
                .and_then(|()| wait(ours, &mut child, patience, &watched));
            match taken {
                Ok(()) => Ok(child),
                Err(message) => {
                    end(child);
                    Err(message)
                }
            }
        });
        Ok(Self { cancelled, task })
    }

    /// The new process, once it serves. May be asked again when the wait was given up.
    pub(super) async fn outcome(&mut self) -> Result<u32, String> {
        let child = (&mut self.task).await.map_err(|error| error.to_string())?;
        child.map(|child| child.id())
    }

    /// Ends the new process, even if it has just become ready.
    pub(super) async fn cancel(self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Ok(Ok(child)) = self.task.await {
            end(child);
        }
    }
}

/// What is known of upstreams; nothing where that is too much.
fn upstreams(snapshot: &Snapshot) -> Option<Value> {
    let handed = snapshot.upstreams.iter().map(|(name, upstream)| (name, upstream.hand_over()));
    let handed = handed.filter(|(_, handed)| !handed.is_empty());
    let by_name: BTreeMap<String, Value> = handed
        .filter_map(|(name, handed)| Some((name.to_string(), serde_json::to_value(handed).ok()?)))
        .collect();
    let words = (!by_name.is_empty()).then(|| serde_json::to_value(Upstreams { version: VERSION, by_name }));
    let words = words?.ok()?;
    // The sockets and their tickets have the other half.
    if words.to_string().len() > LONGEST_WORDS / 2 {
        log::warn!("changes to endpoints and keys of sticky cookies are too many to be handed over");
        return None;
    }
    Some(words)
}

/// The same, as an older process tells it. What is not understood is left out.
fn understood(words: Value) -> BTreeMap<String, Handed> {
    let known = Upstreams::deserialize(words).ok().filter(|upstreams| upstreams.version == VERSION);
    let by_name = known.map(|upstreams| upstreams.by_name).unwrap_or_default();
    by_name.into_iter().filter_map(|(name, words)| Some((name, Handed::deserialize(words).ok()?))).collect()
}

/// Ends a new process that does not serve, or is not to.
fn end(mut child: Child) {
    // Either fails only for a process that has ended and was waited for.
    let _ = child.kill();
    let _ = child.wait();
}

fn spawn(input: UnixStream) -> Result<Child, String> {
    let program = program().ok_or("the program file is not known")?;
    std::process::Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env(MARK, "stdin")
        .stdin(Stdio::from(OwnedFd::from(input)))
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))
}

/// The file this program was started from. By the path it was called by, if it was: behind a link there may be a
/// newer version by now. Else by what the system knows, which calls a file that was replaced deleted.
fn program() -> Option<PathBuf> {
    let called = std::env::args_os().next().map(PathBuf::from);
    if let Some(called) = called.filter(|called| called.components().count() > 1 && called.is_file()) {
        return Some(called);
    }
    let path = std::env::current_exe().ok()?;
    match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(path) => Some(Path::new(path).to_owned()),
        None => Some(path),
    }
}

fn hand_over(channel: &UnixStream, passed: &[Passed], sockets: &[OwnedFd]) -> io::Result<()> {
    if sockets.len() > MOST {
        return Err(io::Error::other(format!("more than {MOST} listeners cannot be handed over")));
    }
    let words = serde_json::to_vec(passed)?;
    let length = u32::try_from(words.len()).map_err(io::Error::other)?.to_be_bytes();
    let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::other("the sockets do not fit into one message"));
    }
    sendmsg(channel, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?;
    // The new process reads at once, or is none of ours.
    channel.set_write_timeout(Some(LONGEST_WRITE))?;
    let mut channel = channel;
    channel.write_all(&words)
}

fn receive(channel: &UnixStream) -> io::Result<Inheritance> {
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
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST_WORDS {
        return Err(io::Error::other("too much is handed over"));
    }
    let mut words = vec![0; length];
    let mut channel = channel;
    channel.read_exact(&mut words)?;
    let mut passed: Vec<Passed> = serde_json::from_slice(&words)?;
    if passed.len() != sockets.len() {
        return Err(io::Error::other("names and sockets do not match"));
    }
    let tickets = passed.iter().filter(|passed| !passed.tickets.is_empty());
    let tickets = tickets.map(|passed| (passed.name.clone(), passed.tickets.clone())).collect();
    let upstreams = passed.first_mut().and_then(|first| first.upstreams.take());
    let upstreams = upstreams.map(understood).unwrap_or_default();
    let sockets = passed.into_iter().zip(sockets);
    let sockets = sockets.map(|(passed, socket)| (passed.name, passed.address, socket)).collect();
    Ok(Inheritance { sockets: Sockets::inherited(sockets), tickets, upstreams })
}

/// Waits for the word that the new process serves. The error says what came instead.
fn wait(
    mut channel: UnixStream,
    child: &mut Child,
    patience: Duration,
    cancelled: &AtomicBool,
) -> Result<(), String> {
    let until = Instant::now() + patience;
    channel.set_read_timeout(Some(LOOK)).map_err(|error| error.to_string())?;
    let mut heard = Vec::new();
    let mut piece = [0; 4096];
    loop {
        // Asked before the read: what a process says before it ends is heard. Others may hold its channel open.
        let ended = child.try_wait().map_err(|error| error.to_string())?.is_some();
        match channel.read(&mut piece) {
            Ok(0) => return Err(instead(&heard, child, &"it closed the handover")),
            Ok(count) => heard.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if !is_nothing_yet(&error) || ended => return Err(instead(&heard, child, &error)),
            Err(_) => {}
        }
        if heard == READY {
            return Ok(());
        }
        if cancelled.load(Ordering::Relaxed) {
            return Err("the gateway is ending".into());
        }
        if Instant::now() >= until || heard.len() > LONGEST {
            return Err(format!("the new process was not ready within {patience:?}"));
        }
    }
}

fn is_nothing_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// What to say of a new process that is not going to be ready: its own words, how it ended, or else what was seen.
fn instead(heard: &[u8], child: &mut Child, seen: &dyn Display) -> String {
    let heard = String::from_utf8_lossy(heard);
    if let Some(reason) = heard.strip_prefix(REFUSED) {
        return format!("the new process refused to start: {reason}");
    }
    // A process closes its descriptors shortly before it has ended.
    let until = Instant::now() + LAST_MOMENTS;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return format!("the new process ended before it was ready: {status}"),
            Ok(None) if Instant::now() < until => std::thread::sleep(LOOK / 10),
            _ => return format!("the new process does not listen: {seen}"),
        }
    }
}
