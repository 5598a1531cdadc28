//! Which guests there are, and how they are joined.

use std::net::Ipv4Addr;

use crate::error::{LabError, Result};

/// Nodes in a cluster at most: each guest takes memory and a share of the cores.
pub(crate) const NODES_MAX: usize = 6;

/// One guest of a topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Role {
    /// Its name, which the other guests can resolve.
    pub(crate) name: String,
    /// Its address, on the device `lab0`, which carries `rxe0`.
    pub(crate) address: Ipv4Addr,
    /// Whether it has an NVMe disk, mounted at /data.
    pub(crate) has_disk: bool,
}

/// A set of guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One guest, called `one`, whose RDMA device sits on a veth pair.
    One,
    /// Two guests, `a` and `b`, with disks.
    Pair,
    /// `client`, `gateway` and `node1`..; gateway and nodes have disks.
    Cluster {
        /// How many nodes.
        nodes: usize,
    },
}

impl Topology {
    /// The guests.
    pub(crate) fn roles(self) -> Vec<Role> {
        let names: Vec<(String, bool)> = match self {
            Topology::One => vec![("one".to_owned(), true)],
            Topology::Pair => vec![("a".to_owned(), true), ("b".to_owned(), true)],
            Topology::Cluster { nodes } => [("client".to_owned(), false), ("gateway".to_owned(), true)]
                .into_iter()
                .chain((1..=nodes).map(|number| (format!("node{number}"), true)))
                .collect(),
        };
        let with_address = |(number, (name, has_disk)): (u8, (String, bool))| Role {
            name,
            address: Ipv4Addr::new(10, 77, 0, 10 + number),
            has_disk,
        };
        (0..).zip(names).map(with_address).collect()
    }

    /// Whether guests are joined by a network between them.
    pub(crate) fn is_joined(self) -> bool {
        self != Topology::One
    }
}

impl std::str::FromStr for Topology {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Topology> {
        match text.split_once(':') {
            None if text == "one" => Ok(Topology::One),
            None if text == "pair" => Ok(Topology::Pair),
            None if text == "cluster" => Ok(Topology::Cluster { nodes: 3 }),
            Some(("cluster", nodes)) if nodes.parse().is_ok_and(|nodes| (1..=NODES_MAX).contains(&nodes)) => {
                Ok(Topology::Cluster { nodes: nodes.parse().expect("checked just now") })
            }
            _ => Err(LabError::Setup(format!(
                "'{text}' is no topology: one, pair, cluster (3 nodes), cluster:N with N of 1 to {NODES_MAX}"
            ))),
        }
    }
}

impl std::fmt::Display for Topology {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Topology::One => write!(to, "one"),
            Topology::Pair => write!(to, "pair"),
            Topology::Cluster { nodes } => write!(to, "cluster:{nodes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topologies_parse_and_print() {
        for text in ["one", "pair", "cluster:3", "cluster:6"] {
            assert_eq!(text.parse::<Topology>().expect(text).to_string(), text);
        }
        assert_eq!("cluster".parse::<Topology>().expect("3 nodes").roles().len(), 5);
        for text in ["", "two", "cluster:0", "cluster:7", "cluster:x", "one:1"] {
            text.parse::<Topology>().expect_err(text);
        }
    }

    #[test]
    fn addresses_differ() {
        let roles = Topology::Cluster { nodes: NODES_MAX }.roles();
        let addresses: std::collections::HashSet<_> = roles.iter().map(|role| role.address).collect();
        assert_eq!(addresses.len(), NODES_MAX + 2);
        assert_eq!(roles[1].name, "gateway");
    }
}
