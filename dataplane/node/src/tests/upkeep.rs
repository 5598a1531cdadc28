//! What the keepers of the store ask, over both transports.

use penstock_proto::limits::UPKEEP_SHARDS_MAX;
use penstock_proto::upkeep::{ListedShard, ShardClaim, ShardState};

use super::*;
use crate::ScrubOptions;

fn upkeep(house: &House) -> Capability {
    Capability::sign(&house.key, Rights::UPKEEP, STATUS_DATA, NOW_MS + 1000)
}

fn claim(stripe: u32, whole: &[u8]) -> ShardClaim {
    ShardClaim { key: shard(stripe, 0), crc64: crc64nvme(whole) }
}

#[tokio::test]
async fn shards_are_listed_and_checked() {
    for net in [Net::Mem, Net::Tcp] {
        let house = House::build(net).await;
        for stripe in 0..10 {
            house.put(shard(stripe, 0), &bytes(100, stripe as u8)).await;
        }
        let capability = upkeep(&house);
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let request = NodeRequest::List { capability, after, broken: false };
            let (reply, landed) = house.ask(&request, &[], 4 * ListedShard::ENCODED_BYTES).await;
            let NodeReply::Listed { shards, more } = reply else { panic!("{reply:?}") };
            let page = ListedShard::decode_all(&landed).unwrap();
            assert_eq!(page.len(), shards as usize);
            after = page.last().map(|shard| shard.key);
            seen.extend(page);
            if !more {
                break;
            }
        }
        assert_eq!(
            seen.iter().map(|shard| shard.key).collect::<Vec<_>>(),
            (0..10).map(|i| shard(i, 0)).collect::<Vec<_>>()
        );
        let broken = NodeRequest::List { capability, after: None, broken: true };
        assert_eq!(house.ask(&broken, &[], 1000).await.0, NodeReply::Listed { shards: 0, more: false });

        let claims = [claim(3, &bytes(100, 3)), claim(4, &bytes(100, 3)), claim(99, b"x")];
        let request = NodeRequest::Check { capability, shards: 3 };
        let (reply, states) = house.ask(&request, &ShardClaim::encode_all(&claims), 3).await;
        assert_eq!(reply, NodeReply::Checked { shards: 3 });
        assert_eq!(states, [ShardState::Sound, ShardState::Other, ShardState::Missing].map(|state| state as u8));
        // Lengths that don't fit, and the wrong right.
        assert_refused(&house.ask(&request, b"x", 3).await.0, NodeErrorCode::BadRequest, "3 shards");
        assert_refused(
            &house.ask(&request, &ShardClaim::encode_all(&claims), 2).await.0,
            NodeErrorCode::BadRequest,
            "room",
        );
        assert_refused(&house.ask(&broken, &[], 0).await.0, NodeErrorCode::BadRequest, "room");
        let capability = house.capability(Rights::STATUS);
        let list = NodeRequest::List { capability, after: None, broken: false };
        assert_refused(&house.ask(&list, &[], 100).await.0, NodeErrorCode::Forbidden, "");
        house.close().await;
    }
    const { assert!(UPKEEP_SHARDS_MAX * ListedShard::ENCODED_BYTES <= limits::SHARD_BYTES_MAX) }
}

#[tokio::test]
async fn a_scrub_that_is_asked_for_finds_rot_and_tells() {
    let house = House::build(Net::Mem).await;
    for stripe in 0..4 {
        house.put(shard(stripe, 0), &bytes(50_000, stripe as u8)).await;
    }
    let scrubbing = {
        let node = Arc::clone(&house.node);
        let file = Some(house._dir.path().join("scrub"));
        tokio::spawn(async move { node.scrub_forever(ScrubOptions { file, ..ScrubOptions::default() }).await })
    };
    flip_payload(&house, &bytes(50_000, 2));
    let began = house.node.status().scrub;
    house.clock.advance_ms(5);
    let capability = upkeep(&house);
    assert_eq!(
        house.ask(&NodeRequest::Scrub { capability, bytes_per_s: 1 << 30 }, &[], 0).await.0,
        NodeReply::Scrubbing
    );
    let mut status = house.node.status();
    for _ in 0..1000 {
        status = house.node.status();
        if status.scrub.last_ended_unix_ms > began.last_ended_unix_ms.max(NOW_MS + 4) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status.broken_shards, 1, "{status:?}");
    let (reply, landed) = house.ask(&NodeRequest::List { capability, after: None, broken: true }, &[], 100).await;
    assert_eq!(reply, NodeReply::Listed { shards: 1, more: false });
    assert_eq!(ListedShard::decode_all(&landed).unwrap()[0].key, shard(2, 0));
    scrubbing.abort();
    house.close().await;
}

/// Flips a bit in the middle of where these bytes lie on the device.
fn flip_payload(house: &House, whole: &[u8]) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(&house.device).unwrap();
    let mut device = vec![0; 64 << 20];
    file.read_exact(&mut device).unwrap();
    let at = device.windows(64).position(|window| window == &whole[..64]).expect("the payload is on the device");
    file.seek(SeekFrom::Start(at as u64 + 20_000)).unwrap();
    file.write_all(&[device[at + 20_000] ^ 4]).unwrap();
}
