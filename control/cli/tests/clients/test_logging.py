"""Server access logs in buckets, by boto3."""

import time

import pytest
from botocore.exceptions import ClientError

WAIT_SECONDS_MAX = 60


def logged(s3, bucket, prefix):
    rows = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    bodies = [s3.get_object(Bucket=bucket, Key=row["Key"])["Body"].read().decode() for row in rows]
    return [row["Key"] for row in rows], [line for body in bodies for line in body.splitlines()]


def wait_for(s3, bucket, prefix, wanted):
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        keys, lines = logged(s3, bucket, prefix)
        if all(any(word in line for line in lines) for word in wanted):
            return keys, lines
        time.sleep(0.2)
    raise AssertionError(f"{wanted} are not in {lines}")


def test_a_buckets_requests_become_objects_of_another(start_store):
    store = start_store(1, "--log-delivery-seconds", 1)
    s3 = store.client()
    for bucket in ("b-source", "b-target"):
        s3.create_bucket(Bucket=bucket)
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket="b-source")
    target = {"TargetBucket": "b-target", "TargetPrefix": "logs/"}
    s3.put_bucket_logging(Bucket="b-source", BucketLoggingStatus={"LoggingEnabled": target})
    assert s3.get_bucket_logging(Bucket="b-source")["LoggingEnabled"] == target
    s3.put_object(Bucket="b-source", Key="some key", Body=b"12345")
    s3.get_object(Bucket="b-source", Key="some key")["Body"].read()
    with pytest.raises(ClientError):
        s3.get_object(Bucket="b-source", Key="none")
    wanted = ["REST.PUT.OBJECT some%20key", "REST.GET.OBJECT some%20key", "REST.GET.OBJECT none"]
    keys, lines = wait_for(s3, "b-target", "logs/", wanted)
    assert all(line.split(" ")[1] == "b-source" for line in lines)
    assert len(keys[0].split("/")[1].split("-")) == 7
    got = next(line for line in lines if "REST.GET.OBJECT some%20key" in line)
    assert " 200 - 5 - " in got
    missing = next(line for line in lines if "REST.GET.OBJECT none" in line)
    assert " 404 NoSuchKey " in missing
    # What is not delivered when the store stops is delivered then; the setting survives the restart.
    s3.put_object(Bucket="b-source", Key="late", Body=b"")
    assert store.server.stop() == 0
    store.start()
    s3 = store.client()
    wait_for(s3, "b-target", "logs/", ["REST.PUT.OBJECT late"])
    s3.put_object(Bucket="b-source", Key="later", Body=b"")
    wait_for(s3, "b-target", "logs/", ["REST.PUT.OBJECT later"])
    # In AWS's other form.
    partitioned = {"PartitionedPrefix": {"PartitionDateSource": "EventTime"}}
    s3.put_bucket_logging(
        Bucket="b-source",
        BucketLoggingStatus={"LoggingEnabled": {**target, "TargetObjectKeyFormat": partitioned, "TargetPrefix": "p/"}},
    )
    s3.head_bucket(Bucket="b-source")
    wait_for(s3, "b-target", "p/000000000000/us-east-1/b-source/20", ["REST.HEAD.BUCKET"])
    s3.put_bucket_logging(Bucket="b-source", BucketLoggingStatus={})
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket="b-source")
    with pytest.raises(ClientError) as error:
        wrong = {"TargetBucket": "b-nowhere", "TargetPrefix": ""}
        s3.put_bucket_logging(Bucket="b-source", BucketLoggingStatus={"LoggingEnabled": wrong})
    assert error.value.response["Error"]["Code"] == "InvalidTargetBucketForLogging"
    assert store.server.stop() == 0
