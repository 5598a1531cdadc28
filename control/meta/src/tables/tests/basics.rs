//! Single operations: what they answer, and what they refuse.

use penstock_proto::{Code, DataId, NodeId};

use super::support::{always, begin, bucket, collect_all, data_row, faulty, manifest, mem, object_row, part_row, put};
use crate::kv::KvError;
use crate::tables::{
    CompleteUpload, EtagSet, GarbageRow, Layout, ManifestPlace, NewUpload, NewWrite, PreconditionFailure,
    Preconditions, Tables, TablesError,
};

#[test]
fn preconditions_are_a_table() {
    use PreconditionFailure::{Failed, NoSuchKey};
    let object = object_row("e", Layout::Empty);
    let one_of = |etags: &[&str]| Some(EtagSet::OneOf(etags.iter().map(ToString::to_string).collect()));
    let any = || Some(EtagSet::Any);
    // (conditions, of the object, of no object)
    let table = [
        (always(), Ok(()), Ok(())),
        (Preconditions { if_match: any(), ..always() }, Ok(()), Err(NoSuchKey)),
        (Preconditions { if_match: one_of(&["x", "e"]), ..always() }, Ok(()), Err(NoSuchKey)),
        (Preconditions { if_match: one_of(&["x"]), ..always() }, Err(Failed), Err(NoSuchKey)),
        (Preconditions { if_match: one_of(&[]), ..always() }, Err(Failed), Err(NoSuchKey)),
        (Preconditions { if_none_match: any(), ..always() }, Err(Failed), Ok(())),
        (Preconditions { if_none_match: one_of(&["e"]), ..always() }, Err(Failed), Ok(())),
        (Preconditions { if_none_match: one_of(&["x"]), ..always() }, Ok(()), Ok(())),
        (Preconditions { if_match_size: Some(0), ..always() }, Ok(()), Err(NoSuchKey)),
        (Preconditions { if_match_size: Some(1), ..always() }, Err(Failed), Err(NoSuchKey)),
        (Preconditions { if_match_last_modified_s: Some(1_700_000_000), ..always() }, Ok(()), Err(NoSuchKey)),
        (Preconditions { if_match_last_modified_s: Some(1), ..always() }, Err(Failed), Err(NoSuchKey)),
        (Preconditions { if_match: any(), if_none_match: one_of(&["e"]), ..always() }, Err(Failed), Err(NoSuchKey)),
    ];
    for (conditions, with, without) in table {
        assert_eq!(conditions.check(Some(&object)), with, "{conditions:?}");
        assert_eq!(conditions.check(None), without, "{conditions:?}");
    }
}

#[tokio::test]
async fn buckets_come_and_go() {
    let tables = Tables::new(faulty(1));
    let made = tables.create_bucket("abc", "eu", 5).await.unwrap();
    assert_eq!((made.name.as_str(), made.region.as_str(), made.created_unix_ms), ("abc", "eu", 5));
    assert_eq!(tables.create_bucket("abc", "eu", 6).await, Err(TablesError::BucketExists));
    assert_eq!(tables.bucket("abc").await.unwrap(), Some(made.clone()));
    put(&tables, &made, "k", "e").await;
    assert_eq!(tables.delete_bucket("abc").await, Err(TablesError::BucketNotEmpty));
    assert_eq!(tables.delete_object(&made, "k", &always(), 0).await, Ok(true));
    assert_eq!(tables.delete_object(&made, "k", &always(), 0).await, Ok(false));
    let open = NewUpload { key: "k".into(), ..NewUpload::default() };
    let open = tables.create_upload(&made, open, 1).await.unwrap();
    assert_eq!(tables.delete_bucket("abc").await, Err(TablesError::BucketNotEmpty));
    tables.abort_upload(made.id, "k", &open.upload_id, 0).await.unwrap();
    tables.delete_bucket("abc").await.unwrap();
    assert_eq!(tables.delete_bucket("abc").await, Err(TablesError::NoSuchBucket));
    assert_eq!(tables.bucket("abc").await.unwrap(), None);
    // A new bucket of the same name is another: who looked up the old one finds no bucket.
    let again = tables.create_bucket("abc", "eu", 7).await.unwrap();
    assert_ne!(again.id, made.id);
    let stale = tables.commit_object(&made, "k", object_row("e", Layout::Empty), &always(), 0).await;
    assert_eq!(stale, Err(TablesError::NoSuchBucket));
    assert_eq!(tables.delete_object(&made, "k", &always(), 0).await, Err(TablesError::NoSuchBucket));
    let upload = NewUpload { key: "k".into(), ..NewUpload::default() };
    assert_eq!(tables.create_upload(&made, upload, 1).await, Err(TablesError::NoSuchBucket));
}

#[tokio::test]
async fn there_is_a_last_bucket() {
    let tables = Tables::new(mem());
    let max = penstock_proto::limits::BUCKETS_MAX as i64;
    tables.transact(move |txn| Box::pin(async move { Ok(txn.atomic_add(b"Cbuckets", max - 1)?) })).await.unwrap();
    bucket(&tables, "last").await;
    assert_eq!(tables.create_bucket("one-more", "", 1).await, Err(TablesError::TooManyBuckets));
    tables.delete_bucket("last").await.unwrap();
    bucket(&tables, "one-more").await;
}

#[tokio::test]
async fn what_was_not_begun_or_has_expired_is_not_committed() {
    let tables = Tables::new(mem());
    let bucket = bucket(&tables, "b").await;
    let (never, _) = data_row(DataId(7), 1);
    let row = object_row("e", Layout::Single(never));
    let error = tables.commit_object(&bucket, "k", row.clone(), &always(), 0).await.unwrap_err();
    assert_eq!(error, TablesError::WriteExpired { data: DataId(7) });
    assert_eq!(tables.object(bucket.id, "k").await.unwrap(), None);
    assert_eq!(tables.renew_writes(&[DataId(7)], 9).await, Err(error.clone()));
    assert_eq!(tables.put_manifests(DataId(7), Code::ONE_COPY, &[manifest(0, 1)]).await, Err(error.clone()));

    tables.begin_writes(&[NewWrite { data: DataId(7), nodes: vec![], expires_unix_ms: 10 }]).await.unwrap();
    assert_eq!(tables.next_garbage(9, 10).await.unwrap(), [], "not before its time");
    tables.renew_writes(&[DataId(7)], 20).await.unwrap();
    assert_eq!(tables.next_garbage(19, 10).await.unwrap(), [], "renewed");
    let garbage = tables.next_garbage(20, 10).await.unwrap();
    let expected = GarbageRow { data: DataId(7), nodes: vec![], manifest_rows: 0, not_before_unix_ms: 20 };
    assert_eq!(garbage.iter().map(|(_, row)| row.clone()).collect::<Vec<_>>(), [expected]);
    assert_eq!(tables.commit_object(&bucket, "k", row, &always(), 0).await, Err(error));
    tables.abort_writes(&[DataId(7)], 30).await.unwrap();
    assert_eq!((tables.garbage_count().await.unwrap(), tables.pending_count().await.unwrap()), (1, 0));
    assert_eq!(collect_all(&tables, 30).await, [DataId(7)]);
    assert_eq!(tables.garbage_count().await.unwrap(), 0);
}

/// The sweep reads leases first and condemns in a later transaction: a renewal in between must count.
#[tokio::test]
async fn a_lease_renewed_during_a_sweep_holds() {
    let tables = Tables::new(mem());
    let data = begin(&tables, 1, 10).await.unwrap().data;
    let condemn = async |at: u64| {
        tables.transact(move |txn| Box::pin(crate::tables::garbage::condemn(txn, data, Some(at), at))).await.unwrap();
        (tables.pending_count().await.unwrap(), tables.garbage_count().await.unwrap())
    };
    tables.renew_writes(&[data], 20).await.unwrap();
    assert_eq!(condemn(19).await, (1, 0), "seen as expired at 10, renewed since");
    assert_eq!(condemn(20).await, (0, 1));
}

#[tokio::test]
async fn replaced_data_waits_for_its_readers_and_names_its_nodes() {
    let tables = Tables::new(faulty(2));
    let bucket = bucket(&tables, "b").await;
    let long = begin(&tables, 130, 1000).await.unwrap();
    assert_eq!(long.manifest, ManifestPlace::Rows { count: 3 });
    let row = object_row("e", Layout::Single(long.clone()));
    tables.commit_object(&bucket, "k", row.clone(), &always(), 0).await.unwrap();
    assert_eq!(tables.manifest(long.data, 2).await.unwrap().unwrap().first_stripe, 128);
    assert_eq!(tables.repair_queue(10).await.unwrap(), [(long.data, 1)]);
    assert_eq!(tables.repair(long.data, 1).await.unwrap().unwrap().stripe.missing, 0b100);

    let short = begin(&tables, 1, 1000).await.unwrap();
    let new = object_row("f", Layout::Single(short.clone()));
    let done = tables.commit_object(&bucket, "k", new, &always(), 500).await.unwrap();
    assert_eq!(done.replaced.map(|old| old.layout), Some(row.layout));
    assert_eq!(tables.next_garbage(499, 10).await.unwrap(), []);
    let [(token, garbage)] = tables.next_garbage(500, 10).await.unwrap().try_into().unwrap();
    assert_eq!(garbage.nodes, [NodeId(1), NodeId(2), NodeId(3)]);
    assert_eq!((garbage.data, garbage.manifest_rows), (long.data, 3));
    assert!(tables.manifest(long.data, 0).await.unwrap().is_some(), "until it is finished");
    tables.finish_garbage(&token).await.unwrap();
    assert_eq!(tables.manifest(long.data, 0).await.unwrap(), None);
    assert_eq!(tables.repair_queue(10).await.unwrap(), []);
    assert_eq!(tables.repair_queue(0).await.unwrap(), []);
    assert_eq!(tables.object(bucket.id, "k").await.unwrap().unwrap().layout, Layout::Single(short));
}

#[tokio::test]
async fn foreign_garbage_is_added_unless_it_is_pending() {
    let tables = Tables::new(mem());
    let row = GarbageRow { data: DataId(1), nodes: vec![NodeId(4)], manifest_rows: 0, not_before_unix_ms: 3 };
    tables.add_garbage(std::slice::from_ref(&row)).await.unwrap();
    let [(_, got)] = tables.next_garbage(3, 10).await.unwrap().try_into().unwrap();
    assert_eq!(got, row);
    let pending = begin(&tables, 1, 100).await.unwrap();
    let wrong = GarbageRow { data: pending.data, ..row };
    assert!(matches!(tables.add_garbage(&[wrong]).await, Err(TablesError::BadRow(_))));
    assert_eq!(tables.garbage_count().await.unwrap(), 1);
}

#[tokio::test]
async fn rows_that_make_no_sense_or_do_not_fit_are_refused() {
    let tables = Tables::new(mem());
    let bucket = bucket(&tables, "b").await;
    let commit =
        async |key: &str, row| tables.commit_object(&bucket, key, row, &always(), 0).await.map(drop).unwrap_err();
    let empty = || object_row("e", Layout::Empty);
    assert_eq!(commit("", empty()).await, TablesError::KeyLength);
    assert_eq!(commit(&"k".repeat(1025), empty()).await, TablesError::KeyLength);
    let list = Layout::Parts { list: DataId(1), count: 1 };
    assert!(matches!(commit("k", object_row("e", list)).await, TablesError::BadRow(_)));
    let mut large = empty();
    large.headers.content_type = Some("x".repeat(70_000));
    assert!(matches!(commit("k", large).await, TablesError::RowTooLarge { row: "object", .. }));
    for manifest in [manifest(64, 1), manifest(0, 0), manifest(0, 65)] {
        let (mut data, _) = data_row(DataId(2), 1);
        data.manifest = ManifestPlace::Inline(manifest);
        assert!(matches!(commit("k", object_row("e", Layout::Single(data))).await, TablesError::BadRow(_)));
    }
    for row in [manifest(3, 1), manifest(0, 0), manifest(64, 65)] {
        assert!(matches!(tables.put_manifests(DataId(2), Code::ONE_COPY, &[row]).await, Err(TablesError::BadRow(_))));
    }
    // A key of 1,024 bytes of any kind is a key, for objects and uploads.
    for name in ["\0".repeat(1024), "\u{10ffff}".repeat(256), "k".repeat(1024)] {
        tables.commit_object(&bucket, &name, empty(), &always(), 0).await.unwrap();
        let new = NewUpload { key: name.clone(), ..NewUpload::default() };
        let upload = tables.create_upload(&bucket, new, 1).await.unwrap();
        assert_eq!(tables.upload(bucket.id, &name, &upload.upload_id).await.unwrap(), Some(upload));
    }
    assert_eq!(tables.list_uploads(bucket.id, "", "", "", "", 10).await.unwrap().uploads.len(), 3);
}

#[tokio::test]
async fn an_upload_becomes_an_object_once() {
    let tables = Tables::new(faulty(3));
    let bucket = bucket(&tables, "b").await;
    let new = NewUpload { key: "k".into(), storage_class: "STANDARD".into(), ..NewUpload::default() };
    let upload = tables.create_upload(&bucket, new, 77).await.unwrap();
    let id = upload.upload_id.as_str();
    assert!(id.len() == 48 && id.starts_with("000000000000004d"), "{id}");
    let put_part = async |part| tables.put_part(bucket.id, "k", id, &part, 0).await;
    for number in [0, 10_001] {
        assert!(matches!(put_part(part_row(number, None)).await, Err(TablesError::BadRow(_))));
    }
    let mut parts = Vec::new();
    for number in [2, 1, 3] {
        let part = part_row(number, (number != 3).then_some(begin(&tables, 2, 1000).await.unwrap()));
        assert_eq!(put_part(part.clone()).await, Ok(None));
        parts.push(part);
    }
    tables.abort_writes(&[], 0).await.unwrap();
    parts.sort_by_key(|part| part.number);
    let page = tables.parts(bucket.id, "k", id, 0, 2).await.unwrap();
    assert_eq!((page.parts.as_slice(), page.more, &page.upload), (&parts[..2], true, &upload));
    let page = tables.parts(bucket.id, "k", id, 2, 1).await.unwrap();
    assert_eq!((page.parts.as_slice(), page.more), (&parts[2..], false));

    let no_conditions = always();
    let request = |numbers| CompleteUpload {
        bucket: &bucket,
        key: "k",
        upload_id: id,
        row: object_row("whole-3", Layout::Empty),
        part_numbers: numbers,
        parts_version: page.version,
        preconditions: &no_conditions,
        now_unix_ms: 100,
        garbage_not_before_unix_ms: 0,
    };
    for numbers in [&[][..], &[2, 1], &[1, 1]] {
        assert!(matches!(tables.complete_upload(request(numbers)).await, Err(TablesError::BadRow(_))));
    }
    assert_eq!(tables.complete_upload(request(&[1, 4])).await, Err(TablesError::PartsChanged));
    let wrong_key = CompleteUpload { key: "other", ..request(&[1]) };
    assert_eq!(tables.complete_upload(wrong_key).await, Err(TablesError::NoSuchUpload));
    let done = tables.complete_upload(request(&[1, 2, 3])).await.unwrap();
    assert_eq!((done.object.parts, done.object.upload_id.as_deref(), done.already), (Some(3), Some(id), false));
    let Layout::Parts { list, count } = done.object.layout else { panic!("{done:?}") };
    let spans = tables.part_list(list, 0).await.unwrap();
    assert_eq!((count, spans.len()), (1, 3));
    assert_eq!(spans.iter().map(|span| span.offset).collect::<Vec<_>>(), [0, 8 << 20, 16 << 20]);
    assert_eq!(spans[1].data, parts[1].data);
    assert_eq!(tables.part_list(list, 1).await.unwrap(), []);
    assert_eq!(tables.part_numbered(list, count, 3).await.unwrap(), Some(spans[2].clone()));
    assert_eq!(tables.part_numbered(list, count, 4).await.unwrap(), None);

    let again = tables.complete_upload(request(&[1, 2, 3])).await.unwrap();
    assert!(again.already && again.object == done.object);
    assert_eq!(tables.upload(bucket.id, "k", id).await.unwrap(), None);
    assert_eq!(put_part(part_row(1, None)).await, Err(TablesError::NoSuchUpload));
    assert_eq!(tables.parts(bucket.id, "k", id, 0, 1).await, Err(TablesError::NoSuchUpload));
    put(&tables, &bucket, "k", "over").await;
    assert_eq!(tables.complete_upload(request(&[1, 2, 3])).await, Err(TablesError::NoSuchUpload));
    assert_eq!(collect_all(&tables, 1).await.len(), 2, "both parts that had data, and not the pending one");
    for nonsense in ["", "zz", &id.to_uppercase().replace('0', "A"), &id[1..]] {
        assert_eq!(tables.upload(bucket.id, "k", nonsense).await.unwrap(), None);
        assert_eq!(tables.abort_upload(bucket.id, "k", nonsense, 0).await, Err(TablesError::NoSuchUpload));
    }
}

#[tokio::test]
async fn settings_are_bytes() {
    let tables = Tables::new(faulty(4));
    assert_eq!(tables.setting("code").await.unwrap(), None);
    tables.set_setting("code", b"RS(2,1)").await.unwrap();
    tables.set_setting("empty", b"").await.unwrap();
    assert_eq!(tables.setting("code").await.unwrap().as_deref(), Some(b"RS(2,1)".as_slice()));
    assert_eq!(tables.setting("empty").await.unwrap().as_deref(), Some(b"".as_slice()));
}

#[test]
fn errors_say_whether_to_try_again() {
    assert!(TablesError::Kv(KvError::Conflict).is_retryable() && TablesError::PartsChanged.is_retryable());
    assert!(!TablesError::NoSuchBucket.is_retryable() && !TablesError::Kv(KvError::Closed).is_retryable());
    assert!(TablesError::Kv(KvError::CommitUnknown).may_have_committed());
    assert!(!TablesError::Kv(KvError::Conflict).may_have_committed());
}
