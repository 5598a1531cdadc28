//! Payload by plan: between this process and the nodes, none of it through the gateway.

use penstock_client::{ClientError, PutOptions};
use penstock_digest::crc64nvme;

use crate::house::{BUCKET, House, MIB, by_plan, bytes, over_http};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_go_by_plan_and_none_through_the_gateway() {
    let house = House::new(0, true).await;
    let client = house.client(by_plan());
    let lengths = [1, 63, 4096, 128 << 10, MIB, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB + 7, 21 * MIB];
    let bodies: Vec<Vec<u8>> = lengths.iter().map(|length| bytes(*length, *length as u64)).collect();
    for body in &bodies {
        let key = format!("of {} bytes/ü", body.len());
        let options = PutOptions {
            content_type: Some("text/x".to_owned()),
            user_metadata: vec![("a".to_owned(), "b".to_owned())],
            ..PutOptions::default()
        };
        let done = client.put(BUCKET, &key, body, options).await.unwrap();
        assert_eq!(done.crc64, Some(crc64nvme(body)));
        assert!(done.etag.ends_with("-1"), "{}", done.etag);
        let object = client.get(BUCKET, &key).await.unwrap();
        assert_eq!(object.body.to_vec(), *body);
        assert_eq!((object.info.etag.as_str(), object.info.content_type.as_str()), (done.etag.as_str(), "text/x"));
        assert_eq!(object.info.user_metadata, [("a".to_owned(), "b".to_owned())]);
        assert_eq!((object.range, object.info.crc64), (0..body.len() as u64, done.crc64));
        if body.len() <= 8 * MIB {
            assert_eq!(object.body.contiguous(), Some(&body[..]), "it has landed in one piece");
        }
    }
    let stats = client.stats();
    let total: usize = lengths.iter().sum();
    assert_eq!(stats.copied_bytes, total as u64, "writes were copied once, reads never");
    assert_eq!(stats.by_plan, 2 * lengths.len() as u64);
    assert_eq!(stats.read_bytes.keys().collect::<Vec<_>>(), [&"tcp"]);
    assert!(stats.fallbacks.is_empty(), "{stats:?}");
    // Into the caller's memory, whole and in ranges, across stripes.
    for body in &bodies {
        let key = format!("of {} bytes/ü", body.len());
        let mut into = vec![0; body.len()];
        client.get_into(BUCKET, &key, &mut into).await.unwrap();
        assert_eq!(into, *body);
        for (start, end) in [(0, 1), (body.len() / 3, body.len() / 2 + 1), (body.len() - 1, body.len())] {
            let mut into = vec![0; end - start];
            client.get_range_into(BUCKET, &key, start as u64, &mut into).await.unwrap();
            assert_eq!(into, body[start..end]);
        }
    }
    let served = house.gateway.stats();
    assert_eq!(served.payload_bytes(), 0);
    assert!(served.to_string().starts_with("gateway payload bytes: 0 B\n"), "{served}");
    assert_eq!(served.planned_written_bytes, total as u64);
    // The same objects for everybody else.
    let plain = house.client(over_http());
    for body in &bodies {
        let object = plain.get(BUCKET, &format!("of {} bytes/ü", body.len())).await.unwrap();
        assert_eq!(object.body.to_vec(), *body);
    }
    assert_eq!(house.gateway.stats().payload_out_bytes, total as u64);
    assert!(house.gateway.stats().payload_in_bytes == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_go_by_plan_too() {
    let house = House::new(0, true).await;
    let client = house.client(penstock_client::ClientOptions { part_bytes: 5 << 20, ..by_plan() });
    let body = bytes(13 * MIB + 5, 3);
    let done = client.put(BUCKET, "parts", &body, PutOptions::default()).await.unwrap();
    assert!(done.etag.ends_with("-3"), "{}", done.etag);
    let object = client.get(BUCKET, "parts").await.unwrap();
    assert_eq!((object.body.to_vec() == body, object.info.crc64), (true, Some(crc64nvme(&body))));
    let mut across = vec![0; 6 * MIB];
    client.get_range_into(BUCKET, "parts", 4 * MIB as u64, &mut across).await.unwrap();
    assert!(across == body[4 * MIB..10 * MIB]);
    assert_eq!(house.gateway.stats().payload_bytes(), 0);
    assert!(house.client(over_http()).get(BUCKET, "parts").await.unwrap().body.to_vec() == body);
}

#[tokio::test]
async fn conditions_hold_for_plans_as_for_any_put() {
    let house = House::new(0, true).await;
    let client = house.client(by_plan());
    let once = PutOptions { if_none_match: true, ..PutOptions::default() };
    let first = client.put(BUCKET, "k", b"first", once.clone()).await.unwrap();
    let again = client.put(BUCKET, "k", b"again", once).await.unwrap_err();
    assert_eq!(again.code(), Some("PreconditionFailed"));
    let stale = PutOptions { if_match: Some("0123".to_owned()), ..PutOptions::default() };
    assert_eq!(client.put(BUCKET, "k", b"stale", stale).await.unwrap_err().code(), Some("PreconditionFailed"));
    let fresh = PutOptions { if_match: Some(first.etag), ..PutOptions::default() };
    client.put(BUCKET, "k", b"fresh", fresh).await.unwrap();
    assert_eq!(client.get(BUCKET, "k").await.unwrap().body.to_vec(), b"fresh");
    // What was replaced is collected; nothing is left of what was refused.
    house.clock.advance_ms(61_000);
    house.gateway.collect_garbage_now().await.unwrap();
    let shards: u64 = house.nodes.iter().map(|node| node.stats().deletes).sum();
    assert_eq!(shards, 3, "the first object's shards on three nodes");
    let usage = house.gateway.usage().await.unwrap();
    assert_eq!((usage.pending_data, usage.garbage_rows, usage.plans_open), (0, 0, 0));
}

#[tokio::test]
async fn empty_objects_and_small_ones_come_with_the_answer() {
    let house = House::new(64 << 10, true).await;
    let client = house.client(penstock_client::ClientOptions { inline_bytes_max: 64 << 10, ..by_plan() });
    for length in [0, 10, 64 << 10] {
        let body = bytes(length, 5);
        client.put(BUCKET, "small", &body, PutOptions::default()).await.unwrap();
        assert_eq!(client.get(BUCKET, "small").await.unwrap().body.to_vec(), body);
    }
    let stats = client.stats();
    assert_eq!((stats.by_plan, stats.fallbacks.len()), (0, 0), "inline answers are no fallback");
    client.put(BUCKET, "large", &bytes((64 << 10) + 1, 6), PutOptions::default()).await.unwrap();
    assert_eq!(client.stats().by_plan, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_gone_is_decoded_around() {
    let mut house = House::new(0, true).await;
    let client = house.client(by_plan());
    let body = bytes(10 * MIB + 3, 9);
    client.put(BUCKET, "k", &body, PutOptions::default()).await.unwrap();
    house.stop_node(0).await;
    assert!(client.get(BUCKET, "k").await.unwrap().body.to_vec() == body);
    let mut into = vec![0; body.len()];
    client.get_into(BUCKET, "k", &mut into).await.unwrap();
    assert!(into == body);
    assert_eq!(house.gateway.stats().payload_bytes(), 0);
    // A write needs all three nodes with this code: it is said, or goes through the gateway, which reaches the node.
    let error = client.put(BUCKET, "new", &body, PutOptions::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Nodes(_)) && error.is_retryable(), "{error}");
    assert!(client.head(BUCKET, "new").await.unwrap_err().is_not_found());
    let lenient = house.client(penstock_client::ClientOptions { require_plan: false, ..by_plan() });
    lenient.put(BUCKET, "new", &body, PutOptions::default()).await.unwrap();
    assert_eq!(lenient.stats().fallbacks.get("nodes"), Some(&1));
    assert!(lenient.get(BUCKET, "new").await.unwrap().body.to_vec() == body);
}

#[tokio::test]
async fn a_plan_that_can_not_be_had_is_a_fallback_with_its_reason_or_an_error() {
    let house = House::new(0, false).await;
    let body = bytes(200 << 10, 1);
    let strict = house.client(by_plan());
    let error = strict.put(BUCKET, "k", &body, PutOptions::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::PlanRequired("no-addresses")), "{error}");
    let lenient = house.client(penstock_client::ClientOptions { require_plan: false, ..by_plan() });
    lenient.put(BUCKET, "k", &body, PutOptions::default()).await.unwrap();
    assert_eq!(lenient.get(BUCKET, "k").await.unwrap().body.to_vec(), body);
    assert_eq!(lenient.stats().fallbacks.get("no-addresses"), Some(&2));
    assert!(matches!(strict.get(BUCKET, "k").await.unwrap_err(), ClientError::PlanRequired("no-addresses")));
    let rdma = penstock_client::ClientOptions { require_rdma: true, ..by_plan() };
    let house = House::new(0, true).await;
    let error = house.client(rdma).put(BUCKET, "k", &body, PutOptions::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Nodes(_)), "no node has an RDMA address: {error}");
}
