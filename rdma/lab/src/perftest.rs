//! linux-rdma's perftest, run between guests: the peer that our own figures are set beside, on the same device, in the
//! same run.

use crate::error::{LabError, Result};
use crate::lab::Lab;

/// How long one run may take.
const RUN_MAX_S: u64 = 60;
/// perftest writes nothing when it begins to listen, so clients try again until they are heard.
const CLIENT: &str = "for _ in $(seq 40); do out=$(\"$@\" 2>&1) && { echo \"$out\"; exit 0; }; \
    case \"$out\" in *\"Couldn't connect\"*|*\"Connection refused\"*) sleep 0.25 ;; *) break ;; esac; done; echo \"$out\"; exit 1";

/// What `ib_write_bw` measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bandwidth {
    /// Average, in MB (10^6 bytes) per second.
    pub(crate) average_mb_s: f64,
}

/// What `ib_read_lat` measured, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Latency {
    /// The median.
    pub(crate) typical_us: f64,
    /// The 99th percentile.
    pub(crate) p99_us: f64,
}

/// Runs `ib_write_bw` from one guest to another (or to itself): `count` writes of `bytes`.
pub(crate) fn write_bandwidth(lab: &Lab, ends: (&str, &str), bytes: usize, count: usize) -> Result<Bandwidth> {
    let out = pair(lab, ends, "ib_write_bw", bytes, count)?;
    // #bytes #iterations peak average rate; MiB/s, whatever the head says.
    let row = row(&out, bytes)?;
    let average_mib_s = *row.get(3).ok_or_else(|| unreadable(&out))?;
    Ok(Bandwidth { average_mb_s: average_mib_s * 1.048_576 })
}

/// Runs `ib_read_lat` from one guest to another (or to itself): `count` reads of `bytes`.
pub(crate) fn read_latency(lab: &Lab, ends: (&str, &str), bytes: usize, count: usize) -> Result<Latency> {
    let out = pair(lab, ends, "ib_read_lat", bytes, count)?;
    // #bytes #iterations min max typical average stdev p99 p99.9
    let row = row(&out, bytes)?;
    match row.as_slice() {
        [_, _, _, _, typical_us, _, _, p99_us, ..] => Ok(Latency { typical_us: *typical_us, p99_us: *p99_us }),
        _ => Err(unreadable(&out)),
    }
}

fn pair(lab: &Lab, (from, to): (&str, &str), program: &str, bytes: usize, count: usize) -> Result<String> {
    let (bytes, count) = (bytes.to_string(), count.to_string());
    // GID 1 is the IPv4 address's; a path MTU of 4096 is what lab0 allows.
    let call = [program, "-d", lab.device(), "-x", "1", "-m", "4096", "-F", "-s", &bytes, "-n", &count];
    let address = lab.address(to)?.to_string();
    let server = lab.start(to, &call, RUN_MAX_S)?;
    let client = [&["sh", "-c", CLIENT, "client"][..], &call, &[&address]].concat();
    let answer = lab.run(from, &client, RUN_MAX_S);
    if answer.is_err() {
        let _ = server.stop();
        return answer;
    }
    server.finish()?;
    answer
}

fn unreadable(out: &str) -> LabError {
    LabError::Test(format!("perftest's table can't be read:\n{out}"))
}

/// The numbers of the row that begins with `bytes`.
fn row(out: &str, bytes: usize) -> Result<Vec<f64>> {
    out.lines()
        .map(|line| line.split_whitespace().map_while(|word| word.parse().ok()).collect::<Vec<f64>>())
        .find(|numbers| numbers.len() >= 4 && numbers[0] == bytes as f64)
        .ok_or_else(|| unreadable(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let out = "---\n #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n \
                   65536      100              85.91              80.12             0.001282\n---\n";
        assert_eq!(row(out, 65536).expect("there")[3], 80.12);
        assert!(row(out, 4096).expect_err("not there").to_string().contains("MsgRate"));
    }
}
