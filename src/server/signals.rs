//! The signals of the process, heard from its first moment: a reload that is asked for while a large configuration is
//! still being compiled must not end the process, as SIGHUP would by default.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::StartError;
use super::life::{Command, Commands};
use super::successors;

/// Passes the signals of this process on as commands, from a thread of its own.
///
/// # Errors
///
/// When signals cannot be listened to.
pub(super) fn forward(commands: &Commands) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(StartError::Thread)?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::new().map_err(StartError::Thread)?
    };
    let commands = commands.clone();
    let listen = move || {
        runtime.block_on(async {
            loop {
                let heard = signals.next().await;
                obey(heard, &commands);
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(StartError::Thread)?;
    Ok(())
}

fn obey(heard: SignalKind, commands: &Commands) {
    let command = command(heard);
    if commands.handed_over() {
        successors::tell(heard);
    }
    if matches!(command, Command::Shutdown) && !commands.are_obeyed() {
        // Nothing is served yet, and what is being started may hang: there is nothing to end gracefully.
        std::process::exit(0);
    }
    commands.send(command);
}

fn command(heard: SignalKind) -> Command {
    match heard {
        heard if heard == SignalKind::hangup() => Command::Reload,
        heard if heard == SignalKind::user_defined1() => Command::Reopen,
        heard if heard == SignalKind::user_defined2() => Command::Upgrade(None),
        _ => Command::Shutdown,
    }
}

/// What this process listens to. All of it is swallowed from here on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    reopen: Signal,
    upgrade: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.quit.recv() => SignalKind::quit(),
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.reopen.recv() => SignalKind::user_defined1(),
            _ = self.upgrade.recv() => SignalKind::user_defined2(),
        }
    }
}
