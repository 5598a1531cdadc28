//! Every operation's future is `Send`: the gateway calls them from spawned tasks. That this compiles is the test.

use crate::tables::{BucketRow, CompleteUpload, NewUpload, ObjectRow, PartRow, Preconditions, Tables};
use penstock_proto::{Code, DataId};

fn send<T: Send>(_: T) {}

#[expect(dead_code, reason = "only compiled")]
fn all(t: &Tables, bucket: &BucketRow, object: ObjectRow, part: &PartRow, complete: CompleteUpload<'_>) {
    let always = Preconditions::default();
    let data = DataId(1);
    send(t.create_bucket("", "", 0));
    send(t.bucket(""));
    send(t.list_buckets("", None, 1));
    send(t.delete_bucket(""));
    send(t.begin_writes(&[]));
    send(t.renew_writes(&[], 0));
    send(t.abort_writes(&[], 0));
    send(t.put_manifests(data, Code::ONE_COPY, &[]));
    send(t.manifest(data, 0));
    send(t.commit_object(bucket, "", object, &always, 0));
    send(t.object(1, ""));
    send(t.delete_object(bucket, "", &always, 0));
    send(t.list_objects(1, "", "", "", 1));
    send(t.create_upload(bucket, NewUpload::default(), 0));
    send(t.upload(1, "", ""));
    send(t.put_part(1, "", "", part, 0));
    send(t.parts(1, "", "", 0, 1));
    send(t.complete_upload(complete));
    send(t.abort_upload(1, "", "", 0));
    send(t.list_uploads(1, "", "", "", "", 1));
    send(t.part_list(data, 0));
    send(t.part_list_at(data, 1, 0));
    send(t.part_numbered(data, 1, 1));
    send(t.next_garbage(0, 1));
    send(t.add_garbage(&[]));
    send(t.garbage_count());
    send(t.pending_count());
    send(t.repair_queue(1));
    send(t.repair(data, 1));
    send(t.setting(""));
    send(t.set_setting("", &[]));
}
