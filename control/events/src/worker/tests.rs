use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use penstock_meta::kv::MemKv;
use penstock_meta::tables::{
    BucketRow, Cause, HeadersRow, Layout, LockPass, LockRow, NotificationRule, ObjectRow, Preconditions, TargetKind,
    VersionRow, Way, caused,
};
use penstock_proto::ManualClock;

use super::*;

const ARN: &str = "arn:aws:sqs:us-east-1:000000000000:q";
const NOW: u64 = 1_800_000_000_123;

/// Takes events, but for those of the keys that it is told not to.
#[derive(Default)]
struct Shelf {
    taken: Mutex<Vec<serde_json::Value>>,
    refuses: Mutex<HashSet<String>>,
    refused: Mutex<u32>,
}

#[async_trait]
impl Target for Shelf {
    async fn send(&self, message: &Message) -> Result<(), SendError> {
        let document: serde_json::Value = serde_json::from_slice(&message.body).expect("JSON");
        let key = document["Records"][0]["s3"]["object"]["key"].as_str().unwrap_or_default().to_owned();
        tokio::task::yield_now().await;
        if self.refuses.lock().contains(&key) {
            *self.refused.lock() += 1;
            return Err(SendError::Refused("told to".to_owned()));
        }
        self.taken.lock().push(document);
        Ok(())
    }
}

impl Shelf {
    /// The keys of what was taken, and their ETags, in order.
    fn told(&self) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let taken = self.taken.lock();
        let objects = taken.iter().filter(|taken| taken["Event"] != "s3:TestEvent");
        objects.map(|taken| &taken["Records"][0]["s3"]["object"]).map(|o| (text(&o["key"]), text(&o["eTag"]))).collect()
    }
}

struct House {
    tables: Tables,
    bucket: BucketRow,
    shelf: Arc<Shelf>,
    clock: Arc<ManualClock>,
    stopping: CancellationToken,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl House {
    async fn new() -> Self {
        let tables = Tables::new(Arc::new(MemKv::new()));
        tables.create_bucket("bucket", "", 1).await.unwrap();
        let rule = NotificationRule {
            id: "rule".into(),
            kind: TargetKind::Queue,
            target: ARN.into(),
            events: vec!["s3:ObjectCreated:*".into(), "s3:ObjectRemoved:*".into()],
            prefix: None,
            suffix: None,
        };
        tables.put_notifications("bucket", &[rule], NOW).await.unwrap();
        let bucket = tables.bucket("bucket").await.unwrap().unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        Self { tables, bucket, shelf: Arc::default(), clock, stopping: CancellationToken::new(), running: None }
    }

    async fn put(&self, key: &str, etag: &str) {
        let row = ObjectRow {
            size_bytes: 7,
            etag: etag.to_owned(),
            modified_unix_ms: NOW,
            storage_class: "STANDARD".into(),
            checksum: None,
            version: VersionRow::default(),
            parts: None,
            headers: HeadersRow::default(),
            tags: Vec::new(),
            lock: LockRow::default(),
            encryption: None,
            upload_id: None,
            layout: Layout::Empty,
        };
        self.tables.commit_object(&self.bucket, key, row, &Preconditions::default(), 0).await.unwrap();
    }

    fn start(&mut self) {
        let config: TargetConfig =
            toml::from_str(&format!("arn = \"{ARN}\"\nmax_age_hours = 1\nwebhook = {{ url = \"http://unused\" }}"))
                .unwrap();
        let store = Store { region: "us-east-1".into(), account: "000000000000".into() };
        self.stopping = CancellationToken::new();
        let (shelf, clock): (Arc<dyn Target>, Arc<dyn Clock>) = (self.shelf.clone(), self.clock.clone());
        let worker = Worker::new(&self.tables, &config, shelf, &store, clock, self.stopping.clone());
        self.running = Some(tokio::spawn(worker.run()));
    }

    async fn stop(&mut self) {
        self.stopping.cancel();
        self.running.take().unwrap().await.unwrap();
    }

    /// Waits until so many events wait. (In real time: the store's committer is a thread, and knows no other.)
    async fn until_queued(&self, count: u64) {
        for _ in 0..2400 {
            if self.tables.event_counts(ARN).await.unwrap().0 == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{:?} wait, not {count}", self.tables.event_counts(ARN).await);
    }
}

fn pair(key: &str, etag: impl ToString) -> (String, String) {
    (key.to_owned(), etag.to_string())
}

#[tokio::test]
async fn what_was_committed_is_told_once_and_in_order() {
    let mut house = House::new().await;
    for number in 0..600 {
        house.put(&format!("k{}", number % 7), &number.to_string()).await;
    }
    house.start();
    house.until_queued(0).await;
    let told = house.shelf.told();
    assert_eq!(told.len(), 600);
    for key in 0..7 {
        let numbers: Vec<usize> =
            told.iter().filter(|(k, _)| *k == format!("k{key}")).map(|(_, etag)| etag.parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "of one key, in the order of commits");
    }
    assert_eq!(house.shelf.taken.lock().iter().filter(|taken| taken["Event"] == "s3:TestEvent").count(), 1);
    // A worker that starts again finds nothing, and what comes later is told.
    house.stop().await;
    house.start();
    house.put("later", "1").await;
    house.until_queued(0).await;
    assert_eq!(house.shelf.told().len(), 601);
    house.stop().await;
}

#[tokio::test]
async fn a_key_that_is_refused_holds_up_itself_alone() {
    let mut house = House::new().await;
    house.shelf.refuses.lock().insert("bad".into());
    for number in 0..3 {
        house.put("bad", &number.to_string()).await;
        house.put("good", &number.to_string()).await;
    }
    house.start();
    house.until_queued(3).await;
    assert_eq!(house.shelf.told(), [pair("good", 0), pair("good", 1), pair("good", 2)]);
    // It is tried again, and again, and delivered in its order once it is taken; a restart in between loses nothing.
    house.stop().await;
    house.start();
    while *house.shelf.refused.lock() < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    house.shelf.refuses.lock().clear();
    house.until_queued(0).await;
    assert_eq!(house.shelf.told()[3..], [pair("bad", 0), pair("bad", 1), pair("bad", 2)]);
    assert_eq!(house.tables.event_counts(ARN).await.unwrap(), (0, 0));
    house.stop().await;
}

#[tokio::test]
async fn what_is_too_old_is_given_up_and_counted() {
    let mut house = House::new().await;
    house.shelf.refuses.lock().insert("bad".into());
    house.put("bad", "1").await;
    house.put("bad", "2").await;
    house.start();
    house.until_queued(2).await;
    house.clock.advance_ms(3600 * 1000);
    house.until_queued(0).await;
    assert_eq!(house.tables.event_counts(ARN).await.unwrap(), (0, 2));
    assert_eq!(house.shelf.told(), []);
    house.stop().await;
}

#[tokio::test]
async fn records_are_awss() {
    let mut house = House::new().await;
    let cause = Cause {
        way: Way::Copy,
        principal: "AWS:AIDA".into(),
        source_ip: "192.0.2.1".into(),
        request_id: "R".into(),
        time_unix_ms: 0,
    };
    caused(cause, house.put("dir/ä b+c", "e")).await;
    let pass = LockPass { now_unix_ms: NOW, bypass_governance: false };
    house.tables.delete(&house.bucket, "dir/ä b+c", None, &Preconditions::default(), pass, 0).await.unwrap();
    house.start();
    house.until_queued(0).await;
    house.stop().await;
    let taken = house.shelf.taken.lock();
    let (tests, records): (Vec<_>, Vec<_>) = taken.iter().partition(|taken| taken["Event"] == "s3:TestEvent");
    let sequencer = |n: usize| records[n]["Records"][0]["s3"]["object"]["sequencer"].as_str().unwrap();
    assert!(sequencer(0) < sequencer(1) && sequencer(0).len() == 20);
    let want = serde_json::json!({ "Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2027-01-15T08:00:00.123Z",
        "eventName": "ObjectCreated:Copy",
        "userIdentity": { "principalId": "AWS:AIDA" },
        "requestParameters": { "sourceIPAddress": "192.0.2.1" },
        "responseElements": { "x-amz-request-id": "R", "x-amz-id-2": "" },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "rule",
            "bucket": {
                "name": "bucket",
                "ownerIdentity": { "principalId": "000000000000" },
                "arn": "arn:aws:s3:::bucket",
            },
            "object": { "key": "dir/%C3%A4+b%2Bc", "size": 7, "eTag": "e", "sequencer": sequencer(0) },
        },
    }]});
    assert_eq!(*records[0], want);
    let removed = &records[1]["Records"][0];
    assert_eq!(removed["eventName"], "ObjectRemoved:Delete");
    assert_eq!(removed["userIdentity"]["principalId"], "s3.amazonaws.com", "nobody's doing");
    assert_eq!(removed["s3"]["object"]["size"], serde_json::Value::Null);
    assert_eq!(tests[0]["Bucket"], "bucket");
}
