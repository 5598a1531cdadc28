//! RenameObject.

use std::collections::BTreeMap;

use penstock_gateway::api::{Conditions, Encrypt, EtagCondition, PutObject, RenameObject};
use penstock_gateway::error::ErrorKind;

use crate::house::{BUCKET, House, MIB, NOTHING, code, kind, put, random_bytes};

fn rename(from: &str, to: &str) -> RenameObject {
    RenameObject { bucket: BUCKET.into(), source: from.into(), key: to.into(), ..RenameObject::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_under_its_new_key_alone_and_what_it_replaced_is_gone() {
    let house = House::new(code(2, 1)).await;
    let gateway = &house.gateway;
    let bytes = random_bytes(1, 5 * MIB);
    let done = gateway.put_object(PutObject { encryption: Some(Encrypt::S3), ..put("a", &bytes) }).await.unwrap();
    house.put("b", &random_bytes(2, MIB)).await.unwrap();
    house.clock.advance_ms(5000);
    gateway.rename_object(rename("a", "b")).await.unwrap();
    assert_eq!(kind(house.get("a").await), ErrorKind::NoSuchKey);
    assert!(house.get("b").await.unwrap() == bytes);
    let info = gateway.head_object(crate::house::get("b")).await.unwrap().info;
    assert_eq!((info.etag, info.modified_unix_ms), (done.etag, done.modified_unix_ms));
    // Objects of parts, too.
    let upload = house.upload("parts").await;
    let part = house.part("parts", &upload, 1, b"the only part").await.unwrap();
    gateway.complete_upload(crate::multipart::complete("parts", &upload, &[&part])).await.unwrap();
    gateway.rename_object(rename("parts", "a")).await.unwrap();
    assert_eq!(house.get("a").await.unwrap(), b"the only part");
    assert_eq!(kind(gateway.rename_object(rename("parts", "c")).await), ErrorKind::NoSuchKey);
    for (from, to) in [("a", "a"), ("a/", "x"), ("a", "x/")] {
        assert_eq!(kind(gateway.rename_object(rename(from, to)).await), ErrorKind::InvalidRequest);
    }
    for key in ["a", "b"] {
        let request =
            penstock_gateway::api::DeleteObject { bucket: BUCKET.into(), key: key.into(), ..Default::default() };
        gateway.delete_object(request).await.unwrap();
    }
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_of_both_sides() {
    let house = House::new(code(1, 0)).await;
    let gateway = &house.gateway;
    let one = |etag: &str| Some(EtagCondition::OneOf(vec![etag.to_owned()]));
    let any = || Some(EtagCondition::Any);
    let from = house.put("from", b"from").await.unwrap();
    let to = house.put("to", b"to").await.unwrap();
    let failed = ErrorKind::PreconditionFailed;
    let if_match = |if_match| Conditions { if_match, ..Conditions::default() };
    let if_none = |if_none_match| Conditions { if_none_match, ..Conditions::default() };
    let since = |ms| Conditions { if_modified_since: Some(ms), ..Conditions::default() };
    for (source_conditions, conditions, to) in [
        (if_match(one("x")), Conditions::default(), "to"),
        (if_none(any()), Conditions::default(), "to"),
        (if_none(one(&from.etag)), Conditions::default(), "to"),
        (since(from.modified_unix_ms), Conditions::default(), "to"),
        (Conditions::default(), if_none(any()), "to"),
        (Conditions::default(), if_match(one("x")), "to"),
        (Conditions::default(), if_match(any()), "absent"),
        (Conditions::default(), since(0), "absent"),
        (Conditions::default(), since(to.modified_unix_ms), "to"),
    ] {
        let request = RenameObject { source_conditions, conditions, ..rename("from", to) };
        assert_eq!(kind(gateway.rename_object(request.clone()).await), failed, "{request:?}");
    }
    let request = RenameObject {
        source_conditions: if_match(one(&from.etag)),
        conditions: if_match(one(&to.etag)),
        ..rename("from", "to")
    };
    gateway.rename_object(request).await.unwrap();
    gateway.rename_object(RenameObject { conditions: if_none(any()), ..rename("to", "absent") }).await.unwrap();
    assert_eq!(house.get("absent").await.unwrap(), b"from");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_makes_it_happen_once() {
    let house = House::new(code(1, 0)).await;
    let gateway = &house.gateway;
    let with = |token: &str, from, to| RenameObject { token: Some(token.into()), ..rename(from, to) };
    house.put("a", b"first").await.unwrap();
    assert_eq!(kind(gateway.rename_object(with("t", "none", "b")).await), ErrorKind::NoSuchKey);
    gateway.rename_object(with("t", "a", "b")).await.unwrap();
    house.put("a", b"second").await.unwrap();
    gateway.rename_object(with("t", "a", "b")).await.unwrap();
    assert_eq!((house.get("a").await.unwrap(), house.get("b").await.unwrap()), (b"second".to_vec(), b"first".to_vec()));
    let mismatch = ErrorKind::IdempotencyParameterMismatch;
    assert_eq!(kind(gateway.rename_object(with("t", "a", "c")).await), mismatch);
    gateway.rename_object(with("u", "a", "c")).await.unwrap();
    for bad in ["", "a b", "ü", &"t".repeat(65)] {
        assert_eq!(kind(gateway.rename_object(with(bad, "b", "d")).await), ErrorKind::InvalidArgument);
    }
    // Tokens are forgotten, and their rows with them.
    house.clock.advance_ms(16 * 60 * 1000);
    for number in 0..40 {
        gateway.rename_object(with(&format!("n{number}"), "b", "d")).await.unwrap();
        gateway.rename_object(with(&format!("m{number}"), "d", "b")).await.unwrap();
    }
    gateway.rename_object(with("t", "c", "e")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_where_there_are_versions() {
    let house = House::new(code(1, 0)).await;
    house.put("a", b"x").await.unwrap();
    for enabled in [true, false] {
        house.gateway.put_bucket_versioning(BUCKET, enabled).await.unwrap();
        assert_eq!(kind(house.gateway.rename_object(rename("a", "b")).await), ErrorKind::NotImplemented);
    }
    assert_eq!(house.get("a").await.unwrap(), b"x");
}

/// Of renames to one key at the same time, each moves its own object or fails: none is lost, none is doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_renames_lose_nothing() {
    let house = House::new(code(1, 0)).await;
    let keys: Vec<String> = (0..8).map(|number| format!("k{number}")).collect();
    for key in &keys {
        house.put(key, key.as_bytes()).await.unwrap();
    }
    let new = Conditions { if_none_match: Some(EtagCondition::Any), ..Conditions::default() };
    let tasks: Vec<_> = keys
        .iter()
        .map(|key| {
            let (gateway, request) =
                (house.gateway.clone(), RenameObject { conditions: new.clone(), ..rename(key, "target") });
            tokio::spawn(async move { gateway.rename_object(request).await })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => won += 1,
            Err(error) => assert!(
                matches!(error.kind, ErrorKind::PreconditionFailed | ErrorKind::ConditionalRequestConflict),
                "{error}"
            ),
        }
    }
    assert_eq!(won, 1);
    let mut left = BTreeMap::new();
    for key in keys.iter().map(String::as_str).chain(["target"]) {
        if let Ok(bytes) = house.get(key).await {
            *left.entry(bytes).or_insert(0) += 1;
        }
    }
    assert!(left.len() == 8 && left.values().all(|count| *count == 1), "{left:?}");
}
