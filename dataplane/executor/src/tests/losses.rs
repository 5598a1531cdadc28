//! What each code survives, tried pattern by pattern; and what a read around a loss asks for.

use penstock_erasure::Lrc;
use penstock_proto::{LRC_GLOBALS_MAX, LRC_GROUPS_MAX, limits};

use super::*;

/// Reads a stripe without the shards of each of `patterns`, and says how many could be read. What can't, must say so.
async fn readable(code: Code, patterns: impl Iterator<Item = u64>) -> (usize, usize) {
    // No shard of zeros alone: those are known without any node.
    let data = bytes(code.k() * 128);
    let mut cluster = Cluster::new(code.n(), patient());
    let target = target(code);
    let stored = cluster.store(&target, &data).await;
    let (mut read, mut lost) = (0, 0);
    for pattern in patterns {
        for (id, node) in cluster.nodes.iter().enumerate() {
            match pattern >> id & 1 {
                1 => cluster.transport.detach(NodeId(id as u16)),
                _ => cluster.transport.attach(NodeId(id as u16), Arc::clone(node) as _),
            }
        }
        cluster.fresh_executor(patient());
        match cluster.read(&target, &stored, 0..data.len()).await {
            Ok(bytes) => {
                assert!(bytes == data, "{code} without {pattern:b}");
                read += 1;
            }
            Err(error) => {
                assert!(matches!(error, ExecutorError::TooFewShards { .. }), "{code} without {pattern:b}: {error}");
                assert!(code.rank(code.all() & !pattern) < code.k(), "{code} without {pattern:b}: {error}");
                lost += 1;
            }
        }
    }
    cluster.expect_no_buffers_in_use().await;
    (read, lost)
}

fn patterns(n: usize, losses: u32) -> impl Iterator<Item = u64> {
    (0u64..1 << n).filter(move |pattern| pattern.count_ones() == losses)
}

#[tokio::test(start_paused = true)]
async fn any_4_of_14_of_rs_10_4() {
    assert_eq!(readable(code(10, 4), patterns(14, 4)).await, (1001, 0));
}

#[tokio::test(start_paused = true)]
async fn any_3_and_the_decodable_4s_of_16_of_lrc_12_2_2() {
    assert_eq!(readable(azure(), patterns(16, 3)).await, (560, 0));
    assert_eq!(readable(azure(), patterns(16, 4)).await, (1568, 252));
}

#[tokio::test(start_paused = true)]
async fn any_two_copies_of_three() {
    assert_eq!(readable(Code::replicas(3).unwrap(), 0..8).await, (7, 1));
}

#[tokio::test]
async fn a_lost_shard_of_an_lrc_is_read_from_its_six_neighbours() {
    let data = bytes(12 * 1024);
    let cluster = Cluster::new(16, patient());
    let target = target(azure());
    let stored = cluster.store(&target, &data).await;
    cluster.nodes[3].shards.lock().clear();
    // The lost kilobyte alone.
    assert_eq!(cluster.read(&target, &stored, 3072..4096).await.unwrap(), data[3072..4096]);
    assert_eq!(cluster.gets(), [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    // All of it: the group's parity, and nothing else, beside the data.
    assert_eq!(cluster.read(&target, &stored, 0..data.len()).await.unwrap(), data);
    assert_eq!(cluster.gets(), [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 2, 0, 0, 0]);
}

#[test]
fn every_lrc_that_has_a_name_is_one_for_which_the_arithmetic_of_losses_holds() {
    for k in 1..=limits::SHARDS_PER_STRIPE_MAX {
        for l in 1..=LRC_GROUPS_MAX {
            for g in 1..=LRC_GLOBALS_MAX {
                let Ok(code) = Code::lrc(k, l, g) else { continue };
                let kernel = Lrc::new(k, l, g).unwrap();
                assert!(kernel.is_maximally_recoverable(), "{code}");
                for group in 0..l {
                    let members = kernel.members(group).fold(1 << (k + group), |set: u64, shard| set | 1 << shard);
                    assert_eq!(code.group(group), members, "{code}");
                }
            }
        }
    }
}
