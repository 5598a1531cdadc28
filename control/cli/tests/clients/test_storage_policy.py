"""Storage classes: what `penstock admin storage-policy` sets decides how new data is kept, and clients see its class."""

import subprocess

import pytest
from botocore.exceptions import ClientError
from conftest import BINARY


def code_of(error):
    return error.value.response["Error"]["Code"]


def test_policies_are_set_shown_and_kept_to(shared_store, s3, bucket):
    def admin(*arguments):
        command = [BINARY, "admin", "--endpoint", shared_store.endpoint, "--data", shared_store.data, "storage-policy", *arguments]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    status, out, _ = admin("list")
    assert status == 0 and "Class STANDARD" in out and "Source configuration" in out
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="ONEZONE_IA")
    assert code_of(error) == "InvalidStorageClass"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    try:
        assert admin("set", "ONEZONE_IA", "1x", "--bucket", bucket)[0] == 0
        status, out, _ = admin("show", "ONEZONE_IA", "--bucket", bucket)
        assert status == 0 and "Code 1x" in out and "Source bucket" in out
        s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 100_000, StorageClass="ONEZONE_IA")
        s3.put_object(Bucket=bucket, Key="plain", Body=b"y")
        head = s3.head_object(Bucket=bucket, Key="k")
        assert head["StorageClass"] == "ONEZONE_IA" and "StorageClass" not in s3.head_object(Bucket=bucket, Key="plain")
        listed = {one["Key"]: one["StorageClass"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]}
        assert listed == {"k": "ONEZONE_IA", "plain": "STANDARD"}
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x" * 100_000
        # A copy onto itself with another class is new data of that class.
        s3.copy_object(Bucket=bucket, Key="plain", CopySource={"Bucket": bucket, "Key": "plain"}, StorageClass="ONEZONE_IA")
        assert s3.head_object(Bucket=bucket, Key="plain")["StorageClass"] == "ONEZONE_IA"
    finally:
        assert admin("unset", "ONEZONE_IA", "--bucket", bucket)[0] == 0
    status, _, complaint = admin("show", "ONEZONE_IA", "--bucket", bucket)
    assert status != 0 and "NoSuchEntity" in complaint
    for code, says in [("RS(40,8)", "48 different nodes"), ("RS(0,1)", "out of range"), ("many", "is no code")]:
        status, _, complaint = admin("set", "COLD", code)
        assert status != 0 and says in complaint, complaint
