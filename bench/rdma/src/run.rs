//! A run: rounds, in each of which every contender has its turn, in another order.

use std::collections::BTreeMap;
use std::time::Duration;

use penstock_harness::{Machine, Order, Recorder, Stop, Summary, beside, write_json};

use crate::device::Port;
use crate::report::{About, Row, crossover, text};
use crate::s3::{Op, User, Way};
use crate::serve::Store;
use crate::wire::Wire;
use crate::{Arguments, RdmaBenchError, cpu, device, perftest};

const MIB: usize = 1 << 20;
/// Lengths whose GETs are timed: around where small objects stop travelling with the request.
const TIMED: [usize; 6] = [4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, MIB];
/// Operations under way where bandwidth is measured.
const AT_A_TIME: usize = 4;
/// Messages of one perftest run.
const WRITES: usize = 200;
const READS: usize = 500;

/// What has a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    PerftestWrite,
    PerftestRead,
    WireWrite,
    WireCall,
    Time(Way, usize),
    Many(Way, Op),
}

impl Turn {
    fn all() -> Vec<Self> {
        let mut all = vec![Self::PerftestWrite, Self::PerftestRead, Self::WireWrite, Self::WireCall];
        for way in Way::ALL {
            all.extend(TIMED.map(|bytes| Self::Time(way, bytes)));
            all.extend([Op::Get, Op::Put].map(|op| Self::Many(way, op)));
        }
        all
    }
}

/// Samples of one row, over all rounds.
#[derive(Clone, Debug, Default)]
struct Samples {
    gbps: Vec<f64>,
    us: Vec<f64>,
    us_p99: Vec<f64>,
    cpu: Vec<f64>,
}

type Key = (&'static str, usize, &'static str, usize);

struct Run {
    port: Port,
    wire: Wire,
    users: Vec<User>,
    time: Duration,
    samples: BTreeMap<Key, Samples>,
}

pub(crate) async fn all(arguments: &Arguments) -> Result<(), RdmaBenchError> {
    let port = device::open(arguments.device.as_deref())?;
    perftest::check().await?;
    let (rounds, seconds) = if arguments.quick { (2, 0.5) } else { (arguments.rounds, arguments.seconds) };
    let mut recorder = Recorder::new(arguments.json.clone(), None)?;
    let store = Store::start(arguments.penstock.as_deref(), &arguments.data, &port.device)?;
    let users: Result<Vec<User>, _> = Way::ALL.iter().map(|way| User::new(&store, *way, &port.domain)).collect();
    let users = users?;
    users[0].prepare(&TIMED).await?;
    let wire = Wire::new(&port.domain).await?;
    let time = Duration::from_secs_f64(seconds);
    let mut run = Run { port, wire, users, time, samples: BTreeMap::new() };
    let (turns, mut order, stop) = (Turn::all(), Order::seeded(1), Stop::on_signals()?);
    let mut done = 0;
    'rounds: for round in 0..rounds {
        for index in order.shuffled(turns.len()) {
            if stop.asked() {
                eprintln!("ended early, after {done} of {} measurements", turns.len() as u32 * rounds);
                break 'rounds;
            }
            run.turn(turns[index]).await?;
            done += 1;
        }
        eprintln!("round {} of {rounds} is done", round + 1);
    }
    for user in &run.users {
        user.check()?;
    }
    let rows = rows(&run.samples);
    let about = About {
        machine: Machine::here(),
        device: run.port.device.clone(),
        mtu_bytes: run.port.mtu_bytes,
        soft_roce: run.port.device.starts_with("rxe"),
        rounds,
        seconds,
        unoptimised: cfg!(debug_assertions),
        crossover_bytes: crossover(&times(&rows)),
    };
    recorder.push(rows.clone())?;
    recorder.save()?;
    if let Some(path) = &arguments.json {
        write_json(&beside(path, "machine"), &about)?;
    }
    print!("{}", text(&rows, &about));
    run.wire.end().await;
    drop(run.users);
    drop(store);
    Ok(())
}

impl Run {
    fn sample(&mut self, op: &'static str, bytes: usize, contender: &'static str, at_a_time: usize) -> &mut Samples {
        self.samples.entry((op, bytes, contender, at_a_time)).or_default()
    }

    fn timed(&mut self, op: &'static str, bytes: usize, contender: &'static str, us: &[f64]) {
        let (median, p99) = (quantile(us, 0.5), quantile(us, 0.99));
        let samples = self.sample(op, bytes, contender, 1);
        samples.us.push(median);
        samples.us_p99.push(p99);
    }

    async fn turn(&mut self, turn: Turn) -> Result<(), RdmaBenchError> {
        match turn {
            Turn::PerftestWrite => {
                let before = cpu::busy_seconds();
                let gbps = perftest::write_gbps(&self.port, MIB, WRITES).await?;
                let moved = (MIB * WRITES) as u64;
                self.moved(("write", MIB, "perftest", 1), gbps, moved, before);
            }
            Turn::PerftestRead => {
                let (us, p99) = perftest::read_us(&self.port, TIMED[0], READS).await?;
                let samples = self.sample("read", TIMED[0], "perftest", 1);
                samples.us.push(us);
                samples.us_p99.push(p99);
            }
            Turn::WireWrite => {
                let before = cpu::busy_seconds();
                let gbps = self.wire.write_gbps(AT_A_TIME, self.time).await?;
                let moved = (gbps * 1e9 * self.time.as_secs_f64()) as u64;
                self.moved(("write", MIB, "penstock-transport", AT_A_TIME), gbps, moved, before);
            }
            Turn::WireCall => {
                let us = self.wire.call_us(TIMED[0], self.time).await?;
                self.timed("call", TIMED[0], "penstock-transport", &us);
            }
            Turn::Time(way, bytes) => {
                let us = self.user(way).get_us(bytes, self.time).await?;
                self.timed("get", bytes, way.contender(), &us);
            }
            Turn::Many(way, op) => {
                let before = cpu::busy_seconds();
                let (moved, took) = self.user(way).many(op, MIB, AT_A_TIME, self.time).await?;
                let gbps = moved as f64 / took.as_secs_f64() / 1e9;
                let name = if op == Op::Get { "get" } else { "put" };
                self.moved((name, MIB, way.contender(), AT_A_TIME), gbps, moved, before);
            }
        }
        Ok(())
    }

    fn user(&self, way: Way) -> &User {
        let found = self.users.iter().find(|user| user.way == way);
        found.expect("invariant: there is a user of each way")
    }

    fn moved(&mut self, key: Key, gbps: f64, moved: u64, busy_before: Option<f64>) {
        let busy = busy_before.zip(cpu::busy_seconds()).map(|(before, after)| after - before);
        let samples = self.samples.entry(key).or_default();
        samples.gbps.push(gbps);
        samples.cpu.extend(busy.map(|busy| busy / (moved as f64 / 1e9)));
    }
}

fn quantile(samples: &[f64], quantile: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (quantile * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

fn median(samples: &[f64]) -> Option<f64> {
    Summary::of(samples).map(|summary| summary.median)
}

fn rows(samples: &BTreeMap<Key, Samples>) -> Vec<Row> {
    let perftest_gbps = samples.get(&("write", MIB, "perftest", 1)).and_then(|samples| median(&samples.gbps));
    let perftest_us = samples.get(&("read", TIMED[0], "perftest", 1)).and_then(|samples| median(&samples.us));
    samples
        .iter()
        .map(|(&(op, bytes, contender, at_a_time), samples)| {
            let (gbps, us) = (median(&samples.gbps), median(&samples.us));
            let share = gbps.zip(perftest_gbps).or(us.zip(perftest_us)).map(|(ours, theirs)| ours / theirs);
            Row {
                bench: "rdma",
                op,
                bytes: bytes as u64,
                contender: contender.to_owned(),
                at_a_time,
                gbps,
                us,
                us_p99: median(&samples.us_p99),
                ratio_to_perftest: share,
                cpu_seconds_per_gb: median(&samples.cpu),
            }
        })
        .collect()
}

/// Times of GETs: bytes, by plan over RDMA, over HTTP.
fn times(rows: &[Row]) -> Vec<(u64, f64, f64)> {
    let of = |bytes: u64, way: Way| {
        let row = rows
            .iter()
            .find(|row| row.op == "get" && row.bytes == bytes && row.us.is_some() && row.contender == way.contender());
        row.and_then(|row| row.us)
    };
    TIMED
        .iter()
        .filter_map(|&bytes| Some((bytes as u64, of(bytes as u64, Way::Rdma)?, of(bytes as u64, Way::Http)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_perftest_in_the_same_run() {
        let mut samples = BTreeMap::new();
        let bandwidth = |gbps: &[f64]| Samples { gbps: gbps.to_vec(), ..Samples::default() };
        let time = |us: &[f64]| Samples { us: us.to_vec(), ..Samples::default() };
        samples.insert(("write", MIB, "perftest", 1), bandwidth(&[2.0, 4.0, 3.0]));
        samples.insert(("write", MIB, "penstock-transport", 4), bandwidth(&[2.7]));
        samples.insert(("read", 4096, "perftest", 1), time(&[100.0]));
        samples.insert(("get", 4096, Way::Rdma.contender(), 1), time(&[1000.0, 900.0, 1100.0]));
        samples.insert(("get", 4096, Way::Http.contender(), 1), time(&[500.0]));
        let rows = rows(&samples);
        let ratio = |contender: &str, op: &str| {
            rows.iter().find(|row| row.contender == contender && row.op == op).unwrap().ratio_to_perftest.unwrap()
        };
        assert!((ratio("penstock-transport", "write") - 0.9).abs() < 1e-9);
        assert!((ratio("penstock-plan-rdma", "get") - 10.0).abs() < 1e-9);
        assert_eq!(times(&rows), [(4096, 1000.0, 500.0)]);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
    }

    #[test]
    fn every_way_has_its_turns() {
        let turns = Turn::all();
        assert_eq!(turns.len(), 4 + 3 * (TIMED.len() + 2));
        assert!(turns.contains(&Turn::Many(Way::Tcp, Op::Put)));
    }
}
