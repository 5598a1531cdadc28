//! A store of guests, end to end: client, gateway and three nodes, each a machine of its own, RS(2,1). Plans over RDMA, the
//! dialects, plain HTTP; packets that are lost; a node whose power goes in the middle of reads.
//!
//! What moves and compares the bytes is `penstock exercise` and the dialects' conformance clients, in the client's guest; here
//! is what is done to the guests meanwhile, and what must have been said.

use std::time::Instant;

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::suite::Programs;
use crate::task::Task;

const NODES: usize = 3;
/// How long a process may take to come up in a guest that shares two cores with four others.
const START_MAX_S: u64 = 120;
/// How long one phase may take.
const PHASE_MAX_S: u64 = 600;
const SIGUSR1: i32 = 10;
/// The key that gateway and nodes share, here.
const CLUSTER_KEY: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2";
/// The longest object.
const LARGE: &str = "256MiB";

fn must(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(LabError::Test(what())) }
}

/// The processes of a store, running.
struct Store<'a> {
    lab: &'a mut Lab,
    penstock: String,
    gateway: Task,
    nodes: Vec<Task>,
    /// `NAME=VALUE`, for `env`.
    keys: [String; 2],
}

fn config(lab: &Lab) -> Result<String> {
    let mut text = format!(
        "[cluster]\nkey_file = \"cluster.key\"\nrdma = \"require\"\n[gateway]\nlisten = \"{}:9000\"\ndata = \"gateway\"\n\
         buffers = \"48MiB\"\nplan_inline = \"0\"\n[gateway.rdma]\nsessions_max = 64\n",
        lab.address("gateway")?
    );
    for number in 0..NODES {
        let address = lab.address(&format!("node{}", number + 1))?;
        text += &format!(
            "[[node]]\nid = {number}\naddress = \"{address}:7400\"\ndata = \"node\"\ncapacity = \"1GiB\"\nbuffers = \"24MiB\"\n"
        );
    }
    Ok(text)
}

impl<'a> Store<'a> {
    fn start(lab: &'a mut Lab, penstock: &str) -> Result<Self> {
        let phase = Phase::begin("gateway and nodes are up, RDMA required");
        let config = config(lab)?;
        let guests: Vec<String> =
            (1..=NODES).map(|number| format!("node{number}")).chain(["gateway".to_owned()]).collect();
        for guest in &guests {
            lab.shell(
                guest,
                &format!(
                    "mkdir -p /data/store && cd /data/store && umask 077 && echo {CLUSTER_KEY} > cluster.key && \
                     cat > cluster.toml <<'END'\n{config}END"
                ),
            )?;
        }
        // A node behind a smaller MTU: both sides must agree on it.
        lab.shell(
            "node3",
            "ip link set lab0 mtu 1500 && sleep 1 && ibv_devinfo -d rxe0 | grep -q 'active_mtu:.*1024'",
        )?;
        let serve = |guest: &str, words: &str| {
            let line = format!("cd /data/store && exec '{penstock}' {words} 2>&1");
            lab.start(guest, &["env", "PENSTOCK_LOG=info", "RUST_BACKTRACE=0", "sh", "-c", &line], 3000)
        };
        let nodes = (0..NODES)
            .map(|number| serve(&format!("node{}", number + 1), &format!("node --config cluster.toml --id {number}")))
            .collect::<Result<Vec<_>>>()?;
        let gateway = serve("gateway", "gateway --config cluster.toml")?;
        for node in &nodes {
            node.wait_for("the node is open", START_MAX_S)?;
        }
        gateway.wait_for("S3 is served", START_MAX_S)?;
        let said = gateway.said();
        let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| {
            let line = said.lines().find(|line| line.starts_with(&format!("{name}=")) && !line.contains(' '));
            line.unwrap_or_default().to_owned()
        });
        must(keys.iter().all(|key| !key.is_empty()), || format!("the gateway names no keys:\n{said}"))?;
        phase.end("ok");
        Ok(Self { lab, penstock: penstock.to_owned(), gateway, nodes, keys })
    }

    /// Starts `penstock exercise` in the client's guest.
    fn exercise(&self, options: &[&str]) -> Result<Task> {
        let log = "PENSTOCK_LOG=info,penstock_rdma_transport=debug";
        let words = [
            &["env", log, "AWS_EC2_METADATA_DISABLED=true", &self.keys[0], &self.keys[1]][..],
            &["sh", "-c", "exec \"$@\" 2>&1", "exercise", &self.penstock, "exercise"],
            // Emulated guests are so slow that any shard is late: who is asked too early is decoded around, and copied.
            &["--endpoint", "http://gateway:9000", "--rdma", "require", "--inline", "0", "--hedge-after", "3000"],
            options,
        ]
        .concat();
        self.lab.start("client", &words, PHASE_MAX_S)
    }

    /// What the gateway says has passed through it: the first line of its report, the `asked`th time.
    fn gateway_payload(&self, asked: usize) -> Result<String> {
        const LINE: &str = "gateway payload bytes: ";
        self.gateway.signal(SIGUSR1)?;
        for _ in 0..300 {
            let said = self.gateway.said();
            if let Some(line) = said.lines().filter(|line| line.starts_with(LINE)).nth(asked) {
                return Ok(line.to_owned());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Err(LabError::Test("the gateway does not say what passed through it".to_owned()))
    }
}

/// The last line of JSON that an exercise wrote.
fn summary(said: &str) -> Result<serde_json::Value> {
    let json = said.lines().rev().find(|line| line.starts_with('{'));
    json.and_then(|line| serde_json::from_str(line).ok())
        .ok_or_else(|| LabError::Test(format!("an exercise without a summary:\n{said}")))
}

fn lines_with<'a>(said: &'a str, part: &'a str) -> impl Iterator<Item = &'a str> {
    said.lines().filter(move |line| line.contains(part))
}

struct Phase(&'static str, Instant);

impl Phase {
    fn begin(name: &'static str) -> Self {
        Self(name, Instant::now())
    }

    fn end(self, result: &str) {
        println!("       {}: {result} ({:.1} s)", self.0, self.1.elapsed().as_secs_f64());
    }
}

/// The test.
pub(crate) fn run(lab: &mut Lab, programs: &Programs) -> Result<()> {
    let mut store = Store::start(lab, programs.path(0)?)?;
    plans(&store)?;
    cross_reads(&store)?;
    loss(&store)?;
    dead_node(&mut store)
}

/// The dialects' test.
pub(crate) fn dialects(lab: &mut Lab, programs: &Programs) -> Result<()> {
    let store = Store::start(lab, programs.path(0)?)?;
    over_dialects(&store, programs.path(1)?)?;
    store.gateway.stop()?;
    store.nodes.iter().try_for_each(|node| node.stop().map(drop))
}

/// By plan alone: nothing passes through the gateway, nothing is copied, and each connection has the smaller MTU.
fn plans(store: &Store<'_>) -> Result<()> {
    let phase = Phase::begin("PUT and GET by plan, 1 B to 9 MiB");
    let said = store.exercise(&["--http", "none", "--sizes", "1,65,4KiB,200KiB,4MiB,9437187"])?.finish()?;
    let summary = summary(&said)?;
    // A shard that was late was computed instead, and that is copied to its place.
    let copies = summary["copied_bytes"] == 0 || summary["decoded_stripes"] != 0;
    must(copies, || format!("payload was copied: {summary}"))?;
    let total = 1 + 65 + 4096 + (200 << 10) + (4 << 20) + 9_437_187u64;
    must(
        summary["read_bytes"]["rdma"].as_u64() >= Some(total)
            && summary["fallbacks"].as_object().is_some_and(|all| all.is_empty()),
        || format!("not all went over RDMA: {summary}"),
    )?;
    // PUT writes data and parity.
    must(summary["written_bytes"]["rdma"].as_u64() >= Some(total * 3 / 2), || format!("written otherwise: {summary}"))?;
    let mtus: Vec<&str> = lines_with(&said, "RDMA connection").collect();
    must(
        mtus.iter().any(|line| line.contains("mtu=4096")) && mtus.iter().any(|line| line.contains("mtu=1024")),
        || format!("path MTUs are not the smaller of both sides': {mtus:?}"),
    )?;
    let payload = store.gateway_payload(0)?;
    must(payload == "gateway payload bytes: 0 B", || payload.clone())?;
    phase.end(&format!(
        "{payload}; {} B read, {} B written over RDMA, {} B copied",
        total, summary["written_bytes"]["rdma"], summary["copied_bytes"]
    ));
    Ok(())
}

/// Written by plan, read over HTTP; written over HTTP, read by plan; and one long object.
fn cross_reads(store: &Store<'_>) -> Result<()> {
    let phase = Phase::begin("by plan and over HTTP, each read by the other");
    store.exercise(&["--http", "both", "--sizes", "1,64KiB,1048577,6MiB"])?.finish()?;
    phase.end("the same bytes");
    let phase = Phase::begin("a long object by plan, read over HTTP too");
    let said = store.exercise(&["--http", "read", "--sizes", LARGE])?.finish()?;
    let summary = summary(&said)?;
    must(summary["read_bytes"]["rdma"].as_u64() >= Some(256 << 20), || format!("not all went over RDMA: {summary}"))?;
    phase.end(&format!("{LARGE}, the same bytes, {} B copied", summary["copied_bytes"]));
    Ok(())
}

/// The dialects in the field, from another machine than the gateway's.
fn over_dialects(store: &Store<'_>, program: &str) -> Result<()> {
    let phase = Phase::begin("the dialects from another machine");
    let remote = format!("PENSTOCK_REMOTE={}:9000", store.lab.address("gateway")?);
    let words = [
        "env",
        &remote,
        "PENSTOCK_RDMA_DEVICE=rxe0",
        &store.keys[0],
        &store.keys[1],
        program,
        "--ignored",
        "--nocapture",
        "dialects_from_another_machine",
    ];
    let said = store.lab.run("client", &words, PHASE_MAX_S)?;
    let moved = lines_with(&said, "x-amz-rdma-bytes-transferred").count();
    must(moved == 12 && said.contains("1 passed"), || format!("{moved} of 12 objects moved:\n{said}"))?;
    phase.end("12 objects, every x-amz-rdma-bytes-transferred right, no payload on HTTP connections");
    Ok(())
}

/// One packet of a hundred is lost, on the client's side and on a node's.
fn loss(store: &Store<'_>) -> Result<()> {
    let phase = Phase::begin("1 % of packets lost");
    for guest in ["client", "node1"] {
        store.lab.netem(guest, "loss 1%")?;
    }
    let outcome = store.exercise(&["--http", "none", "--sizes", "4KiB,300KiB,3MiB"]).and_then(|task| task.finish());
    let queue = store.lab.shell("client", "tc -s qdisc show dev lab0")?;
    for guest in ["client", "node1"] {
        store.lab.netem(guest, "")?;
    }
    let summary = summary(&outcome?)?;
    let lost = queue.split("dropped ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("0");
    must(lost != "0", || format!("netem lost nothing, so nothing was survived:\n{queue}"))?;
    phase.end(&format!("{lost} packets of the client lost, the same bytes; {summary}"));
    Ok(())
}

/// The power goes in one node while objects are read: what it held is computed from the others.
fn dead_node(store: &mut Store<'_>) -> Result<()> {
    let phase = Phase::begin("a node's power goes mid-read");
    // Of each object one node in three holds parity, which nobody reads while all is well. That this is the same node for all twelve
    // happens once in 177,147 runs.
    let sizes: Vec<String> = (0..12).map(|more| format!("{}", (2 << 20) + more)).collect();
    let task = store.exercise(&["--http", "none", "--sizes", &sizes.join(","), "--gets", "36"])?;
    task.wait_for("get 2 of 36", PHASE_MAX_S)?;
    store.lab.kill("node2")?;
    let said = task.finish()?;
    let summary = summary(&said)?;
    must(summary["decoded_stripes"].as_u64() > Some(0), || format!("nothing was decoded: {summary}"))?;
    must(said.contains("get 36 of 36"), || said.clone())?;
    let slowest = lines_with(&said, "get ").map(|line| line.rsplit(' ').next().unwrap_or_default()).collect::<Vec<_>>();
    phase.end(&format!("36 reads right, {} stripes decoded; {}", summary["decoded_stripes"], slowest.join(" ")));
    let payload = store.gateway_payload(1)?;
    println!("       the gateway at the end: {payload}");
    store.gateway.stop()?;
    for node in store.nodes.iter().enumerate().filter(|(number, _)| *number != 1).map(|(_, node)| node) {
        node.stop()?;
    }
    Ok(())
}
