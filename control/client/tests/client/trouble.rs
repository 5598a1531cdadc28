//! What goes wrong: connections that drop, bytes that change, servers that are silent, plans that are misused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use penstock_client::{
    ClientError, ClientOptions, Credentials, CredentialsProvider, Endpoint, ErrorKind, GetOptions, PutOptions,
};
use penstock_executor::StripeTarget;
use penstock_gateway::api::{BodyDigests, Conditions, GetObject, ObjectHeaders};
use penstock_gateway::plan::{PlanFailure, PlanPut};
use penstock_proto::plan::{CommitStripe, Crc64, ReadPlan, Record, WriteCommit, WritePlan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::house::{BUCKET, House, MIB, by_plan, bytes, client_of, over_http};

/// What a go-between does to the server's bytes.
#[derive(Clone, Copy)]
enum Evil {
    /// Closes each of the first two connections after so many bytes.
    Cut(usize),
    /// Changes this byte of what the server sends on each connection.
    Flip(usize),
    /// Changes every so manieth byte of what it sends.
    FlipEvery(usize),
}

async fn between(server: SocketAddr, evil: Evil) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let number = count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let server = TcpStream::connect(server).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let (mut room, mut passed) = (vec![0; 64 << 10], 0);
                while let Ok(got @ 1..) = from_server.read(&mut room).await {
                    let mut bytes = &mut room[..got];
                    let mut last = false;
                    match evil {
                        Evil::Cut(after) if number < 2 && passed + got > after => {
                            bytes = &mut bytes[..after - passed];
                            last = true;
                        }
                        Evil::Flip(at) if (passed..passed + got).contains(&at) => bytes[at - passed] ^= 1,
                        Evil::FlipEvery(every) => {
                            (passed..passed + got)
                                .filter(|at| at % every == every - 1)
                                .for_each(|at| bytes[at - passed] ^= 1);
                        }
                        _ => {}
                    }
                    passed += bytes.len();
                    if to_client.write_all(bytes).await.is_err() || last {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_is_taken_up_where_it_did() {
    let house = House::new(0, true).await;
    let body = bytes(6 * MIB, 4);
    house.client(over_http()).put(BUCKET, "k", &body, PutOptions::default()).await.unwrap();
    let address = between(house.address, Evil::Cut(2 * MIB)).await;
    let client = client_of(address, over_http());
    assert!(client.get(BUCKET, "k").await.unwrap().body.to_vec() == body);
    let stats = client.stats();
    assert_eq!((stats.resumed, stats.connections), (2, 3));
    // A plan's answer that breaks off is asked for again.
    let address = between(house.address, Evil::Cut(100)).await;
    let client = client_of(address, ClientOptions { tries_max: 5, ..over_http() });
    assert!(client.get(BUCKET, "k").await.unwrap().body.to_vec() == body);
}

#[tokio::test]
async fn bytes_that_change_on_the_way_are_read_again_and_never_returned() {
    let house = House::new(0, true).await;
    let body = bytes(100_000, 4);
    house.client(over_http()).put(BUCKET, "k", &body, PutOptions::default()).await.unwrap();
    // Once on each connection: the second read, on the same connection, is right.
    let client = client_of(between(house.address, Evil::Flip(50_000)).await, over_http());
    assert!(client.get(BUCKET, "k").await.unwrap().body.to_vec() == body);
    assert_eq!(client.stats().corrupt, 1);
    // Every time: after three reads it is an error, whatever it is read into.
    let client = client_of(between(house.address, Evil::FlipEvery(60_000)).await, over_http());
    let error = client.get(BUCKET, "k").await.unwrap_err();
    assert!(matches!(error, ClientError::Corrupt { .. }) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("CRC64NVME") && error.to_string().contains("bucket/k"), "{error}");
    assert_eq!(client.stats().corrupt, 3);
    let mut into = vec![0; 100_000];
    assert!(matches!(client.get_into(BUCKET, "k", &mut into).await, Err(ClientError::Corrupt { .. })));
    let (_, _, pieces) = client.get_stream(BUCKET, "k", &GetOptions::default()).await.unwrap();
    let pieces: Vec<_> = pieces.collect().await;
    assert!(matches!(pieces.last().unwrap(), Err(ClientError::Corrupt { .. })), "{pieces:?}");
}

#[tokio::test]
async fn a_body_that_can_not_be_had_whole_is_never_short_data() {
    let house = House::new(0, true).await;
    house.client(over_http()).put(BUCKET, "k", &bytes(MIB, 4), PutOptions::default()).await.unwrap();
    // Two tries, two connections, each cut: what has come is counted and not returned.
    let address = between(house.address, Evil::Cut(1000)).await;
    let client = client_of(address, ClientOptions { tries_max: 1, hedge: None, ..over_http() });
    let error = client.get(BUCKET, "k").await.unwrap_err();
    let ClientError::Truncated { what, received_bytes, expected_bytes, .. } = &error else { panic!("{error}") };
    assert_eq!((what.as_str(), *expected_bytes), ("s3://bucket/k", MIB as u64));
    assert!(*received_bytes < 1000 && error.is_retryable(), "{error}");
}

#[tokio::test]
async fn servers_that_are_gone_or_silent_are_errors_that_say_so() {
    let options = || ClientOptions { tries_max: 1, silence_timeout: Duration::from_millis(100), ..over_http() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let error = client_of(address, options()).get(BUCKET, "k").await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }) && error.to_string().contains("no byte came"), "{error}");
    let client = client_of(address, ClientOptions { silence_timeout: Duration::from_secs(60), ..over_http() });
    let error = client.with_deadline(Duration::from_millis(50)).get(BUCKET, "k").await.unwrap_err();
    assert!(
        matches!(error, ClientError::Timeout { .. }) && error.to_string().contains("a GET was not done"),
        "{error}"
    );
    silent.abort();
    let _ = silent.await;
    let error = client_of(address, options()).get(BUCKET, "k").await.unwrap_err();
    assert!(
        matches!(error, ClientError::Endpoint { .. }) && error.to_string().contains("check the endpoint"),
        "{error}"
    );
    let patient = ClientOptions { operation_timeout: Duration::from_millis(50), tries_max: 1000, ..over_http() };
    let error = client_of(address, patient).get(BUCKET, "k").await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn refusals_are_in_s3s_words() {
    let house = House::new(0, true).await;
    let client = house.client(over_http());
    assert_eq!(client.get("no-such-bucket", "k").await.unwrap_err().code(), Some("NoSuchBucket"));
    assert_eq!(client.get_range(BUCKET, "k", 3..3).await.unwrap_err().code(), None);
    let endpoint = Endpoint::parse(&format!("http://{}", house.address)).unwrap();
    let keys = CredentialsProvider::fixed(Credentials::new("ACCESSKEY", "wrong"));
    let stranger = penstock_client::Client::new(endpoint, keys, over_http()).unwrap();
    let error = stranger.get(BUCKET, "k").await.unwrap_err();
    assert_eq!((error.code(), error.kind()), (Some("SignatureDoesNotMatch"), ErrorKind::Credentials));
    let options = PutOptions { content_type: Some("a\r\nx-amz-acl: public-read".to_owned()), ..PutOptions::default() };
    let error = client.put(BUCKET, "k", b"", options).await.unwrap_err();
    assert!(matches!(error, ClientError::Configuration(_)), "a header does not break out of its line: {error}");
}

fn plan_put(access_key: &str, key: &str) -> PlanPut {
    PlanPut {
        access_key: access_key.to_owned(),
        bucket: BUCKET.to_owned(),
        key: key.to_owned(),
        part: None,
        headers: ObjectHeaders::default(),
        storage_class: "STANDARD".to_owned(),
        conditions: Conditions::default(),
        digests: BodyDigests::default(),
        tags: Default::default(),
        lock: Default::default(),
        encrypted: false,
    }
}

/// Stores a body as a client would, and gives its commit.
async fn stored(house: &House, plan: &WritePlan, body: &[u8]) -> WriteCommit {
    let target = StripeTarget {
        data: plan.data,
        stripe: 0,
        code: plan.code,
        nodes: plan.groups[0].clone(),
        capability: plan.capability,
    };
    let mut chunk = house.executor.chunk_buffer(plan.code, body.len()).await.unwrap();
    chunk.extend_from_slice(body);
    let written = house.executor.write_stripe(&target, chunk).await.unwrap();
    let stripe = CommitStripe {
        chunk_bytes: body.len() as u32,
        shard_crc64s: written.shard_crc64s.into_iter().map(Crc64).collect(),
        receipts: written.receipts,
    };
    WriteCommit { ticket: plan.ticket.clone(), stripes: vec![stripe] }
}

#[tokio::test]
async fn a_commit_counts_with_its_own_receipts_alone_and_may_be_repeated() {
    let house = House::new(0, true).await;
    let plan = |key: &'static str| async {
        let plan = house.gateway.plan_put(plan_put("AK", key), 5).await.unwrap().unwrap();
        WritePlan::decode(&plan).unwrap()
    };
    let (first, second) = (plan("first").await, plan("second").await);
    let good = stored(&house, &first, b"hello").await;
    let other = stored(&house, &second, b"hello").await;
    let commit = |request: PlanPut, commit: &WriteCommit| {
        let commit = commit.encode().unwrap();
        let gateway = house.gateway.clone();
        async move { gateway.commit_planned_object(request, commit).await }
    };
    // Another body's receipts, another's ticket, another key, another caller.
    let mixed = WriteCommit { ticket: good.ticket.clone(), stripes: other.stripes.clone() };
    for (request, attempt) in [
        (plan_put("AK", "first"), &mixed),
        (plan_put("AK", "first"), &other),
        (plan_put("AK", "elsewhere"), &good),
        (plan_put("MALLORY", "first"), &good),
    ] {
        let failure = commit(request, attempt).await.unwrap_err();
        assert!(matches!(failure, PlanFailure::Refused(_)), "{failure:?}");
    }
    assert_eq!(house.gateway.stats().commits_refused, 4);
    let done = commit(plan_put("AK", "first"), &good).await.unwrap();
    let again = commit(plan_put("AK", "first"), &good).await.unwrap();
    assert_eq!((done.etag, done.size_bytes), (again.etag, again.size_bytes));
    // Once the object is another, the commit is of nothing.
    let third = plan("first").await;
    let newer = stored(&house, &third, b"newer").await;
    commit(plan_put("AK", "first"), &newer).await.unwrap();
    assert!(matches!(commit(plan_put("AK", "first"), &good).await, Err(PlanFailure::Failed(_))));
    // A plan that nobody commits becomes garbage when its time has run out, and can't be committed then.
    house.clock.advance_ms(6 * 60_000);
    house.gateway.collect_garbage_now().await.unwrap();
    let late = commit(plan_put("AK", "second"), &other).await.unwrap_err();
    assert!(matches!(late, PlanFailure::Refused(_)), "{late:?}");
    assert_eq!(house.gateway.usage().await.unwrap().plans_open, 0);
}

#[tokio::test]
async fn what_a_read_plan_names_stays_until_its_time_has_run_out() {
    let house = House::new(0, true).await;
    let client = house.client(by_plan());
    let body = bytes(MIB, 8);
    client.put(BUCKET, "k", &body, PutOptions::default()).await.unwrap();
    let request = GetObject { bucket: BUCKET.to_owned(), key: "k".to_owned(), ..GetObject::default() };
    let planned = house.gateway.plan_get(request).await.unwrap();
    let plan = ReadPlan::decode(&planned.plan.unwrap()).unwrap();
    client.delete(BUCKET, "k").await.unwrap();
    let collected = house.gateway.collect_garbage_now().await.unwrap();
    assert_eq!((collected.data, collected.left), (0, 1), "a plan is out");
    let (run, group) = (&plan.runs[0], &plan.runs[0].groups[0]);
    let target = StripeTarget {
        data: run.data,
        stripe: 0,
        code: run.code,
        nodes: group.nodes.clone(),
        capability: run.capability,
    };
    let stripe = &group.stripes[0];
    let known = penstock_executor::StripeStored {
        shard_crc64s: stripe.shard_crc64s.iter().map(|crc64| crc64.0).collect(),
        missing: stripe.missing,
        chunk_bytes: stripe.chunk_bytes,
    };
    let pieces = house.executor.read_stripe(&target, &known, 0..MIB as u32).await.unwrap();
    assert!(pieces.iter().flat_map(|piece| piece.to_vec()).collect::<Vec<_>>() == body);
    // Another stripe under the same capability is refused by the nodes, and counted.
    let beyond = StripeTarget { stripe: 1, ..target.clone() };
    assert!(house.executor.read_stripe(&beyond, &known, 0..10).await.is_err());
    house.clock.advance_ms(plan.lifetime_ms);
    assert!(house.executor.read_stripe(&target, &known, 0..10).await.is_err(), "the capability has expired");
    assert!(house.nodes.iter().map(|node| node.stats().forbidden).sum::<u64>() >= 2);
    let collected = house.gateway.collect_garbage_now().await.unwrap();
    assert_eq!(collected.data, 1);
}
