//! Where data goes, how it is coded, and what may be lost of it: classes, dead nodes, whole racks.

use penstock_gateway::api::{CompleteUpload, CompletedPart, PutObject};
use penstock_gateway::error::ErrorKind;
use penstock_gateway::policies::PolicySource;
use penstock_proto::Code;

use crate::house::{BUCKET, House, MIB, Meta, code, get, kind, list, put, random_bytes, read};

fn in_class(key: &str, class: &str, bytes: &[u8]) -> PutObject {
    PutObject { storage_class: class.into(), ..put(key, bytes) }
}

fn azure() -> Code {
    Code::lrc(12, 2, 2).unwrap()
}

/// Nodes in racks, one after the other.
async fn in_racks(nodes: usize, racks: usize, code: Code) -> House {
    House::with_nodes(nodes, code, Meta::Mem, |options| {
        for entry in &mut options.cluster_map.nodes {
            entry.domain = vec![format!("rack-{}", usize::from(entry.id.0) % racks)];
        }
    })
    .await
}

#[tokio::test]
async fn new_data_goes_around_a_node_that_is_gone() {
    let house = House::with_nodes(7, code(4, 2), Meta::Mem, |_| {}).await;
    let bytes = random_bytes(1, 200_000);
    house.lose(3);
    // Until the executor knows: three failures open its breaker.
    for i in 0..40 {
        house.put(&format!("learning-{i}"), &bytes).await.unwrap();
    }
    let before = house.shards();
    for i in 0..10 {
        house.put(&format!("wide-{i}"), &bytes).await.unwrap();
    }
    assert_eq!(house.shards() - before, 60, "all six shards of each, on the six nodes that are there");
    // With two gone there is nobody left for the sixth: five are the quorum.
    house.lose(4);
    for i in 0..10 {
        house.put(&format!("narrow-{i}"), &bytes).await.unwrap();
    }
    for i in 0..10 {
        assert!(house.get(&format!("narrow-{i}")).await.unwrap() == bytes);
        assert!(house.get(&format!("wide-{i}")).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn on_exactly_as_many_nodes_as_shards_the_quorum_is_enough() {
    let house = House::new(code(4, 2)).await;
    let bytes = random_bytes(2, 100_000);
    house.lose(0);
    for i in 0..8 {
        house.put(&format!("k{i}"), &bytes).await.unwrap();
        assert!(house.get(&format!("k{i}")).await.unwrap() == bytes);
    }
    assert_eq!(house.shards(), 8 * 5);
    house.lose(1);
    assert_eq!(kind(house.put("k", &bytes).await), ErrorKind::ServiceUnavailable);
    house.bring_back(1);
    house.put("k", &bytes).await.unwrap();
}

#[tokio::test]
async fn a_class_decides_the_code() {
    let house = House::with_nodes(16, code(10, 4), Meta::Mem, |options| {
        options.storage_classes.insert("ONEZONE_IA".into(), Code::ONE_COPY);
    })
    .await;
    let gateway = &house.gateway;
    gateway.set_storage_policy(None, "STANDARD_IA", Some(azure())).await.unwrap();
    gateway.set_storage_policy(None, "REDUCED_REDUNDANCY", Some(Code::replicas(2).unwrap())).await.unwrap();
    let bytes = random_bytes(3, 300_000);
    for (class, shards) in
        [("", 14), ("STANDARD", 14), ("STANDARD_IA", 16), ("REDUCED_REDUNDANCY", 2), ("ONEZONE_IA", 1)]
    {
        let before = house.shards();
        gateway.put_object(in_class(&format!("k-{class}"), class, &bytes)).await.unwrap();
        assert_eq!(house.shards() - before, shards, "{class}");
        let (head, body) = read(gateway.get_object(get(&format!("k-{class}"))).await.unwrap()).await.unwrap();
        assert!(body == bytes);
        assert_eq!(head.info.storage_class, if class.is_empty() { "STANDARD" } else { class });
    }
    let page = gateway.list_objects(list("k-", "")).await.unwrap();
    let listed: Vec<&str> = page.objects.iter().map(|object| object.storage_class.as_str()).collect();
    assert_eq!(listed, ["STANDARD", "ONEZONE_IA", "REDUCED_REDUNDANCY", "STANDARD", "STANDARD_IA"]);

    let refused = gateway.put_object(in_class("no", "GLACIER", &bytes)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InvalidStorageClass);
    assert!(refused.message.contains("GLACIER") && refused.message.contains("STANDARD_IA"), "{refused}");
}

#[tokio::test]
async fn a_bucket_has_the_last_word() {
    let house = House::with_nodes(6, code(4, 2), Meta::Mem, |_| {}).await;
    let gateway = &house.gateway;
    let bytes = random_bytes(4, 50_000);
    let shards_of = async |key: &str| {
        let before = house.shards();
        house.put(key, &bytes).await.unwrap();
        house.shards() - before
    };
    assert_eq!(shards_of("a").await, 6);
    gateway.set_storage_policy(None, "STANDARD", Some(code(2, 1))).await.unwrap();
    assert_eq!(shards_of("b").await, 3);
    gateway.set_storage_policy(Some(BUCKET), "STANDARD", Some(Code::replicas(5).unwrap())).await.unwrap();
    assert_eq!(shards_of("c").await, 5);
    let policies = gateway.storage_policies(Some(BUCKET)).await.unwrap();
    assert_eq!((policies[0].code.to_string().as_str(), policies[0].source), ("5x", PolicySource::Bucket));
    assert_eq!(gateway.storage_policies(None).await.unwrap()[0].source, PolicySource::Store);
    // Another gateway over the same metadata says the same.
    let other = house.gateway_over(house.kv.clone());
    assert_eq!(other.storage_policies(Some(BUCKET)).await.unwrap(), policies);
    gateway.set_storage_policy(Some(BUCKET), "STANDARD", None).await.unwrap();
    gateway.set_storage_policy(None, "STANDARD", None).await.unwrap();
    assert_eq!(shards_of("d").await, 6);
    for key in ["a", "b", "c", "d"] {
        assert!(house.get(key).await.unwrap() == bytes, "what is written keeps its code");
    }

    let wide = gateway.set_storage_policy(None, "COLD", Some(code(20, 4))).await.unwrap_err();
    assert_eq!(wide.kind, ErrorKind::InvalidRequest);
    assert!(["RS(20,4)", "24", "6"].iter().all(|part| wide.message.contains(part)), "{wide}");
    assert_eq!(kind(gateway.set_storage_policy(None, "cold", Some(code(2, 1))).await), ErrorKind::InvalidArgument);
    assert_eq!(kind(gateway.set_storage_policy(Some("none"), "COLD", None).await), ErrorKind::NoSuchBucket);
}

#[tokio::test]
async fn a_code_that_a_rack_could_take_with_it_is_refused_when_that_is_asked_for() {
    let house = House::with_nodes(6, code(1, 2), Meta::Mem, |options| {
        options.spread_required = true;
        for entry in &mut options.cluster_map.nodes {
            entry.domain = vec![format!("rack-{}", entry.id.0 % 3)];
        }
    })
    .await;
    // Three racks: two shards in each, which RS(4,2) survives and RS(5,1) does not.
    house.gateway.set_storage_policy(None, "A", Some(code(4, 2))).await.unwrap();
    let refused = house.gateway.set_storage_policy(None, "B", Some(code(5, 1))).await.unwrap_err();
    assert!(refused.kind == ErrorKind::InvalidRequest && refused.message.contains("3 failure domains"), "{refused}");
}

#[tokio::test]
async fn an_upload_has_its_class_from_its_beginning() {
    let house = House::with_nodes(6, code(4, 2), Meta::Mem, |_| {}).await;
    let gateway = &house.gateway;
    gateway.set_storage_policy(None, "TWICE", Some(Code::replicas(2).unwrap())).await.unwrap();
    let create = penstock_gateway::api::CreateUpload {
        bucket: BUCKET.into(),
        key: "k".into(),
        storage_class: "TWICE".into(),
        ..Default::default()
    };
    let upload = gateway.create_upload(create.clone()).await.unwrap();
    let bytes = random_bytes(5, MIB);
    let part = house.part("k", &upload, 1, &bytes).await.unwrap();
    assert_eq!(house.shards(), 2);
    let parts = vec![CompletedPart { part_number: 1, etag: part.etag, checksum: None }];
    let complete =
        CompleteUpload { bucket: BUCKET.into(), key: "k".into(), upload_id: upload, parts, ..Default::default() };
    gateway.complete_upload(complete).await.unwrap();
    let (head, body) = read(gateway.get_object(get("k")).await.unwrap()).await.unwrap();
    assert!(head.info.storage_class == "TWICE" && body == bytes);
    let unknown = penstock_gateway::api::CreateUpload { storage_class: "THRICE".into(), ..create };
    assert_eq!(kind(gateway.create_upload(unknown).await), ErrorKind::InvalidStorageClass);
}

/// Everything is read while these nodes are gone.
async fn read_without(house: &House, lost: &[usize], keys: &[(String, Vec<u8>)]) {
    lost.iter().for_each(|node| house.lose(*node));
    for (key, bytes) in keys {
        assert!(house.get(key).await.unwrap() == *bytes, "{key} without {lost:?}");
    }
    lost.iter().for_each(|node| house.bring_back(*node));
}

async fn filled(house: &House, sizes: &[usize]) -> Vec<(String, Vec<u8>)> {
    let mut keys = Vec::new();
    for (i, size) in sizes.iter().enumerate() {
        let (key, bytes) = (format!("k{i}"), random_bytes(i as u64, *size));
        house.put(&key, &bytes).await.unwrap();
        keys.push((key, bytes));
    }
    keys
}

const SIZES: [usize; 4] = [1, 70_000, 1_500_000, 5 * MIB];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_4_of_14_nodes() {
    let house = House::new(code(10, 4)).await;
    let keys = filled(&house, &SIZES).await;
    // Every pattern is tried at the executor (its tests); here every fourteenth.
    let patterns = (0u32..1 << 14).filter(|pattern| pattern.count_ones() == 4).step_by(14);
    for pattern in patterns {
        let lost: Vec<usize> = (0..14).filter(|node| pattern >> node & 1 == 1).collect();
        read_without(&house, &lost, &keys).await;
    }
    for node in 0..5 {
        house.lose(node);
    }
    assert_eq!(kind(house.get("k1").await), ErrorKind::ServiceUnavailable, "five are too many, and that is said");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_3_of_16_nodes_and_most_4s_with_local_groups() {
    let house = House::new(azure()).await;
    let keys = filled(&house, &SIZES).await;
    let patterns = (0u32..1 << 16).filter(|pattern| pattern.count_ones() == 3).step_by(11);
    for pattern in patterns {
        let lost: Vec<usize> = (0..16).filter(|node| pattern >> node & 1 == 1).collect();
        read_without(&house, &lost, &keys).await;
    }
    let (mut whole, mut parts) = (0, 0);
    for pattern in (0u32..1 << 16).filter(|pattern| pattern.count_ones() == 4).step_by(31) {
        let lost: Vec<usize> = (0..16).filter(|node| pattern >> node & 1 == 1).collect();
        lost.iter().for_each(|node| house.lose(*node));
        // One stripe: which of its shards are lost is another matter than which nodes are.
        match house.get("k2").await {
            Ok(bytes) => {
                assert!(bytes == keys[2].1);
                whole += 1;
            }
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::ServiceUnavailable, "{error}");
                parts += 1;
            }
        }
        lost.iter().for_each(|node| house.bring_back(*node));
    }
    // 1,568 of 1,820 can be decoded: 86 %.
    assert!(whole >= 4 * parts && parts > 0, "{whole} read, {parts} not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_rack_while_clients_read() {
    for (nodes, racks, code) in [(15, 5, code(10, 4)), (18, 6, azure()), (6, 3, code(4, 2))] {
        let house = in_racks(nodes, racks, code).await;
        let keys = filled(&house, &SIZES).await;
        for rack in 0..racks {
            let reading = async {
                for _ in 0..4 {
                    for (key, bytes) in &keys {
                        assert!(house.get(key).await.unwrap() == *bytes, "{key} of {code} around rack {rack}");
                    }
                }
            };
            let losing = async {
                for node in (0..nodes).filter(|node| node % racks == rack) {
                    house.lose(node);
                    tokio::task::yield_now().await;
                }
            };
            tokio::join!(reading, losing);
            read_without(&house, &[], &keys).await;
            (0..nodes).filter(|node| node % racks == rack).for_each(|node| house.bring_back(node));
        }
    }
}
