//! Nodes that are lost, come back, come back empty, rot and are emptied: everything is whole again afterwards, payload
//! moves between nodes alone, and nothing is left that nobody refers to.

use std::sync::Arc;
use std::time::Duration;

use penstock_gateway::GatewayOptions;
use penstock_gateway::api::DeleteObject;
use penstock_gateway::error::ErrorKind;
use penstock_gateway::upkeep::{NodeState, Repaired};
use penstock_meta::tables::Tables;
use penstock_proto::{Code, DataId, NodeId, ShardKey};

use crate::house::{BUCKET, House, MIB, Meta, NOTHING, code, kind, random_bytes};
use crate::multipart::complete;

const LOST_MS: u64 = 16 * 60 * 1000;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// RS(4,2) on eight nodes, with objects of every layout: one stripe, inline, manifest rows, parts, an open upload.
async fn furnished(count: usize) -> (House, Vec<(String, Vec<u8>)>) {
    let house = House::with_nodes(count, code(4, 2), Meta::Mem, |_| {}).await;
    let mut objects = Vec::new();
    for (number, size) in [1, 200, 70_000, 4 * MIB, 9 * MIB + 5, 0, 41 * MIB].into_iter().enumerate() {
        objects.push((format!("plain/{number}"), random_bytes(number as u64, size)));
    }
    for (key, bytes) in &objects {
        house.put(key, bytes).await.unwrap();
    }
    let upload = house.upload("parts").await;
    let parts = [random_bytes(50, 5 * MIB), random_bytes(51, 5 * MIB + 9)];
    let mut done = Vec::new();
    for (number, bytes) in (1..).zip(&parts) {
        done.push(house.part("parts", &upload, number, bytes).await.unwrap());
    }
    house.gateway.complete_upload(complete("parts", &upload, &[&done[0], &done[1]])).await.unwrap();
    objects.push(("parts".to_owned(), parts.concat()));
    let open = house.upload("open").await;
    house.part("open", &open, 1, &random_bytes(52, 5 * MIB)).await.unwrap();
    (house, objects)
}

async fn all_read(house: &House, objects: &[(String, Vec<u8>)]) {
    for (key, bytes) in objects {
        assert!(house.get(key).await.unwrap() == *bytes, "{key}");
    }
}

/// Every object can be read without any two of these nodes.
async fn survives_any_two(house: &House, objects: &[(String, Vec<u8>)], alive: &[usize]) {
    for (at, one) in alive.iter().enumerate() {
        let other = alive[(at + 1) % alive.len()];
        house.lose(*one);
        house.lose(other);
        all_read(house, objects).await;
        house.bring_back(*one);
        house.bring_back(other);
    }
}

/// Repairs until nothing is ready, as the background would: with a survey whenever one is wished for.
async fn settle(house: &House) -> Repaired {
    let mut total = Repaired::default();
    for _ in 0..20 {
        let survey = house.gateway.survey_if_wished_now().await.unwrap();
        let repaired = house.gateway.repair_now().await.unwrap();
        total.done += repaired.done;
        total.shards += repaired.shards;
        total.reads += repaired.reads;
        total.put_off += repaired.put_off;
        if survey.is_none() && repaired == Repaired::default() {
            break;
        }
    }
    total
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_write_left_out_is_rebuilt_when_its_node_is_back() {
    let house = House::new(code(4, 2)).await;
    let bytes = random_bytes(1, 9 * MIB);
    house.lose(3);
    house.put("k", &bytes).await.unwrap();
    let tables = Tables::new(house.kv.clone());
    assert_eq!(tables.repair_queue(10).await.unwrap().len(), 3);
    house.gateway.look_at_nodes_now().await;
    assert_eq!(house.gateway.upkeep_report().nodes[3].state, NodeState::Down);
    assert_eq!(house.gateway.repair_now().await.unwrap().shards, 0, "its node is down");

    house.bring_back(3);
    house.clock.advance_ms(60_000);
    house.gateway.look_at_nodes_now().await;
    let (payload, gets) = (house.gateway.stats().payload_bytes(), house.gets());
    let repaired = settle(&house).await;
    assert_eq!((repaired.shards, repaired.reads), (3, 12), "{repaired:?}");
    assert_eq!(house.gets() - gets, 12, "four reads a stripe");
    assert_eq!(house.gateway.stats().payload_bytes(), payload, "no payload passes through the gateway");
    assert_eq!(house.shards(), 18);
    assert!(tables.repair_queue(10).await.unwrap().is_empty());
    let found = house.gateway.survey_now().await.unwrap();
    assert!(found.under_replicated.is_empty() && found.shards_bad == 0, "{found:?}");
    house.lose(0);
    house.lose(5);
    assert!(house.get("k").await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_of_rs_10_4_takes_ten_reads() {
    let house = House::new(code(10, 4)).await;
    house.lose(2);
    house.put("k", &random_bytes(1, 4 * MIB)).await.unwrap();
    house.bring_back(2);
    house.gateway.look_at_nodes_now().await;
    let gets = house.gets();
    let repaired = settle(&house).await;
    assert_eq!((repaired.shards, repaired.reads, house.gets() - gets), (1, 10, 10));
    assert_eq!(house.shards(), 14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_shard_of_lrc_12_2_2_takes_six_reads() {
    let house = House::new(Code::lrc(12, 2, 2).unwrap()).await;
    // Rot on every node in turn: each shard of the stripe is rebuilt once, where it was.
    house.put("k", &random_bytes(1, 4 * MIB)).await.unwrap();
    let mut reads = Vec::new();
    for node in 0..16 {
        house.lose(node);
        house.put(&format!("without/{node}"), &random_bytes(2, 4 * MIB)).await.unwrap();
        house.bring_back(node);
        house.gateway.look_at_nodes_now().await;
        let gets = house.gets();
        let repaired = settle(&house).await;
        assert_eq!((repaired.shards, repaired.reads), (1, house.gets() - gets));
        reads.push(repaired.reads);
    }
    // Which shard a node has of which object is placement's to say: 14 of 16 are data or local parity.
    assert!(reads.iter().all(|reads| [6, 12].contains(reads)) && reads.contains(&6), "{reads:?}");
    assert_eq!(house.shards(), 17 * 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stays_away_is_replaced() {
    let (house, objects) = furnished(9).await;
    let (shards, lost) = (house.shards(), 4);
    assert!(house.shards_on(lost) > 0);
    house.lose(lost);
    house.gateway.look_at_nodes_now().await;
    assert_eq!(house.gateway.survey_if_wished_now().await.unwrap(), None, "it may come back");
    house.clock.advance_ms(LOST_MS);
    house.gateway.look_at_nodes_now().await;
    assert_eq!(house.gateway.upkeep_report().nodes[lost].state, NodeState::Lost);
    let payload = house.gateway.stats().payload_bytes();
    let repaired = settle(&house).await;
    assert_eq!(repaired.shards, house.shards_on(lost));
    assert_eq!(house.gateway.stats().payload_bytes(), payload);
    assert_eq!(house.shards(), shards + house.shards_on(lost), "the lost node's own are still on it");
    let found = house.gateway.survey_now().await.unwrap();
    assert!(found.under_replicated.is_empty(), "{found:?}");
    let alive: Vec<usize> = (0..9).filter(|node| *node != lost).collect();
    survives_any_two(&house, &objects, &alive).await;
    // New data does not go there.
    house.put("new", &random_bytes(7, 9 * MIB)).await.unwrap();
    house.gateway.survey_now().await.unwrap();
    assert_eq!(house.gateway.upkeep_report().nodes[lost].runs, 0);

    // It is back after all: what it has is there for nothing, and goes after the grace.
    house.bring_back(lost);
    let old = house.shards_on(lost);
    house.gateway.keep_now().await.unwrap();
    house.clock.advance_ms(DAY_MS / 2);
    house.gateway.keep_now().await.unwrap();
    assert_eq!(house.shards_on(lost), old, "not before the grace");
    house.clock.advance_ms(DAY_MS);
    let (found, _) = house.gateway.keep_now().await.unwrap();
    assert_eq!((found.strays_deleted_shards, house.shards_on(lost)), (old, 0));
    all_read(&house, &objects).await;
    // And when all is deleted, nothing is left anywhere.
    let keys = objects.iter().map(|(key, _)| key.as_str()).chain(["new"]);
    for key in keys {
        let delete = DeleteObject { bucket: BUCKET.into(), key: key.into(), ..DeleteObject::default() };
        house.gateway.delete_object(delete).await.unwrap();
    }
    let held = house.held_after_collecting().await;
    // The open upload's part.
    assert_eq!((held.shards, held.garbage_rows), (2 * 6, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_by_copies_and_gets_nothing_new() {
    let (house, objects) = furnished(8).await;
    let drained = 1;
    let had = house.shards_on(drained);
    assert!(had > 0);
    house.gateway.look_at_nodes_now().await;
    house.gateway.drain_node(NodeId(1), true).await.unwrap();
    house.put("meanwhile", &random_bytes(7, 30 * MIB)).await.unwrap();
    assert_eq!(house.shards_on(drained), had, "nothing new");
    let repaired = settle(&house).await;
    // Shards of nothing but zeros, past the end of short chunks, are not even read.
    assert!(
        repaired.shards == had && repaired.reads <= had,
        "one read for each, they are copied: {repaired:?} of {had}"
    );
    let found = house.gateway.survey_now().await.unwrap();
    assert_eq!(found.shards_bad, 0);
    let report = house.gateway.upkeep_report();
    assert_eq!((report.nodes[drained].runs, report.nodes[drained].state), (0, NodeState::Draining));
    // It can be taken away.
    house.lose(drained);
    survives_any_two(&house, &objects, &[0, 2, 3, 4, 5, 6, 7]).await;
    house.bring_back(drained);
    house.clock.advance_ms(2 * DAY_MS);
    house.gateway.keep_now().await.unwrap();
    assert_eq!(house.shards_on(drained), 0, "what was copied is gone from it");
    // Kept over a restart of the gateway, and ended by hand.
    let again = house.gateway_over(house.kv.clone());
    again.look_at_nodes_now().await;
    assert_eq!(again.upkeep_report().nodes[drained].state, NodeState::Draining);
    again.drain_node(NodeId(1), false).await.unwrap();
    assert_eq!(again.upkeep_report().nodes[drained].state, NodeState::Up);
    // Two more leave six, which is what the code needs; a third is refused.
    for node in [2, 3] {
        again.drain_node(NodeId(node), true).await.unwrap();
    }
    assert_eq!(kind(again.drain_node(NodeId(4), true).await), ErrorKind::InvalidArgument);
    assert_eq!(kind(again.drain_node(NodeId(99), true).await), ErrorKind::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_empty_is_filled() {
    let (mut house, objects) = furnished(6).await;
    let had = house.shards_on(2);
    house.gateway.keep_now().await.unwrap();
    house.lose(2);
    house.gateway.look_at_nodes_now().await;
    house.replace_device(2).await;
    assert_eq!(house.shards_on(2), 0);
    house.gateway.look_at_nodes_now().await;
    let repaired = settle(&house).await;
    assert_eq!((repaired.shards, house.shards_on(2)), (had, had));
    survives_any_two(&house, &objects, &[0, 1, 3, 4, 5]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_another_node_a_lost_one_is_waited_for() {
    let (house, objects) = furnished(6).await;
    house.lose(5);
    house.gateway.look_at_nodes_now().await;
    house.clock.advance_ms(LOST_MS);
    house.gateway.look_at_nodes_now().await;
    let repaired = settle(&house).await;
    assert!(repaired.shards == 0 && repaired.put_off > 0, "{repaired:?}");
    let report = house.gateway.upkeep_report();
    assert!(report.repaired.blocked > 0 && report.queued_by_spare.keys().all(|spare| *spare == 1), "{report:?}");
    all_read(&house, &objects).await;
    house.put("more", b"with five of six").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nothing_refers_to_goes_after_the_grace_and_nothing_else_does() {
    let house = House::with(code(2, 1), Meta::Mem, |options: &mut GatewayOptions| {
        options.upkeep.stray_grace = Duration::ZERO;
    })
    .await;
    house.put("k", &random_bytes(1, 9 * MIB)).await.unwrap();
    let shards = house.shards();
    let key = ShardKey { data: DataId(77), stripe: 0, shard: 0 };
    let bytes = vec![7; 100];
    house.nodes[1].1.put(key, bytes.clone().into(), penstock_digest::crc64nvme(&bytes)).await.unwrap();
    // A body on its way in all the while.
    let (sender, receiver) = futures::channel::mpsc::unbounded();
    let slow = {
        let gateway = house.gateway.clone();
        let put = penstock_gateway::api::PutObject {
            body: Box::pin(receiver),
            content_bytes: None,
            ..crate::house::put("slow", b"")
        };
        tokio::spawn(async move { gateway.put_object(put).await })
    };
    let body = random_bytes(2, 12 * MIB);
    sender.unbounded_send(Ok(body[..6 * MIB].to_vec().into())).unwrap();
    while house.shards() < shards + 1 + 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (first, _) = house.gateway.keep_now().await.unwrap();
    assert_eq!((first.strays, first.strays_deleted), (1, 0), "seen once");
    house.clock.advance_ms(1);
    let (second, _) = house.gateway.keep_now().await.unwrap();
    assert_eq!((second.strays_deleted, second.strays_deleted_shards), (1, 1));
    house.clock.advance_ms(1);
    assert_eq!(house.gateway.keep_now().await.unwrap().0.strays, 0);
    sender.unbounded_send(Ok(body[6 * MIB..].to_vec().into())).unwrap();
    drop(sender);
    slow.await.unwrap().unwrap();
    assert!(house.get("slow").await.unwrap() == body);
    house.clock.advance_ms(1);
    let (last, _) = house.gateway.keep_now().await.unwrap();
    assert_eq!((last.strays, last.shards_bad, last.strays_deleted), (0, 0, 0));
    for key in ["k", "slow"] {
        let delete = DeleteObject { bucket: BUCKET.into(), key: key.into(), ..DeleteObject::default() };
        house.gateway.delete_object(delete).await.unwrap();
    }
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repairs_and_writers_at_the_same_time_lose_nothing_and_leave_nothing() {
    let (house, _) = furnished(8).await;
    let house = Arc::new(house);
    house.gateway.look_at_nodes_now().await;
    let writer = |seed: u64| {
        let house = Arc::clone(&house);
        tokio::spawn(async move {
            let mut last = Vec::new();
            for round in 0..25 {
                let (key, bytes) = (format!("w{seed}/{}", round % 3), random_bytes(seed * 1000 + round, 300_000));
                house.put(&key, &bytes).await.unwrap();
                if round % 5 == 4 {
                    let delete = DeleteObject { bucket: BUCKET.into(), key, ..DeleteObject::default() };
                    house.gateway.delete_object(delete).await.unwrap();
                } else {
                    last.retain(|(before, _): &(String, Vec<u8>)| *before != key);
                    last.push((key, bytes));
                }
                if round % 5 == 4 {
                    last.retain(|(before, _)| *before != format!("w{seed}/{}", round % 3));
                }
            }
            last
        })
    };
    let writers = [writer(1), writer(2)];
    for node in [6, 7, 6, 7] {
        house.gateway.drain_node(NodeId(node), true).await.unwrap();
        settle(&house).await;
        house.gateway.drain_node(NodeId(node), false).await.unwrap();
    }
    let mut last = Vec::new();
    for writer in writers {
        last.extend(writer.await.unwrap());
    }
    settle(&house).await;
    all_read(&house, &last).await;
    house.collect().await;
    // What repairs of data that went meanwhile have left is found and removed.
    house.gateway.keep_now().await.unwrap();
    house.clock.advance_ms(DAY_MS + 1);
    house.gateway.keep_now().await.unwrap();
    let (found, _) = house.gateway.keep_now().await.unwrap();
    assert_eq!((found.strays, found.shards_bad), (0, 0), "{found:?}");
    assert!(found.under_replicated.is_empty(), "{found:?}");
    all_read(&house, &last).await;
}
