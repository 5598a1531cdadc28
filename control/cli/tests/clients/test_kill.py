"""kill -9 at any moment loses no acknowledged object: killed and restarted 50 times under load, every byte verified."""

import hashlib
import os
import random
import threading
import time

import botocore.exceptions
import pytest

KILLS = int(os.environ.get("PENSTOCK_KILLS", "50"))
WRITERS = 4
KEYS = 12


class Writer(threading.Thread):
    """Writes, overwrites, deletes and completes uploads on keys of its own, and remembers what each key may hold."""

    def __init__(self, number, store, stop):
        super().__init__(daemon=True)
        self.store, self.stop_flag = store, stop
        self.random = random.Random(number)
        # For each key, the states that reads may show: a digest, or None for absent. More than one while an operation's
        # outcome is unknown, because its answer never came.
        self.may_be = {f"w{number}/{k}": {None} for k in range(KEYS)}
        self.acknowledged = 0
        self.failure = None

    def run(self):
        try:
            client = self.store.client(retries={"total_max_attempts": 1})
            while not self.stop_flag.is_set():
                self.step(client)
        except Exception as error:  # noqa: BLE001 - shown by the test
            self.failure = error

    def step(self, client):
        key = self.random.choice(list(self.may_be))
        kind = self.random.random()
        try:
            if kind < 0.15:
                new = None
                self.may_be[key] = self.may_be[key] | {new}
                client.delete_object(Bucket="bucket", Key=key)
            elif kind < 0.25:
                data = self.random.randbytes(self.random.choice([10, 100_000]))
                new = hashlib.sha256(data).hexdigest()
                upload = client.create_multipart_upload(Bucket="bucket", Key=key)["UploadId"]
                etag = client.upload_part(Bucket="bucket", Key=key, UploadId=upload, PartNumber=1, Body=data)["ETag"]
                self.may_be[key] = self.may_be[key] | {new}
                client.complete_multipart_upload(
                    Bucket="bucket", Key=key, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
                )
            else:
                data = self.random.randbytes(self.random.choice([0, 1, 3000, 70_000, 1 << 20, 5 << 20]))
                new = hashlib.sha256(data).hexdigest()
                self.may_be[key] = self.may_be[key] | {new}
                client.put_object(Bucket="bucket", Key=key, Body=data)
            self.may_be[key] = {new}
            self.acknowledged += 1
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError) as error:
            status = (getattr(error, "response", None) or {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status and status < 500 and status != 404:
                raise
            time.sleep(0.05)

    def verify(self, client):
        for key, states in self.may_be.items():
            try:
                state = hashlib.sha256(client.get_object(Bucket="bucket", Key=key)["Body"].read()).hexdigest()
            except client.exceptions.NoSuchKey:
                state = None
            assert state in states, f"{key} is {state}, it may be {states}"
            self.may_be[key] = {state}


@pytest.mark.parametrize(("nodes", "kills"), [(1, KILLS // 2), (3, KILLS - KILLS // 2)])
def test_kill_nine_under_load_loses_nothing(start_store, nodes, kills):
    store = start_store(nodes, "--garbage-grace-seconds", 0)
    store.client().create_bucket(Bucket="bucket")
    moments = random.Random(nodes)
    writers = []
    for round_number in range(kills):
        stop = threading.Event()
        previous, writers = writers, [Writer(n, store, stop) for n in range(WRITERS)]
        for writer, before in zip(writers, previous):
            writer.may_be, writer.random, writer.acknowledged = before.may_be, before.random, before.acknowledged
        for writer in writers:
            writer.start()
        time.sleep(moments.uniform(0.1, 1.2))
        store.server.kill()
        stop.set()
        for writer in writers:
            writer.join(60)
            assert not writer.is_alive() and writer.failure is None, writer.failure
        store.start()
        client = store.client()
        for writer in writers:
            writer.verify(client)
        listed = {
            row["Key"] for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket") for row in page.get("Contents", [])
        }
        present = {key for writer in writers for key, states in writer.may_be.items() if states != {None}}
        assert listed == present, f"round {round_number}: the listing and the objects differ"
    assert sum(writer.acknowledged for writer in writers) > kills * 4, "the load was a load"
