//! A timer of the kernel's own resolution: the runtime's rounds up to a whole millisecond, many times the latency that an
//! open loop is to measure.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One timer, for one task.
pub struct PreciseTimer(AsyncFd<OwnedFd>);

impl PreciseTimer {
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types whose descriptor may change; an OwnedFd's cannot"
    )]
    pub fn new() -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(AsyncFd::with_interest(timer, Interest::READABLE)?))
    }

    /// Waits until `due`; returns at once when it has passed. Not to be cancelled: a timer left armed ends the next wait.
    pub async fn sleep_until(&mut self, due: Instant) -> io::Result<()> {
        let wait = due.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec::try_from(wait).map_err(io::Error::other)?,
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn never_ends_early_and_can_be_used_again() {
        let mut timer = PreciseTimer::new().unwrap();
        let start = Instant::now();
        for microseconds in [300, 0, 200] {
            let due = Instant::now() + Duration::from_micros(microseconds);
            timer.sleep_until(due).await.unwrap();
            assert!(Instant::now() >= due);
        }
        assert!(start.elapsed() >= Duration::from_micros(500));
    }
}
