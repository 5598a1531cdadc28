//! What reading costs this process: CPU seconds per GB, in objects of 110 KB and of 64 MiB, and in ranges of 1 MiB.
//!
//! `cargo run --release -p penstock-client --example cost -- BUCKET [http]`, with the endpoint and keys of the environment. It writes
//! some objects under `cost/` first. Figures depend on the machine: compare runs on one.

#![allow(clippy::print_stdout, reason = "an example that prints what it finds")]

use std::error::Error;
use std::time::Instant;

use futures::{StreamExt, stream};
use penstock_client::{Client, ClientOptions, Mode, PutOptions};

const SMALL_BYTES: usize = 110_000;
const SMALL_OBJECTS: usize = 200;
const LARGE_BYTES: usize = 64 << 20;
const RANGE_BYTES: usize = 1 << 20;

/// User and system time of this process so far, in seconds (proc(5): fields 14 and 15, in ticks of 10 ms).
fn cpu_s() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no stat")?.1.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

async fn measured(
    name: &str,
    bytes: usize,
    work: impl Future<Output = Result<(), Box<dyn Error>>>,
) -> Result<(), Box<dyn Error>> {
    let (cpu, begun) = (cpu_s()?, Instant::now());
    work.await?;
    let (cpu, took, gb) = (cpu_s()? - cpu, begun.elapsed().as_secs_f64(), bytes as f64 / 1e9);
    println!("{name}: {:.3} CPU-s/GB, {:.0} MB/s", cpu / gb, gb * 1e3 / took);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let bucket = arguments.first().ok_or("name a bucket")?;
    let mode = if arguments.iter().any(|word| word == "http") { Mode::Http } else { Mode::Auto };
    let client = Client::from_environment(ClientOptions { mode, ..ClientOptions::default() })?;
    let body: Vec<u8> = (0..LARGE_BYTES as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for number in 0..SMALL_OBJECTS {
        client.put(bucket, &format!("cost/{number}"), &body[number..][..SMALL_BYTES], PutOptions::default()).await?;
    }
    client.put(bucket, "cost/large", &body, PutOptions::default()).await?;
    for at_a_time in [1, 16] {
        const READS: usize = 5_000;
        let work = async {
            let reads = (0..READS).map(|read| {
                let key = format!("cost/{}", read * 7 % SMALL_OBJECTS);
                let client = &client;
                async move { client.get(bucket, &key).await.map(|object| object.body.len()) }
            });
            let mut reads = stream::iter(reads).buffer_unordered(at_a_time);
            while let Some(read) = reads.next().await {
                assert_eq!(read?, SMALL_BYTES);
            }
            Ok(())
        };
        measured(&format!("110 KB, {at_a_time} at a time"), READS * SMALL_BYTES, work).await?;
    }
    const LARGE_READS: usize = 16;
    let work = async {
        for _ in 0..LARGE_READS {
            assert_eq!(client.get(bucket, "cost/large").await?.body.len(), LARGE_BYTES);
        }
        Ok(())
    };
    measured("64 MiB", LARGE_READS * LARGE_BYTES, work).await?;
    let mut into = vec![0; LARGE_BYTES];
    let work = async {
        for _ in 0..LARGE_READS {
            client.get_into(bucket, "cost/large", &mut into).await?;
        }
        Ok(())
    };
    measured("64 MiB into a buffer", LARGE_READS * LARGE_BYTES, work).await?;
    let work = async {
        let ranges =
            into.chunks_mut(RANGE_BYTES).zip(0u64..).map(|(chunk, i)| (i * RANGE_BYTES as u64, chunk)).collect();
        Ok(client.get_ranges_into(bucket, "cost/large", ranges).await?)
    };
    measured("ranges of 1 MiB", LARGE_BYTES, work).await?;
    println!("{:#?}", client.stats());
    Ok(())
}
