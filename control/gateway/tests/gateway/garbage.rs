//! What becomes of data that no row names.

use std::time::Duration;

use penstock_gateway::GatewayOptions;
use penstock_gateway::api::DeleteObject;

use crate::house::{BUCKET, House, MIB, Meta, NOTHING, code, random_bytes};

fn delete(key: &str) -> DeleteObject {
    DeleteObject { bucket: BUCKET.into(), key: key.into(), ..DeleteObject::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_a_grace() {
    let house = House::new(code(2, 1)).await;
    house.put("k", &random_bytes(1, 5 * MIB)).await.unwrap();
    house.gateway.delete_object(delete("k")).await.unwrap();
    let collected = house.gateway.collect_garbage_now().await.unwrap();
    assert_eq!((collected.data, house.shards()), (0, 6));
    house.clock.advance_ms(59_000);
    assert_eq!(house.gateway.collect_garbage_now().await.unwrap().data, 0);
    house.clock.advance_ms(1_001);
    let collected = house.gateway.collect_garbage_now().await.unwrap();
    assert_eq!((collected.data, collected.shards, collected.left), (1, 6, 0));
    assert_eq!(house.held().await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_away_holds_up_nobody_else() {
    let house = House::new(code(2, 1)).await;
    for i in 0..40 {
        house.put(&format!("k{i}"), b"x").await.unwrap();
    }
    house.lose(1);
    for i in 0..40 {
        house.gateway.delete_object(delete(&format!("k{i}"))).await.unwrap();
    }
    house.clock.advance_ms(61_000);
    let collected = house.gateway.collect_garbage_now().await.unwrap();
    assert_eq!((collected.data, collected.shards, collected.left), (0, 80, 40));
    assert_eq!(house.shards(), 40);
    let collected = house.gateway.collect_garbage_now().await.unwrap();
    assert_eq!(collected.left, 0, "they are not due again yet");
    house.bring_back(1);
    house.clock.advance_ms(61_000);
    let collected = house.gateway.collect_garbage_now().await.unwrap();
    assert_eq!((collected.data, collected.shards, collected.left), (40, 40, 0));
    assert_eq!(house.held().await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_collector_works_by_itself() {
    let busy = |options: &mut GatewayOptions| {
        options.garbage_grace_ms = 0;
        options.garbage_interval = Some(Duration::from_millis(5));
    };
    let house = House::with(code(2, 1), Meta::Fjall, busy).await;
    for round in 0..20 {
        house.put("k", &random_bytes(round, 1000)).await.unwrap();
    }
    house.gateway.delete_object(delete("k")).await.unwrap();
    // Waits for as long as the test may run: only what happens is asserted, not how fast.
    while house.shards() > 0 || house.held().await.garbage_rows > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    house.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_that_died_was_writing_is_collected_when_its_lease_is_over() {
    let house = House::new(code(2, 1)).await;
    house.put("k", b"stays").await.unwrap();
    let shards = house.shards();
    // A gateway that registers, writes shards, and is never heard of again.
    let dead = house.gateway_over(house.kv.clone());
    let (all_taken, taken) = tokio::sync::oneshot::channel::<()>();
    let mut all_taken = Some(all_taken);
    let first = futures::stream::iter([Ok(bytes::Bytes::from(random_bytes(1, 9 * MIB)))]);
    let body = futures::StreamExt::chain(
        first,
        futures::stream::poll_fn(move |_| {
            all_taken.take();
            std::task::Poll::Pending
        }),
    );
    let request = penstock_gateway::api::PutObject {
        body: Box::pin(body),
        content_bytes: None,
        ..crate::house::put("lost", b"")
    };
    let put = tokio::spawn({
        let dead = dead.clone();
        async move { dead.put_object(request).await }
    });
    assert!(taken.await.is_err());
    while house.shards() < shards + 6 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    house.collect().await;
    assert_eq!(house.shards(), shards + 6, "it may be alive");
    dead.shutdown().await;
    put.abort();
    assert!(put.await.unwrap_err().is_cancelled());
    house.collect().await;
    assert_eq!(house.shards(), shards + 6, "nobody says that it is not");
    house.clock.advance_ms(16 * 60_000);
    house.collect().await;
    assert_eq!(house.shards(), shards);
    assert_eq!(house.get("k").await.unwrap(), b"stays");
}
