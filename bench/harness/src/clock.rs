//! Time: of the wall, and of the CPUs on behalf of this process.
//!
//! CPU time is what work costs, also where other processes take turns with this one on its CPU; it counts all threads.
//! Reading it is a system call (about a third of a microsecond), so that a sample should take a millisecond or more.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What a [`Stopwatch`] saw go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elapsed {
    /// Wall time.
    pub wall: Duration,
    /// CPU time of the whole process, in user and kernel mode.
    pub cpu: Duration,
}

/// Runs from its making.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("invariant: CPU time is not negative");
    let nanoseconds = u32::try_from(time.tv_nsec).expect("invariant: nanoseconds are below 10^9");
    Duration::new(seconds, nanoseconds)
}

impl Stopwatch {
    /// Starts.
    #[must_use]
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu: process_cpu() }
    }

    /// What went by since the start.
    #[must_use]
    pub fn elapsed(&self) -> Elapsed {
        let cpu = process_cpu().saturating_sub(self.cpu);
        Elapsed { wall: self.wall.elapsed(), cpu }
    }
}
