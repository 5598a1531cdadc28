"""RenameObject, by boto3."""

import os
import urllib.parse

import pytest
from botocore.exceptions import ClientError


def refused(call, code, status):
    with pytest.raises(ClientError) as error:
        call()
    found = error.value.response
    assert (found["Error"]["Code"], found["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), found


def source(bucket, key):
    return urllib.parse.quote(f"{bucket}/{key}")


def test_an_object_gets_another_key(s3, bucket):
    body = os.urandom(100_000)
    before = s3.put_object(Bucket=bucket, Key="a b/c", Body=body, Metadata={"m": "v"}, Tagging="t=1")
    s3.rename_object(Bucket=bucket, Key="new", RenameSource=source(bucket, "a b/c"))
    found = s3.get_object(Bucket=bucket, Key="new")
    assert found["Body"].read() == body and found["ETag"] == before["ETag"] and found["Metadata"] == {"m": "v"}
    assert s3.get_object_tagging(Bucket=bucket, Key="new")["TagSet"] == [{"Key": "t", "Value": "1"}]
    refused(lambda: s3.get_object(Bucket=bucket, Key="a b/c"), "NoSuchKey", 404)
    keys = [row["Key"] for row in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == ["new"]
    refused(lambda: s3.rename_object(Bucket=bucket, Key="x", RenameSource=source(bucket, "none")), "NoSuchKey", 404)


def test_conditions_and_tokens(s3, bucket):
    first = s3.put_object(Bucket=bucket, Key="first", Body=b"first")["ETag"]
    second = s3.put_object(Bucket=bucket, Key="second", Body=b"second")["ETag"]

    def rename(old, new, **more):
        return s3.rename_object(Bucket=bucket, Key=new, RenameSource="/" + old, **more)

    refused(lambda: rename("first", "second", DestinationIfNoneMatch="*"), "PreconditionFailed", 412)
    refused(lambda: rename("first", "second", DestinationIfMatch=first), "PreconditionFailed", 412)
    refused(lambda: rename("first", "second", SourceIfMatch=second), "PreconditionFailed", 412)
    rename("first", "second", DestinationIfMatch=second, SourceIfMatch=first, ClientToken="token")
    assert s3.get_object(Bucket=bucket, Key="second")["Body"].read() == b"first"
    rename("first", "second", DestinationIfMatch=second, SourceIfMatch=first, ClientToken="token")
    refused(lambda: rename("first", "third", ClientToken="token"), "IdempotencyParameterMismatch", 400)
    refused(lambda: rename("first", "third"), "NoSuchKey", 404)
    refused(lambda: rename("second", "second"), "InvalidRequest", 400)


def test_not_in_buckets_with_versions(s3):
    name = f"rename-{os.urandom(6).hex()}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=name, Key="a", Body=b"x")["VersionId"]
    refused(lambda: s3.rename_object(Bucket=name, Key="b", RenameSource="/a"), "NotImplemented", 501)
    s3.delete_object(Bucket=name, Key="a", VersionId=version)
    s3.delete_bucket(Bucket=name)
