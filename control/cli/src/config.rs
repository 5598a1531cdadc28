//! The configuration file of a cluster of processes (docs/CONFIGURATION.md). Nonsense is refused, not ignored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use penstock_proto::plan::NodeAddress;
use penstock_proto::{Code, NodeId};
use serde::Deserialize;

use crate::Fatal;
use crate::arguments::Guard;
use crate::direct::addresses;
use crate::rails::Use;

/// A number of bytes, written `64MiB`, `20 GiB`, `1TB` or plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        let unit_bytes: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" | "k" => 1 << 10,
            "mib" | "m" => 1 << 20,
            "gib" | "g" => 1 << 30,
            "tib" | "t" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(format!("{text:?} is no size: write a number and KiB, MiB, GiB or TiB")),
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(unit_bytes))
            .filter(|bytes| *bytes > 0)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no size: write a number and KiB, MiB, GiB or TiB"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, bytes) in [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= bytes && self.0.is_multiple_of(bytes) {
                return write!(f, "{}{unit}", self.0 / bytes);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// As [`Size`], but may be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeOrNone(Option<Size>);

impl SizeOrNone {
    pub(crate) fn bytes(self) -> u64 {
        self.0.map_or(0, |size| size.0)
    }
}

impl Default for SizeOrNone {
    /// Of what travels with the request where a plan was asked for.
    fn default() -> Self {
        Self(Some(Size(penstock_gateway::PLAN_INLINE_BYTES_MAX)))
    }
}

impl FromStr for SizeOrNone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "0" { Ok(Self(None)) } else { text.parse().map(|size| Self(Some(size))) }
    }
}

impl<'de> Deserialize<'de> for SizeOrNone {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn code_from_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Code>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(serde::de::Error::custom)
}

fn codes_from_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Code>, D::Error> {
    let bad = serde::de::Error::custom;
    let classes = BTreeMap::<String, String>::deserialize(deserializer)?;
    let code = |(class, text): (String, String)| {
        penstock_gateway::policies::check_class(&class).map_err(|error| bad(error.message))?;
        Ok((class, text.parse().map_err(serde::de::Error::custom)?))
    };
    classes.into_iter().map(code).collect()
}

/// What to do about a code whose stripes would not survive the loss of a failure domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Spread {
    /// Say so.
    #[default]
    Warn,
    /// Refuse to start.
    Require,
}

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) cluster: Cluster,
    pub(crate) gateway: Gateway,
    #[serde(rename = "node")]
    pub(crate) nodes: Vec<Node>,
    /// How what is stored is kept.
    #[serde(default)]
    pub(crate) keep: crate::keep::Keep,
}

/// `[cluster]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    /// The key that gateway and nodes share, made by `penstock cluster-key`.
    pub(crate) key_file: PathBuf,
    /// The code of new objects; by default the widest that the nodes allow.
    #[serde(default, deserialize_with = "code_from_text")]
    pub(crate) code: Option<Code>,
    /// Codes of storage classes: `STANDARD_IA = "LRC(12,2,2)"`.
    #[serde(default, deserialize_with = "codes_from_text")]
    pub(crate) storage_classes: BTreeMap<String, Code>,
    /// In how many placement sets a node is.
    #[serde(default = "default_sets")]
    pub(crate) placement_sets_per_node: usize,
    /// What to do about a code whose stripes would not survive the loss of a failure domain.
    #[serde(default)]
    pub(crate) spread: Spread,
    /// Whether gateway and nodes talk over RDMA.
    #[serde(default)]
    pub(crate) rdma: crate::rails::Use,
    /// The ports to use, `device` or `device:port`; by default every one that is active.
    #[serde(default)]
    pub(crate) rdma_devices: Vec<String>,
    /// RDMA connections of a gateway to one node, at most.
    #[serde(default)]
    pub(crate) rdma_connections_per_node_max: Option<std::num::NonZeroUsize>,
    /// RDMA connections of one node, from all who call it, at most.
    #[serde(default)]
    pub(crate) rdma_node_connections_max: Option<std::num::NonZeroUsize>,
}

/// A day.
pub(crate) const DAY_SECONDS: u64 = 24 * 3600;

/// `[gateway]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gateway {
    pub(crate) listen: SocketAddr,
    /// Metadata and the root key pair.
    pub(crate) data: PathBuf,
    #[serde(default = "default_domains")]
    pub(crate) domains: Vec<String>,
    #[serde(default = "default_gateway_buffers")]
    pub(crate) buffers: Size,
    #[serde(default = "default_grace")]
    pub(crate) garbage_grace_seconds: u64,
    /// How long a day of lifecycle rules is: for tests.
    #[serde(default = "default_lifecycle_day")]
    pub(crate) lifecycle_day_seconds: u64,
    /// The file that names where events of buckets can be sent.
    pub(crate) events: Option<PathBuf>,
    /// Payload up to this long travels with the request where a plan was asked for.
    #[serde(default)]
    pub(crate) plan_inline: SizeOrNone,
    /// Limits of S3 over RDMA: `[gateway.rdma]`.
    #[serde(default)]
    pub(crate) rdma: crate::rdma_limits::RdmaLimits,
    /// How small objects are packed: `[gateway.packing]`.
    #[serde(default)]
    pub(crate) packing: crate::packing::Packing,
    /// TLS, logs of requests, limits: `[gateway.guard]`.
    #[serde(default)]
    pub(crate) guard: Guard,
    /// Where Prometheus reads the gateway's metrics.
    pub(crate) metrics: Option<SocketAddr>,
}

/// `[[node]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    pub(crate) id: u16,
    /// `host:port` where the gateway reaches it.
    pub(crate) address: String,
    /// `host:port` where clients reach it, when that is another address; empty when they can't.
    pub(crate) advertise: Option<String>,
    /// Where the node itself listens, when that is another address (behind NAT, or 0.0.0.0).
    pub(crate) listen: Option<String>,
    /// Its directory.
    pub(crate) data: PathBuf,
    pub(crate) capacity: Option<Size>,
    #[serde(default = "default_weight")]
    pub(crate) weight: u32,
    /// Failure domains, outermost first: `["zone-a", "rack-3"]`.
    #[serde(default)]
    pub(crate) domain: Vec<String>,
    #[serde(default = "default_node_buffers")]
    pub(crate) buffers: Size,
    #[serde(default = "default_engine")]
    pub(crate) engine: String,
    /// Where Prometheus reads the node's metrics.
    pub(crate) metrics: Option<SocketAddr>,
}

fn default_domains() -> Vec<String> {
    vec!["localhost".to_owned(), "s3.localhost".to_owned()]
}
fn default_gateway_buffers() -> Size {
    Size(96 << 20)
}
fn default_node_buffers() -> Size {
    Size(64 << 20)
}
fn default_grace() -> u64 {
    60
}
fn default_lifecycle_day() -> u64 {
    DAY_SECONDS
}
fn default_sets() -> usize {
    penstock_placement::SETS_PER_NODE
}
fn default_weight() -> u32 {
    100
}
fn default_engine() -> String {
    "auto".to_owned()
}

impl Config {
    /// Reads and checks the file. Relative paths in it are relative to it.
    pub(crate) fn read(path: &Path) -> Result<Self, Fatal> {
        let text = std::fs::read_to_string(path).map_err(|error| Fatal::doing(path.display(), error))?;
        let mut config = Self::parse(&text).map_err(|error| Fatal::doing(path.display(), error))?;
        let base = path.parent().unwrap_or(Path::new("."));
        config.cluster.key_file = base.join(&config.cluster.key_file);
        config.gateway.data = base.join(&config.gateway.data);
        let guard = &mut config.gateway.guard;
        let paths = [
            &mut guard.tls_certificate,
            &mut guard.tls_key,
            &mut guard.access_log,
            &mut guard.audit_log,
            &mut guard.encryption_key_file,
        ];
        for path in paths.into_iter().chain([&mut config.gateway.events]).flatten() {
            *path = base.join(&*path);
        }
        for node in &mut config.nodes {
            node.data = base.join(&node.data);
        }
        Ok(config)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if config.nodes.is_empty() {
            return Err("there is no [[node]]: name one at least".to_owned());
        }
        let mut ids = HashSet::new();
        let mut addresses = HashSet::new();
        if config.cluster.placement_sets_per_node == 0 {
            return Err("placement_sets_per_node is 0: give it 1 or more".to_owned());
        }
        if config.cluster.storage_classes.len() > penstock_gateway::policies::CLASSES_MAX {
            return Err(format!("at most {} storage classes", penstock_gateway::policies::CLASSES_MAX));
        }
        for node in &config.nodes {
            if !ids.insert(node.id) {
                return Err(format!("two nodes have id {}", node.id));
            }
            if !addresses.insert(node.address.as_str()) {
                return Err(format!("two nodes have address {}", node.address));
            }
            if node.weight == 0 {
                return Err(format!("{} has weight 0: leave it out, or give it a weight", NodeId(node.id)));
            }
        }
        Ok(config)
    }

    /// Where clients reach the nodes.
    pub(crate) fn node_addresses(&self) -> HashMap<NodeId, Vec<NodeAddress>> {
        let address = |node: &Node| node.advertise.clone().unwrap_or_else(|| node.address.clone());
        let reachable = self.nodes.iter().filter(|node| !address(node).is_empty());
        // Whether a node has a device it says itself, when a client that has one asks.
        let transports: &[&str] = if self.cluster.rdma == Use::Off { &["tcp"] } else { &["rdma", "tcp"] };
        reachable.map(|node| (NodeId(node.id), addresses(transports, &address(node)))).collect()
    }

    /// The code of new objects, which the nodes must be able to hold.
    pub(crate) fn code(&self) -> Result<Code, Fatal> {
        for code in self.cluster.storage_classes.values() {
            code_for(Some(*code), self.nodes.len())?;
        }
        code_for(self.cluster.code, self.nodes.len())
    }
}

/// `asked`, or the default for so many nodes; refused when they can't hold it.
pub(crate) fn code_for(asked: Option<Code>, nodes: usize) -> Result<Code, Fatal> {
    let code = asked.unwrap_or_else(|| Code::default_for_nodes(nodes));
    if code.n() > nodes {
        return Err(Fatal(format!(
            "{code} keeps {} data and {} parity shards on {} different nodes, and there are {nodes}: give {} nodes, or a \
             narrower code ({} is the widest default for {nodes})",
            code.k(),
            code.m(),
            code.n(),
            code.n(),
            Code::default_for_nodes(nodes)
        )));
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[cluster]
key_file = "cluster.key"
[gateway]
listen = "127.0.0.1:9000"
data = "gateway"
[[node]]
id = 0
address = "127.0.0.1:7400"
data = "node-00"
"#;

    #[test]
    fn a_small_file_is_enough() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.code().unwrap(), Code::ONE_COPY);
        assert_eq!(config.gateway.buffers, Size(96 << 20));
        assert_eq!(config.gateway.plan_inline.bytes(), 128 << 10);
        let none = Config::parse(&GOOD.replace(
            "data = \"gateway\"",
            "data = \"gateway\"\nplan_inline = \"0\"\n[gateway.rdma]\nsessions_max = 5",
        ));
        let none = none.unwrap().gateway;
        assert_eq!((none.plan_inline.bytes(), none.rdma.options().unwrap().caps.sessions_max), (0, 5));
        assert_eq!(config.cluster.rdma, crate::rails::Use::Auto);
        let required =
            Config::parse(&GOOD.replace("[gateway]", "rdma = \"require\"\nrdma_devices = [\"rxe0:1\"]\n[gateway]"));
        assert_eq!(required.unwrap().cluster.rdma, crate::rails::Use::Require);
    }

    #[test]
    fn plans_name_each_transport_that_a_node_may_have() {
        let config = Config::parse(GOOD).unwrap();
        let transports = |config: &Config| -> Vec<String> {
            config.node_addresses()[&NodeId(0)].iter().map(|address| address.transport.clone()).collect()
        };
        assert_eq!(transports(&config), ["rdma", "tcp"]);
        let off = Config::parse(&GOOD.replace("[gateway]", "rdma = \"off\"\n[gateway]")).unwrap();
        assert_eq!(transports(&off), ["tcp"]);
        let hidden = Config::parse(&GOOD.replace("id = 0", "id = 0\nadvertise = \"\"")).unwrap();
        assert!(hidden.node_addresses().is_empty());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (from, to, says) in [
            ("key_file", "keyfile", "keyfile"),
            ("id = 0", "id = 0\nwieght = 3", "wieght"),
            ("id = 0", "id = 0\nweight = 0", "weight 0"),
            ("[gateway]", "code = \"RS(0,1)\"\n[gateway]", "RS(0,1)"),
            ("[gateway]", "storage_classes = { COLD = \"RS(1,2,3)\" }\n[gateway]", "no code"),
            ("[gateway]", "storage_classes = { cold = \"3x\" }\n[gateway]", "no storage class"),
            ("[gateway]", "spread = \"perhaps\"\n[gateway]", "warn"),
            ("[gateway]", "rdma = \"yes\"\n[gateway]", "auto"),
            ("127.0.0.1:9000", "somewhere", "socket address"),
            ("data = \"gateway\"", "data = \"gateway\"\nbuffers = \"much\"", "no size"),
        ] {
            let error = Config::parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(says), "{says:?} is not in {error}");
        }
        let twice = format!("{GOOD}\n[[node]]\nid = 0\naddress = \"127.0.0.1:7401\"\ndata = \"x\"\n");
        assert!(Config::parse(&twice).unwrap_err().contains("two nodes have id 0"));
    }

    #[test]
    fn a_code_that_the_nodes_cannot_hold_is_refused_with_the_numbers() {
        let text = code_for(Some(Code::new(4, 2).unwrap()), 3).unwrap_err().to_string();
        for part in ["RS(4,2)", "6", "3", "RS(2,1)"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn storage_classes_are_read_and_must_fit() {
        let with = |classes: &str| Config::parse(&GOOD.replace("[gateway]", &format!("{classes}\n[gateway]"))).unwrap();
        let config = with("storage_classes = { ONEZONE_IA = \"1x\", COLD = \"LRC(12,2,2)\" }\nspread = \"require\"");
        assert_eq!(config.cluster.storage_classes["ONEZONE_IA"], Code::ONE_COPY);
        assert_eq!((config.cluster.spread, config.cluster.placement_sets_per_node), (Spread::Require, 10));
        let text = config.code().unwrap_err().to_string();
        assert!(text.contains("LRC(12,2,2)") && text.contains("16"), "{text}");
    }

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes) in
            [("1", 1), ("64MiB", 64 << 20), ("20 GiB", 20 << 30), ("1TB", 1_000_000_000_000), ("8k", 8192)]
        {
            assert_eq!(text.parse::<Size>().unwrap(), Size(bytes));
        }
        assert_eq!(Size(64 << 20).to_string(), "64MiB");
        for bad in ["", "0", "GiB", "-1", "1.5GiB", "99999999999TiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}
