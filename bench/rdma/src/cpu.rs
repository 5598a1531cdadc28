//! CPU time of the whole machine: soft-RoCE works in the kernel's own threads and interrupts, which no process is charged for.

/// The kernel shows ticks of 10 ms.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds that all CPUs were busy since the start; `None` where /proc does not say.
pub(crate) fn busy_seconds() -> Option<f64> {
    busy_of(&std::fs::read_to_string("/proc/stat").ok()?)
}

fn busy_of(stat: &str) -> Option<f64> {
    let all = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = all.split_ascii_whitespace().map_while(|text| text.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what follows is counted in user and nice already.
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else { return None };
    Some((user + nice + system + irq + softirq) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_ticks_are_added() {
        assert_eq!(busy_of("cpu  100 20 30 9999 8888 4 6 777 5 5\ncpu0 1\n"), Some(1.6));
        assert_eq!(busy_of("cpu  1 2\n"), None);
        assert_eq!(busy_of(""), None);
    }
}
