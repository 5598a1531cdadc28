//! linux-rdma's perftest, the peer: `ib_write_bw` and `ib_read_lat` of one device with itself.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::RdmaBenchError;
use crate::device::Port;

/// How long one run may take.
const RUN_MAX: Duration = Duration::from_secs(120);
/// The server says nothing when it begins to listen, so its client tries again.
const TRIES_MAX: u32 = 60;
const TRY_PAUSE: Duration = Duration::from_millis(100);

fn failed(what: String) -> RdmaBenchError {
    RdmaBenchError::Failed(what)
}

/// Whether perftest is there.
///
/// # Errors
/// What to install.
pub(crate) async fn check() -> Result<(), RdmaBenchError> {
    for program in ["ib_write_bw", "ib_read_lat"] {
        let answer = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if let Err(error) = answer {
            return Err(RdmaBenchError::Setup(format!("{program}: {error}; install it: apt-get install perftest")));
        }
    }
    Ok(())
}

/// 10^9 bytes a second of WRITEs of `bytes` each.
pub(crate) async fn write_gbps(port: &Port, bytes: usize, count: usize) -> Result<f64, RdmaBenchError> {
    let out = run(port, "ib_write_bw", bytes, count).await?;
    // #bytes #iterations peak average rate; MiB/s, whatever the head says.
    let mib_s = row(&out, bytes, 4)?[3];
    Ok(mib_s * 1_048_576.0 / 1e9)
}

/// Microseconds of a READ of `bytes`: the median and the 99th percentile.
pub(crate) async fn read_us(port: &Port, bytes: usize, count: usize) -> Result<(f64, f64), RdmaBenchError> {
    let out = run(port, "ib_read_lat", bytes, count).await?;
    // #bytes #iterations min max typical average stdev p99 p99.9
    let row = row(&out, bytes, 8)?;
    Ok((row[4], row[7]))
}

async fn run(port: &Port, program: &str, bytes: usize, count: usize) -> Result<String, RdmaBenchError> {
    let tcp = free_port().map_err(|error| failed(format!("no free port: {error}")))?;
    let (gid, mtu) = (port.gid_index.to_string(), port.mtu_bytes.to_string());
    let (bytes, count, tcp) = (bytes.to_string(), count.to_string(), tcp.to_string());
    let arguments = ["-d", &port.device, "-x", &gid, "-m", &mtu, "-F", "-s", &bytes, "-n", &count, "-p", &tcp];
    let mut server = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("{program}: {error}")))?;
    let mut said = String::new();
    for _ in 0..TRIES_MAX {
        tokio::time::sleep(TRY_PAUSE).await;
        let client = Command::new(program).args(arguments).arg("127.0.0.1").kill_on_drop(true).output();
        let answer = timeout(RUN_MAX, client)
            .await
            .map_err(|_| failed(format!("{program} was not done within {} s", RUN_MAX.as_secs())))?
            .map_err(|error| failed(format!("{program}: {error}")))?;
        said = format!("{}{}", String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
        if answer.status.success() {
            drop(timeout(RUN_MAX, server.wait()).await);
            return Ok(said);
        }
        if !said.contains("Couldn't connect") && !said.contains("Connection refused") {
            break;
        }
    }
    drop(server.kill().await);
    Err(failed(format!("{program} failed:\n{said}")))
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The numbers of the row that begins with `bytes`, `columns` at least.
fn row(out: &str, bytes: usize, columns: usize) -> Result<Vec<f64>, RdmaBenchError> {
    out.lines()
        .map(|line| line.split_whitespace().map_while(|word| word.parse().ok()).collect::<Vec<f64>>())
        .find(|numbers| numbers.len() >= columns && numbers[0] == bytes as f64)
        .ok_or_else(|| failed(format!("perftest's table can't be read:\n{out}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let out = "---\n #bytes #iterations BW peak[MB/sec] BW average[MB/sec] MsgRate[Mpps]\n \
                   65536 100 85.91 80.12 0.001282\n---\n";
        assert_eq!(row(out, 65536, 4).unwrap()[3], 80.12);
        assert!(row(out, 65536, 8).is_err());
        assert!(row(out, 4096, 4).unwrap_err().to_string().contains("MsgRate"));
    }
}
