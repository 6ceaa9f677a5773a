//! A panic costs one request; where it came from belongs in the log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

/// Sends panics to the process log, with their place and, when `RUST_BACKTRACE` asks for it, the way there. For a
/// process that is the gateway's own: a program that embeds it has a hook of its own, or wants the default one.
pub(super) fn log_them() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if log::max_level() == log::LevelFilter::Off {
            default(panic);
        } else {
            log(panic);
        }
    }));
}

fn log(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        log::error!(place, thread, backtrace:%; "panic: {message}");
    } else {
        log::error!(place, thread; "panic: {message}");
    }
}
