//! Sixty-four writers at one key: conditional writes are decided one after the other, and exactly once.

use std::sync::Arc;

use penstock_gateway::api::{CompleteUpload, CompletedPart, Conditions, EtagCondition, ListParts, PutObject};
use penstock_gateway::error::{ErrorKind, Result};

use crate::house::{BUCKET, Held, House, Meta, NOTHING, code, get, kind, list, part, put, random_bytes, read};

const WRITERS: u64 = 64;

fn new() -> Conditions {
    Conditions { if_none_match: Some(EtagCondition::Any), ..Conditions::default() }
}

async fn all_at_once<F, T>(tasks: impl Iterator<Item = F>) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let handles: Vec<_> = tasks.map(tokio::spawn).collect();
    let mut results = Vec::new();
    for handle in handles {
        results.push(handle.await.unwrap());
    }
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_all_creates() {
    for meta in [Meta::Mem, Meta::Fjall] {
        let house = Arc::new(House::with(code(2, 1), meta, |_| {}).await);
        for round in 0..4 {
            let key = format!("k{round}");
            let results = all_at_once((0..WRITERS).map(|writer| {
                let (house, key) = (house.clone(), key.clone());
                async move {
                    let bytes = random_bytes(writer, 200);
                    let request = PutObject { conditions: new(), ..put(&key, &bytes) };
                    (bytes, house.gateway.put_object(request).await)
                }
            }))
            .await;
            let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, result)| result.is_ok());
            assert_eq!(won.len(), 1);
            for (_, result) in lost {
                let kind = kind(result);
                let expected = [ErrorKind::PreconditionFailed, ErrorKind::ConditionalRequestConflict];
                assert!(expected.contains(&kind), "{kind:?}");
            }
            assert_eq!(house.get(&key).await.unwrap(), won[0].0);
        }
        assert_eq!(house.held_after_collecting().await, Held { shards: 12, ..NOTHING });
    }
}

/// A counter that is read and written back with If-Match: no increment may be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_update_is_lost() {
    for meta in [Meta::Mem, Meta::Fjall] {
        let house = Arc::new(House::with(code(2, 1), meta, |_| {}).await);
        house.put("counter", b"0").await.unwrap();
        let wins = all_at_once((0..WRITERS).map(|_| {
            let house = house.clone();
            async move {
                let mut wins = 0_u64;
                for _ in 0..6 {
                    wins += u64::from(increment(&house).await.unwrap());
                }
                wins
            }
        }))
        .await;
        let count: u64 = String::from_utf8(house.get("counter").await.unwrap()).unwrap().parse().unwrap();
        assert_eq!(count, wins.iter().sum::<u64>());
        assert!(count >= 6, "someone wins every round");
        assert_eq!(house.held_after_collecting().await, Held { shards: 3, ..NOTHING });
    }
}

/// Whether it was this writer's turn.
async fn increment(house: &House) -> Result<bool> {
    let (answer, bytes) = read(house.gateway.get_object(get("counter")).await?).await?;
    let next = String::from_utf8(bytes).unwrap().parse::<u64>().unwrap() + 1;
    let conditions =
        Conditions { if_match: Some(EtagCondition::OneOf(vec![answer.info.etag])), ..Conditions::default() };
    let request = PutObject { conditions, ..put("counter", next.to_string().as_bytes()) };
    match house.gateway.put_object(request).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind == ErrorKind::PreconditionFailed => Ok(false),
        Err(error) if error.kind == ErrorKind::ConditionalRequestConflict => Ok(false),
        Err(error) => Err(error),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_all_stays_and_the_others_go() {
    let house = Arc::new(House::new(code(2, 1)).await);
    let etags = all_at_once((0..WRITERS).map(|writer| {
        let house = house.clone();
        async move { house.put("k", &random_bytes(writer, 1000)).await.unwrap().etag }
    }))
    .await;
    let (answer, bytes) = read(house.gateway.get_object(get("k")).await.unwrap()).await.unwrap();
    let winner = etags.iter().position(|etag| *etag == answer.info.etag).unwrap();
    assert!(bytes == random_bytes(winner as u64, 1000));
    assert_eq!(house.gateway.list_objects(list("", "")).await.unwrap().objects.len(), 1);
    assert_eq!(house.held_after_collecting().await, Held { shards: 3, ..NOTHING });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_completed_and_aborted_and_added_to_at_once() {
    let house = Arc::new(House::new(code(2, 1)).await);
    for round in 0..10_u64 {
        let upload = house.upload("k").await;
        let info = house.part("k", &upload, 1, &random_bytes(round, 100)).await.unwrap();
        let results = all_at_once((0..12).map(|task| {
            let (house, upload, info) = (house.clone(), upload.clone(), info.clone());
            async move {
                match task % 3 {
                    0 => {
                        let parts = vec![CompletedPart { part_number: 1, etag: info.etag, checksum: None }];
                        let request = CompleteUpload {
                            bucket: BUCKET.into(),
                            key: "k".into(),
                            upload_id: upload,
                            parts,
                            ..CompleteUpload::default()
                        };
                        ("complete", house.gateway.complete_upload(request).await.map(drop))
                    }
                    1 => ("abort", house.gateway.abort_upload(BUCKET, "k", &upload).await),
                    _ => ("part", house.gateway.upload_part(part("k", &upload, 2 + task, b"more")).await.map(drop)),
                }
            }
        }))
        .await;
        let done = |what| results.iter().filter(|(name, result)| *name == what && result.is_ok()).count();
        for (what, result) in &results {
            if let Err(error) = result {
                assert_eq!(error.kind, ErrorKind::NoSuchUpload, "{what}: {error}");
            }
        }
        // Completed (by one, answered alike to all) or aborted (by one), never both.
        assert!((done("complete") == 4 && done("abort") == 0) || (done("complete") == 0 && done("abort") == 1));
        let request = ListParts { bucket: BUCKET.into(), key: "k".into(), upload_id: upload, after: 0, max_parts: 1 };
        assert_eq!(kind(house.gateway.list_parts(request).await), ErrorKind::NoSuchUpload);
    }
    house.put("k", b"").await.unwrap();
    assert_eq!(house.held_after_collecting().await, NOTHING);
}
