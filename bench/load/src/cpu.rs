//! CPU time of processes on this machine.

use crate::LoadError;

/// CPU seconds that these processes have used, their dead threads included, as the kernel accounts it in
/// `/proc/PID/stat` (utime + stime, in ticks of 10 ms).
///
/// # Errors
/// [`LoadError::Cpu`] when there is no such process.
pub fn cpu_seconds(pids: &[u32]) -> Result<f64, LoadError> {
    // Linux has fixed the unit that it shows to programs (USER_HZ) at 100 everywhere but on Alpha.
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut ticks = 0;
    for &pid in pids {
        let fail = |reason: String| LoadError::Cpu { pid, reason };
        let path = format!("/proc/{pid}/stat");
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        // The second field is the program's name in parentheses, and may hold anything.
        let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace());
        let fields: Vec<&str> = fields.ok_or_else(|| fail("an unknown format".to_owned()))?.collect();
        for field in [11, 12] {
            let number = fields.get(field).and_then(|text| text.parse::<u64>().ok());
            ticks += number.ok_or_else(|| fail("an unknown format".to_owned()))?;
        }
    }
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// The CPU time that some processes use from one moment on.
#[derive(Debug)]
pub struct CpuUse {
    pids: Vec<u32>,
    before: f64,
}

impl CpuUse {
    /// From now on.
    ///
    /// # Errors
    /// As [`cpu_seconds`].
    pub fn start(pids: &[u32]) -> Result<Self, LoadError> {
        Ok(Self { pids: pids.to_vec(), before: cpu_seconds(pids)? })
    }

    /// Seconds since then; `None` without processes, or when one of them has ended.
    pub fn seconds(&self) -> Option<f64> {
        if self.pids.is_empty() {
            return None;
        }
        cpu_seconds(&self.pids).ok().map(|now| (now - self.before).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_and_a_missing_process_is_told() {
        let used = CpuUse::start(&[std::process::id()]).unwrap();
        let mut sum = 1_u64;
        // Until some ticks are counted, however fast the machine is.
        while used.seconds().unwrap() < 0.03 {
            for number in 0..1_000_000_u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(number));
            }
        }
        assert!(CpuUse::start(&[]).unwrap().seconds().is_none());
        let error = CpuUse::start(&[u32::MAX]).unwrap_err().to_string();
        assert!(error.contains("4294967295"), "{error}");
    }
}
