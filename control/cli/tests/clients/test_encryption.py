"""Server-side encryption, by boto3 as users have it."""

import base64
import hashlib
import json
import os
import secrets
import subprocess

import pytest
import requests
from botocore.exceptions import ClientError

from conftest import BINARY

MIB = 1 << 20


def refused(call, code, status):
    with pytest.raises(ClientError) as error:
        call()
    found = error.value.response
    assert (found["Error"]["Code"], found["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), found


def customer(key):
    return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}


def encoded(key):
    """The same for operations whose keys botocore does not encode."""
    text = lambda raw: base64.b64encode(raw).decode()  # noqa: E731
    return {**customer(text(key)), "SSECustomerKeyMD5": text(hashlib.md5(key).digest())}


def source(key):
    return {"CopySourceSSECustomerAlgorithm": "AES256", "CopySourceSSECustomerKey": key}


def read(s3, bucket, key, **more):
    return s3.get_object(Bucket=bucket, Key=key, **more)["Body"].read()


def admin(store, *arguments):
    command = [BINARY, "admin", "--endpoint", store.endpoint, "--data", store.data, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_customer_keys(shared_store, s3, bucket):
    key, other = secrets.token_bytes(32), secrets.token_bytes(32)
    body = os.urandom(3 * MIB + 7)
    done = s3.put_object(Bucket=bucket, Key="k", Body=body, Metadata={"a": "b"}, **customer(key))
    md5 = base64.b64encode(hashlib.md5(key).digest()).decode()
    assert (done["SSECustomerAlgorithm"], done["SSECustomerKeyMD5"]) == ("AES256", md5)
    assert done["ETag"].strip('"') != hashlib.md5(body).hexdigest()
    found = s3.get_object(Bucket=bucket, Key="k", **customer(key))
    assert found["Body"].read() == body and found["SSECustomerKeyMD5"] == md5 and found["Metadata"] == {"a": "b"}
    for first, last in [(0, 0), (65_530, 65_540), (MIB, 3 * MIB), (3 * MIB, 4 * MIB)]:
        part = read(s3, bucket, "k", Range=f"bytes={first}-{last}", **customer(key))
        assert part == body[first : last + 1]
    head = s3.head_object(Bucket=bucket, Key="k", **customer(key))
    assert head["ContentLength"] == len(body) and head["SSECustomerAlgorithm"] == "AES256"
    parts = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectSize"], **encoded(key))
    assert parts["ObjectSize"] == len(body)
    refused(lambda: read(s3, bucket, "k"), "InvalidRequest", 400)
    refused(lambda: read(s3, bucket, "k", **customer(other)), "AccessDenied", 403)
    refused(lambda: s3.head_object(Bucket=bucket, Key="k"), "400", 400)
    refused(lambda: s3.head_object(Bucket=bucket, Key="k", **customer(other)), "403", 403)
    refused(lambda: read(s3, bucket, "k", **customer(b"short")), "InvalidArgument", 400)
    wrong_md5 = {**encoded(key), "SSECustomerKeyMD5": base64.b64encode(bytes(16)).decode()}
    refused(lambda: s3.put_object(Bucket=bucket, Key="x", Body=b"", **wrong_md5), "InvalidArgument", 400)
    aes128 = {**customer(key), "SSECustomerAlgorithm": "AES128"}
    refused(lambda: s3.put_object(Bucket=bucket, Key="x", Body=b"", **aes128), "InvalidEncryptionAlgorithmError", 400)
    both = {**customer(key), "ServerSideEncryption": "AES256"}
    refused(lambda: s3.put_object(Bucket=bucket, Key="x", Body=b"", **both), "InvalidArgument", 400)
    s3.put_object(Bucket=bucket, Key="plain", Body=b"plain")
    refused(lambda: read(s3, bucket, "plain", **customer(key)), "InvalidRequest", 400)
    # Copies: the source's key, and whatever the copy is to have.
    copy = {"Bucket": bucket, "CopySource": {"Bucket": bucket, "Key": "k"}}
    refused(lambda: s3.copy_object(Key="c", **copy), "InvalidRequest", 400)
    refused(lambda: s3.copy_object(Key="c", **copy, **source(other)), "AccessDenied", 403)
    done = s3.copy_object(Key="c", **copy, **source(key), **customer(other))
    assert done["SSECustomerAlgorithm"] == "AES256"
    assert read(s3, bucket, "c", **customer(other)) == body
    s3.copy_object(Key="c", **copy, **source(key))
    assert read(s3, bucket, "c") == body
    # Nothing of the key is anywhere that people read.
    log = shared_store.server.log.read_text()
    assert base64.b64encode(key).decode() not in log and key.hex() not in log


def test_customer_keys_in_parts(s3, bucket):
    key, other = secrets.token_bytes(32), secrets.token_bytes(32)
    s3.put_object(Bucket=bucket, Key="source", Body=b"s" * (6 * MIB), ServerSideEncryption="AES256")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", **customer(key))
    assert upload["SSECustomerAlgorithm"] == "AES256"
    name = {"Bucket": bucket, "Key": "k", "UploadId": upload["UploadId"]}
    first, last = os.urandom(5 * MIB + 3), os.urandom(1000)
    refused(lambda: s3.upload_part(**name, PartNumber=1, Body=first), "InvalidRequest", 400)
    refused(lambda: s3.upload_part(**name, PartNumber=1, Body=first, **customer(other)), "InvalidRequest", 400)
    parts = []
    for number, body in [(1, first), (3, last)]:
        done = s3.upload_part(**name, PartNumber=number, Body=body, **customer(key))
        parts.append({"PartNumber": number, "ETag": done["ETag"]})
    done = s3.upload_part_copy(
        **name, PartNumber=2, CopySource={"Bucket": bucket, "Key": "source"}, CopySourceRange="bytes=0-5242879",
        **customer(key)
    )  # fmt: skip
    parts.insert(1, {"PartNumber": 2, "ETag": done["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(**name, MultipartUpload={"Parts": parts})
    body = first + b"s" * (5 * MIB) + last
    assert read(s3, bucket, "k", **customer(key)) == body
    joint = len(first)
    part = read(s3, bucket, "k", Range=f"bytes={joint - 5}-{joint + 70_000}", **customer(key))
    assert part == body[joint - 5 : joint + 70_001]
    assert read(s3, bucket, "k", PartNumber=3, **customer(key)) == last
    refused(lambda: read(s3, bucket, "k"), "InvalidRequest", 400)


def test_the_stores_own_key_and_a_default(s3, bucket):
    body = os.urandom(200_000)
    done = s3.put_object(Bucket=bucket, Key="k", Body=body, ServerSideEncryption="AES256")
    assert done["ServerSideEncryption"] == "AES256"
    assert done["ETag"].strip('"') == hashlib.md5(body).hexdigest()
    assert read(s3, bucket, "k") == body
    assert s3.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"
    assert "ServerSideEncryption" not in s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    code = "ServerSideEncryptionConfigurationNotFoundError"
    refused(lambda: s3.get_bucket_encryption(Bucket=bucket), code, 404)
    rules = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"] == rules
    assert s3.put_object(Bucket=bucket, Key="d", Body=body)["ServerSideEncryption"] == "AES256"
    assert s3.get_object(Bucket=bucket, Key="d")["Body"].read() == body
    assert "ServerSideEncryption" not in s3.head_object(Bucket=bucket, Key="plain")
    copied = s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "plain"})
    assert copied["ServerSideEncryption"] == "AES256"
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")
    assert upload["ServerSideEncryption"] == "AES256"
    name = {"Bucket": bucket, "Key": "m", "UploadId": upload["UploadId"]}
    part = s3.upload_part(**name, PartNumber=1, Body=body)
    assert part["ServerSideEncryption"] == "AES256"
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    assert s3.complete_multipart_upload(**name, MultipartUpload=parts)["ServerSideEncryption"] == "AES256"
    assert read(s3, bucket, "m") == body
    # The request's own wish comes before the bucket's.
    key = secrets.token_bytes(32)
    assert "ServerSideEncryption" not in s3.put_object(Bucket=bucket, Key="own", Body=b"x", **customer(key))
    s3.delete_bucket_encryption(Bucket=bucket)
    refused(lambda: s3.get_bucket_encryption(Bucket=bucket), code, 404)
    assert "ServerSideEncryption" not in s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    assert read(s3, bucket, "d") == body
    # A bucket may block customers' keys.
    blocks = [{"BlockedEncryptionTypes": {"EncryptionType": ["SSE-C"]}}]
    try:
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": blocks})
    except Exception as error:  # botocore before it knew of it
        assert "Unknown parameter" in str(error)
    else:
        refused(lambda: s3.put_object(Bucket=bucket, Key="x", Body=b"x", **customer(key)), "AccessDenied", 403)
        assert read(s3, bucket, "own", **customer(key)) == b"x"


def test_named_keys(shared_store, s3, bucket):
    name = "key-" + os.urandom(4).hex()
    wish = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": name}
    put = lambda **more: s3.put_object(Bucket=bucket, Key="k", Body=b"numbers", **more)  # noqa: E731
    refused(lambda: put(**wish), "KMS.NotFoundException", 400)
    status, shown, _ = admin(shared_store, "kms", "create", name)
    assert status == 0 and f"KeyName {name}" in shown and "Versions 1" in shown
    assert admin(shared_store, "kms", "create", name)[0] != 0
    context = base64.b64encode(json.dumps({"team": "finance"}).encode()).decode()
    done = put(**wish, SSEKMSEncryptionContext=context, BucketKeyEnabled=True)
    assert (done["ServerSideEncryption"], done["SSEKMSKeyId"], done["BucketKeyEnabled"]) == ("aws:kms", name, True)
    assert json.loads(base64.b64decode(done["SSEKMSEncryptionContext"])) == {"team": "finance"}
    assert done["ETag"].strip('"') != hashlib.md5(b"numbers").hexdigest()
    found = s3.head_object(Bucket=bucket, Key="k")
    assert (found["ServerSideEncryption"], found["SSEKMSKeyId"], found["BucketKeyEnabled"]) == ("aws:kms", name, True)
    status, shown, _ = admin(shared_store, "kms", "rotate", name)
    assert status == 0 and "Versions 2" in shown
    assert read(s3, bucket, "k") == b"numbers"
    assert admin(shared_store, "kms", "disable", name)[0] == 0
    refused(lambda: read(s3, bucket, "k"), "KMS.DisabledException", 400)
    refused(lambda: put(**wish), "KMS.DisabledException", 400)
    assert admin(shared_store, "kms", "enable", name)[0] == 0
    assert read(s3, bucket, "k") == b"numbers"
    assert name in admin(shared_store, "kms", "list")[1]
    # Without a name: the default key.
    done = put(ServerSideEncryption="aws:kms")
    assert done["SSEKMSKeyId"] == "aws/s3" and read(s3, bucket, "k") == b"numbers"
    rules = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": name}}]
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})
    assert put()["SSEKMSKeyId"] == name and read(s3, bucket, "k") == b"numbers"
    refused(lambda: put(ServerSideEncryption="aws:kms:dsse"), "NotImplemented", 501)
    refused(lambda: put(ServerSideEncryption="rot13"), "InvalidArgument", 400)
    refused(lambda: put(ServerSideEncryption="AES256", SSEKMSKeyId=name), "InvalidArgument", 400)
    bad = base64.b64encode(b"[]").decode()
    refused(lambda: put(**wish, SSEKMSEncryptionContext=bad), "InvalidArgument", 400)


def test_another_envelope_for_the_same_bytes(shared_store, s3, bucket):
    if not hasattr(s3, "update_object_encryption"):
        pytest.skip("botocore does not know UpdateObjectEncryption yet")
    name = "key-" + os.urandom(4).hex()
    assert admin(shared_store, "kms", "create", name)[0] == 0
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"numbers", ServerSideEncryption="AES256")["ETag"]
    wish = {"SSEKMS": {"KMSKeyArn": f"arn:aws:kms:us-east-1:000000000000:key/{name}", "BucketKeyEnabled": True}}
    s3.update_object_encryption(Bucket=bucket, Key="k", ObjectEncryption=wish)
    found = s3.get_object(Bucket=bucket, Key="k")
    assert found["Body"].read() == b"numbers" and found["ETag"] == etag
    assert found["ServerSideEncryption"] == "aws:kms" and found["SSEKMSKeyId"].endswith(name)
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    refused(
        lambda: s3.update_object_encryption(Bucket=bucket, Key="plain", ObjectEncryption=wish), "InvalidRequest", 400
    )


def test_reads_are_not_told_how_to_encrypt(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="AES256")

    def add(params, **_):
        params["headers"]["x-amz-server-side-encryption"] = "AES256"

    s3.meta.events.register("before-call.s3.GetObject", add)
    refused(lambda: read(s3, bucket, "k"), "InvalidArgument", 400)


def test_forms_are_encrypted(shared_store, s3, bucket):
    form = shared_store.client(signature_version="s3v4").generate_presigned_post(
        bucket, "k", Fields={"x-amz-server-side-encryption": "AES256"},
        Conditions=[{"x-amz-server-side-encryption": "AES256"}],
    )  # fmt: skip
    done = requests.post(form["url"], data=form["fields"], files={"file": b"from a form"}, timeout=30)
    assert done.status_code == 204, done.text
    assert done.headers["x-amz-server-side-encryption"] == "AES256"
    found = s3.get_object(Bucket=bucket, Key="k")
    assert found["ServerSideEncryption"] == "AES256" and found["Body"].read() == b"from a form"


def test_encrypted_objects_survive_a_restart_and_another_key_is_refused(start_store):
    store = start_store()
    s3 = store.client()
    s3.create_bucket(Bucket="b-enc")
    marker = b"a text that is easy to find on a disk. " * 2000
    s3.put_object(Bucket="b-enc", Key="own", Body=marker, ServerSideEncryption="AES256")
    s3.put_object(Bucket="b-enc", Key="kms", Body=marker, ServerSideEncryption="aws:kms")
    key_file = store.data / "encryption.key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert store.server.stop() == 0
    device = (store.data / "node-00" / "device.pst").open("rb").read(64 * MIB)
    assert marker[:64] not in device
    right = key_file.read_text()
    key_file.write_text("00" * 32)
    store.server.start()
    assert store.server.process.wait(60) != 0
    assert "restore the file" in store.server.log.read_text()
    key_file.write_text(right)
    store.start()
    for key in ("own", "kms"):
        assert read(store.client(), "b-enc", key) == marker
    assert store.server.stop() == 0
