"""Every operation of the walking house, by boto3 as users have it."""

import base64
import hashlib
import io
import os
import socket
import threading
import urllib.error
import urllib.request
import zlib

import boto3.s3.transfer
import botocore.config
import botocore.exceptions
import pytest

MIB = 1 << 20


def code_of(error):
    return error.value.response["Error"]["Code"]


def status_of(error):
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def refused():
    return pytest.raises(botocore.exceptions.ClientError)


def body(s3, bucket, key, **more):
    return s3.get_object(Bucket=bucket, Key=key, **more)["Body"].read()


def test_buckets(s3):
    name = f"first-{os.urandom(6).hex()}"
    s3.create_bucket(Bucket=name)
    assert s3.head_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert name in [row["Name"] for row in s3.list_buckets()["Buckets"]]
    assert [row["Name"] for row in s3.list_buckets(Prefix=name)["Buckets"]] == [name]
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] in (None, "us-east-1")
    with refused() as error:
        s3.create_bucket(Bucket=name)
    assert code_of(error) == "BucketAlreadyOwnedByYou"
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    with refused() as error:
        s3.delete_bucket(Bucket=name)
    assert code_of(error) == "BucketNotEmpty"
    s3.delete_object(Bucket=name, Key="k")
    s3.delete_bucket(Bucket=name)
    with refused() as error:
        s3.head_bucket(Bucket=name)
    assert status_of(error) == 404
    with refused() as error:
        s3.list_objects_v2(Bucket=name)
    assert code_of(error) == "NoSuchBucket"


def test_many_buckets_come_in_pages(s3):
    names = sorted(f"page-{os.urandom(6).hex()}" for _ in range(7))
    for name in names:
        s3.create_bucket(Bucket=name)
    found, token = [], {}
    while True:
        page = s3.list_buckets(MaxBuckets=3, Prefix="page-", **token)
        assert len(page["Buckets"]) <= 3
        found += [row["Name"] for row in page["Buckets"]]
        if "ContinuationToken" not in page:
            break
        token = {"ContinuationToken": page["ContinuationToken"]}
    assert found == names
    for name in names:
        s3.delete_bucket(Bucket=name)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4095, 4096, 65537, MIB, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 13 * MIB + 7])
def test_objects_come_back_as_they_went(s3, bucket, size):
    data = os.urandom(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=data)
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["ContentLength"] == size and got["ETag"] == put["ETag"]
    assert got["Body"].read() == data
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head["ContentLength"] == size
    assert base64.b64decode(head["ChecksumCRC32"]) == zlib.crc32(data).to_bytes(4, "big")


def test_headers_and_metadata_are_kept(s3, bucket):
    s3.put_object(
        Bucket=bucket, Key="k", Body=b"x", ContentType="text/x-penstock", CacheControl="max-age=3", ContentEncoding="zstd",
        ContentDisposition='attachment; filename="a b"', ContentLanguage="cy", Metadata={"Colour": "green", "empty": ""},
    )
    head = s3.head_object(Bucket=bucket, Key="k")
    assert head["ContentType"] == "text/x-penstock" and head["CacheControl"] == "max-age=3"
    assert head["ContentEncoding"] == "zstd" and head["ContentLanguage"] == "cy"
    assert head["ContentDisposition"] == 'attachment; filename="a b"'
    assert head["Metadata"] == {"colour": "green", "empty": ""}
    got = s3.get_object(Bucket=bucket, Key="k", ResponseContentType="a/b", ResponseCacheControl="no-store")
    assert got["ContentType"] == "a/b" and got["CacheControl"] == "no-store"


def test_ranges(s3, bucket):
    data = os.urandom(9 * MIB + 123)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    for text, first, end in [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=-1", len(data) - 1, len(data)),
        ("bytes=-7000000", len(data) - 7000000, len(data)),
        (f"bytes={4 * MIB - 3}-{4 * MIB + 3}", 4 * MIB - 3, 4 * MIB + 4),
        (f"bytes={len(data) - 1}-{len(data) + 99}", len(data) - 1, len(data)),
        ("bytes=1048577-", 1048577, len(data)),
    ]:
        got = s3.get_object(Bucket=bucket, Key="k", Range=text)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206, text
        assert got["ContentRange"] == f"bytes {first}-{end - 1}/{len(data)}"
        assert got["Body"].read() == data[first:end], text
    with refused() as error:
        s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={len(data)}-")
    assert status_of(error) == 416 and code_of(error) == "InvalidRange"


def test_conditional_reads(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"abc")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert body(s3, bucket, "k", IfMatch=etag) == b"abc"
    assert body(s3, bucket, "k", IfNoneMatch='"0"') == b"abc"
    assert body(s3, bucket, "k", IfUnmodifiedSince=modified) == b"abc"
    for condition, status in [
        ({"IfMatch": '"0"'}, 412),
        ({"IfNoneMatch": etag}, 304),
        ({"IfModifiedSince": modified}, 304),
        ({"IfUnmodifiedSince": modified.replace(year=2001)}, 412),
    ]:
        with refused() as error:
            s3.get_object(Bucket=bucket, Key="k", **condition)
        assert status_of(error) == status, condition
        with refused() as error:
            s3.head_object(Bucket=bucket, Key="k", **condition)
        assert status_of(error) == status, condition


def test_conditional_writes(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    for condition in [{"IfNoneMatch": "*"}, {"IfMatch": '"0"'}]:
        with refused() as error:
            s3.put_object(Bucket=bucket, Key="k", Body=b"2", **condition)
        assert code_of(error) == "PreconditionFailed" and status_of(error) == 412
    assert body(s3, bucket, "k") == b"1"
    s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=etag)
    assert body(s3, bucket, "k") == b"3"
    with refused() as error:
        s3.put_object(Bucket=bucket, Key="absent", Body=b"2", IfMatch=etag)
    assert status_of(error) == 404


def test_one_of_64_racing_creators_wins(shared_store, bucket):
    outcomes, barrier, lock = [], threading.Barrier(64), threading.Lock()
    client = shared_store.client(max_pool_connections=64)

    def create(number):
        barrier.wait()
        try:
            client.put_object(Bucket=bucket, Key="one", Body=f"{number}".encode() * 100, IfNoneMatch="*")
            outcome = number
        except botocore.exceptions.ClientError as error:
            outcome = error.response["Error"]["Code"]
        with lock:
            outcomes.append(outcome)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [o for o in outcomes if isinstance(o, int)]
    assert len(outcomes) == 64 and len(winners) == 1, outcomes
    assert set(outcomes) - set(winners) <= {"PreconditionFailed", "ConditionalRequestConflict"}
    assert body(client, bucket, "one") == f"{winners[0]}".encode() * 100


def test_a_counter_by_compare_and_swap_loses_nothing(shared_store, bucket):
    client = shared_store.client(max_pool_connections=16)
    client.put_object(Bucket=bucket, Key="n", Body=b"0")

    def increment():
        for _ in range(5):
            while True:
                got = client.get_object(Bucket=bucket, Key="n")
                value = int(got["Body"].read())
                try:
                    client.put_object(Bucket=bucket, Key="n", Body=str(value + 1).encode(), IfMatch=got["ETag"])
                    break
                except botocore.exceptions.ClientError as error:
                    assert error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict")

    threads = [threading.Thread(target=increment) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert body(client, bucket, "n") == b"40"


def test_deletes(s3, bucket):
    for key in "abc":
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert s3.delete_object(Bucket=bucket, Key="a")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert s3.delete_object(Bucket=bucket, Key="a")["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused() as error:
        s3.get_object(Bucket=bucket, Key="a")
    assert code_of(error) == "NoSuchKey" and status_of(error) == 404
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in ["b", "c", "never"]]})
    assert sorted(row["Key"] for row in answer["Deleted"]) == ["b", "c", "never"]
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_copies(s3, bucket):
    data = os.urandom(6 * MIB)
    s3.put_object(Bucket=bucket, Key="from", Body=data, Metadata={"a": "1"}, ContentType="x/y")
    done = s3.copy_object(Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "from"})
    assert done["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="to")
    assert got["Body"].read() == data and got["Metadata"] == {"a": "1"} and got["ContentType"] == "x/y"
    s3.copy_object(
        Bucket=bucket, Key="to", CopySource=f"{bucket}/from", MetadataDirective="REPLACE", Metadata={"b": "2"}, ContentType="z/z"
    )
    got = s3.head_object(Bucket=bucket, Key="to")
    assert got["Metadata"] == {"b": "2"} and got["ContentType"] == "z/z"
    with refused() as error:
        s3.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/from", CopySourceIfMatch='"0"')
    assert status_of(error) == 412
    with refused() as error:
        s3.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/absent")
    assert code_of(error) == "NoSuchKey"
    s3.delete_object(Bucket=bucket, Key="from")
    assert body(s3, bucket, "to") == data


def list_all(s3, bucket, **more):
    keys, prefixes = [], []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, **more):
        keys += [row["Key"] for row in page.get("Contents", [])]
        prefixes += [row["Prefix"] for row in page.get("CommonPrefixes", [])]
    return keys, prefixes


def test_listings(s3, bucket):
    keys = sorted([f"a/{n:02}" for n in range(25)] + ["b", "b/x/1", "b/x/2", "b/y", "c//d", "é/ü", "sp ace+plus&amp"])
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    by_bytes = sorted(keys, key=str.encode)
    for size in (1, 2, 7, 1000):
        assert list_all(s3, bucket, PaginationConfig={"PageSize": size}) == (by_bytes, []), size
        assert list_all(s3, bucket, Delimiter="/", PaginationConfig={"PageSize": size}) == (
            ["b", "sp ace+plus&amp"],
            ["a/", "b/", "c/", "é/"],
        )
        assert list_all(s3, bucket, Prefix="b/", Delimiter="/", PaginationConfig={"PageSize": size}) == (["b/y"], ["b/x/"])
    assert list_all(s3, bucket, Delimiter="/x/")[1] == ["b/x/"]
    assert list_all(s3, bucket, StartAfter="a/23")[0] == by_bytes[by_bytes.index("a/24"):]
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=0)["KeyCount"] == 0
    page = s3.list_objects_v2(Bucket=bucket, Prefix="b", FetchOwner=True, MaxKeys=1)
    row = page["Contents"][0]
    assert row["Size"] == 1 and row["ETag"] == f'"{hashlib.md5(b"b").hexdigest()}"' and row["StorageClass"] == "STANDARD"
    assert page["IsTruncated"] and "Owner" in row
    found, marker = [], ""
    while True:
        page = s3.list_objects(Bucket=bucket, MaxKeys=4, Marker=marker)
        found += [row["Key"] for row in page.get("Contents", [])]
        if not page["IsTruncated"]:
            break
        marker = page.get("NextMarker") or found[-1]
    assert found == by_bytes
    page = s3.list_objects(Bucket=bucket, Delimiter="/", MaxKeys=1)
    assert page["CommonPrefixes"] == [{"Prefix": "a/"}] and page["NextMarker"] == "a/"


def test_every_byte_that_a_key_may_have(s3, bucket):
    keys = [chr(n) for n in range(1, 0x180) if n not in (0x2E, 0x2F)] + ["a" * 1024, "\u20ac\U0001f40e", "a/../b", "a//b", "./x", "..", "%41", "a%2fb"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in keys:
        assert body(s3, bucket, key) == key.encode(), repr(key)
    assert sorted(list_all(s3, bucket)[0]) == sorted(keys)
    with refused() as error:
        s3.put_object(Bucket=bucket, Key="a" * 1025, Body=b"")
    assert code_of(error) == "KeyTooLongError"


def test_multipart_by_hand(s3, bucket):
    key = "big"
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key, Metadata={"m": "1"}, ContentType="q/r")["UploadId"]
    parts = [os.urandom(5 * MIB), os.urandom(5 * MIB + 1), os.urandom(77)]
    etags = {}
    for number in (3, 1, 2):
        etags[number] = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=parts[number - 1])["ETag"]
    parts[1] = os.urandom(6 * MIB)
    etags[2] = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=2, Body=parts[1])["ETag"]
    s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=9, Body=b"never used")
    listed = s3.list_parts(Bucket=bucket, Key=key, UploadId=upload, MaxParts=2)
    assert [p["PartNumber"] for p in listed["Parts"]] == [1, 2] and listed["IsTruncated"]
    listed = s3.list_parts(Bucket=bucket, Key=key, UploadId=upload, PartNumberMarker=listed["NextPartNumberMarker"])
    assert [(p["PartNumber"], p["Size"]) for p in listed["Parts"]] == [(3, 77), (9, 10)]
    uploads = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [(u["Key"], u["UploadId"]) for u in uploads] == [(key, upload)]
    with refused() as error:
        s3.head_object(Bucket=bucket, Key=key)
    assert status_of(error) == 404

    def complete(*numbers, **change):
        rows = [{"PartNumber": n, "ETag": change.get(f"etag{n}", etags[n])} for n in numbers]
        return s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": rows})

    for call, code in [
        (lambda: complete(2, 1), "InvalidPartOrder"),
        (lambda: complete(1, 2, etag2='"0123456789abcdef0123456789abcdef"'), "InvalidPart"),
        (lambda: complete(3, 9, etag9='"' + hashlib.md5(b"never used").hexdigest() + '"') if etags.setdefault(9, "x") else None, "EntityTooSmall"),
    ]:
        with refused() as error:
            call()
        assert code_of(error) == code
    done = complete(1, 2, 3)
    whole = b"".join(parts)
    md5s = b"".join(hashlib.md5(p).digest() for p in parts)
    assert done["ETag"] == f'"{hashlib.md5(md5s).hexdigest()}-3"'
    assert complete(1, 2, 3)["ETag"] == done["ETag"], "completing twice answers the same"
    got = s3.get_object(Bucket=bucket, Key=key)
    assert got["Body"].read() == whole and got["Metadata"] == {"m": "1"} and got["ContentType"] == "q/r"
    part = s3.get_object(Bucket=bucket, Key=key, PartNumber=2)
    assert part["PartsCount"] == 3 and part["Body"].read() == parts[1]
    spans = f"bytes={5 * MIB - 10}-{5 * MIB + 10}"
    assert body(s3, bucket, key, Range=spans) == whole[5 * MIB - 10 : 5 * MIB + 11]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_multipart_aborted(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x" * MIB)
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    for call in [
        lambda: s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=2, Body=b"x"),
        lambda: s3.list_parts(Bucket=bucket, Key="k", UploadId=upload),
        lambda: s3.complete_multipart_upload(
            Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": '"0"'}]}
        ),
    ]:
        with refused() as error:
            call()
        assert code_of(error) == "NoSuchUpload"
    with refused() as error:
        s3.head_object(Bucket=bucket, Key="k")
    assert status_of(error) == 404


def test_parts_copied(s3, bucket):
    data = os.urandom(12 * MIB)
    s3.put_object(Bucket=bucket, Key="from", Body=data)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="to")["UploadId"]
    rows = []
    for number, (first, last) in enumerate([(0, 6 * MIB - 1), (6 * MIB, 12 * MIB - 1)], 1):
        copied = s3.upload_part_copy(
            Bucket=bucket, Key="to", UploadId=upload, PartNumber=number, CopySource=f"{bucket}/from",
            CopySourceRange=f"bytes={first}-{last}",
        )
        rows.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="to", UploadId=upload, MultipartUpload={"Parts": rows})
    assert body(s3, bucket, "to") == data


class Pattern(io.RawIOBase):
    """`size` bytes that differ everywhere, without holding them."""

    BLOCK = os.urandom(MIB)

    def __init__(self, size):
        self.size, self.at = size, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self.at

    def seek(self, offset, whence=0):
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def piece(self, at, length):
        block, within = divmod(at, MIB)
        length = max(0, min(length, MIB - within, self.size - at))
        data = bytearray(self.BLOCK[within : within + length])
        if within < 8 and length:
            stamp = block.to_bytes(8, "big")[within:]
            data[: len(stamp)] = stamp[:length]
        return bytes(data)

    def read(self, length=-1):
        if length is None or length < 0:
            length = self.size - self.at
        pieces = []
        while length > 0 and self.at < self.size:
            piece = self.piece(self.at, length)
            self.at += len(piece)
            length -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def same_as(self, stream):
        at = 0
        while True:
            got = stream.read(MIB - at % MIB)
            if not got:
                return at == self.size
            if got != Pattern.read_at(self, at, len(got)):
                return False
            at += len(got)

    def read_at(self, at, length):
        self.at = at
        return self.read(length)


@pytest.mark.parametrize("size", [64 * MIB, 1024 * MIB])
def test_managed_multipart(s3, bucket, size):
    config = boto3.s3.transfer.TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=16 * MIB, max_concurrency=4)
    s3.upload_fileobj(Pattern(size), bucket, "big", Config=config)
    head = s3.head_object(Bucket=bucket, Key="big")
    assert head["ContentLength"] == size and head["ETag"].endswith(f'-{size // (16 * MIB)}"')
    assert Pattern(size).same_as(s3.get_object(Bucket=bucket, Key="big")["Body"])
    middle = size // 2 - 5
    assert body(s3, bucket, "big", Range=f"bytes={middle}-{middle + 9}") == Pattern(size).read_at(middle, 10)


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums_are_checked_kept_and_returned(s3, bucket, algorithm):
    header = {"CRC32": zlib.crc32(b"123456789").to_bytes(4, "big"), "SHA1": hashlib.sha1(b"123456789").digest(),
              "SHA256": hashlib.sha256(b"123456789").digest(), "CRC32C": bytes.fromhex("e3069283"),
              "CRC64NVME": bytes.fromhex("ae8b14860a799888")}[algorithm]
    value = base64.b64encode(header).decode()
    field = f"Checksum{algorithm}"
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"123456789", **{field: value})
    assert put[field] == value
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")[field] == value
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got[field] == value and got["Body"].read() == b"123456789"
    wrong = base64.b64encode(bytes([header[0] ^ 1]) + header[1:]).decode()
    with refused() as error:
        s3.put_object(Bucket=bucket, Key="other", Body=b"123456789", **{field: wrong})
    assert code_of(error) == "BadDigest"
    with refused() as error:
        s3.head_object(Bucket=bucket, Key="other")
    assert status_of(error) == 404


def test_multipart_checksums(s3, bucket):
    parts = [os.urandom(5 * MIB), os.urandom(100)]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256")["UploadId"]
    rows = []
    for number, part in enumerate(parts, 1):
        done = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=part, ChecksumAlgorithm="SHA256")
        rows.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumSHA256": done["ChecksumSHA256"]})
        assert done["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(part).digest()).decode()
    done = s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": rows})
    of_parts = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
    assert done["ChecksumSHA256"] == base64.b64encode(of_parts).decode() + "-2"
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["ChecksumSHA256"] == done["ChecksumSHA256"]


def test_unsigned_payload_and_plain_puts(shared_store, bucket):
    for more in [{"payload_signing_enabled": False}, {"payload_signing_enabled": True}]:
        client = shared_store.client(s3={"addressing_style": "path", **more}, request_checksum_calculation="when_required")
        client.put_object(Bucket=bucket, Key="k", Body=b"plain")
        head = client.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert "ChecksumCRC64NVME" in head, "a checksum is added when none was sent"
        assert body(client, bucket, "k") == b"plain"


def test_presigned(shared_store, bucket):
    # Left to itself boto3 presigns for us-east-1 with Signature Version 2, which AWS has retired and we refuse.
    s3 = shared_store.client(signature_version="s3v4")
    url = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "k"}, ExpiresIn=60)
    request = urllib.request.Request(url, data=b"by url", method="PUT")  # urllib adds a Content-Type that is not signed
    assert urllib.request.urlopen(request).status == 200
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k", "ResponseContentType": "x/z"}, ExpiresIn=60)
    answer = urllib.request.urlopen(url)
    assert answer.read() == b"by url" and answer.headers["Content-Type"] == "x/z"
    for broken in [url.replace("x%2Fz", "x%2Fq"), url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"), url.split("?")[0]]:
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(broken)
        assert error.value.code == 403, broken
    old = shared_store.client(signature_version="s3").generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(old)
    assert error.value.code == 400 and b"AWS4-HMAC-SHA256" in error.value.read(), "it says what to use instead"


def test_virtual_host_style(shared_store, bucket, monkeypatch):
    from conftest import make_client

    # Not every machine resolves names under localhost (RFC 6761 only asks for it), so we do.
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1" if host.endswith(".localhost") else host, *rest, **more)
    )
    client = make_client(f"http://s3.localhost:{shared_store.port}", shared_store.keys, s3={"addressing_style": "virtual"})
    seen = []
    client.meta.events.register("before-send.s3", lambda request, **_: seen.append(request.url))
    client.put_object(Bucket=bucket, Key="a/b", Body=b"virtual")
    assert body(client, bucket, "a/b") == b"virtual"
    assert seen and all(f"//{bucket}.s3.localhost" in url for url in seen), seen
    assert list_all(client, bucket)[0] == ["a/b"]


def test_what_is_not_built_says_so(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"kept")
    for call in [
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"", ServerSideEncryption="aws:kms:dsse"),
        lambda: s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration={"IndexDocument": {"Suffix": "i"}}),
    ]:
        with refused() as error:
            call()
        assert code_of(error) == "NotImplemented" and status_of(error) == 501
        assert len(error.value.response["Error"]["Message"]) > 10
    assert body(s3, bucket, "k") == b"kept"


def test_acls_are_off_and_say_so(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"kept", ACL="bucket-owner-full-control")
    for call in [
        lambda: s3.put_object_acl(Bucket=bucket, Key="k", ACL="public-read"),
        lambda: s3.put_bucket_acl(Bucket=bucket, ACL="public-read"),
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"", ACL="public-read"),
    ]:
        with refused() as error:
            call()
        assert code_of(error) == "AccessControlListNotSupported" and status_of(error) == 400
    for get, put, name in [
        (s3.get_object_acl, s3.put_object_acl, {"Bucket": bucket, "Key": "k"}),
        (s3.get_bucket_acl, s3.put_bucket_acl, {"Bucket": bucket}),
    ]:
        found = get(**name)
        assert [grant["Permission"] for grant in found["Grants"]] == ["FULL_CONTROL"]
        put(**name, AccessControlPolicy={"Grants": found["Grants"], "Owner": found["Owner"]})
        with refused() as error:
            more = {"Grantee": {"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/AllUsers"}, "Permission": "READ"}
            put(**name, AccessControlPolicy={"Grants": [*found["Grants"], more], "Owner": found["Owner"]})
        assert code_of(error) == "AccessControlListNotSupported"
    with refused() as error:
        s3.put_object_acl(Bucket=bucket, Key="none", ACL="private")
    assert code_of(error) == "NoSuchKey"
    assert body(s3, bucket, "k") == b"kept"


def test_wrong_keys_and_no_keys(shared_store, bucket):
    from conftest import make_client

    for keys, code in [
        ((shared_store.keys[0], "wrong" * 8), "SignatureDoesNotMatch"),
        (("PNSTNOSUCHKEY2222222", shared_store.keys[1]), "InvalidAccessKeyId"),
    ]:
        with refused() as error:
            make_client(shared_store.endpoint, keys).list_objects_v2(Bucket=bucket)
        assert code_of(error) == code and status_of(error) == 403
    for method in ("GET", "PUT", "DELETE", "HEAD", "POST"):
        request = urllib.request.Request(f"{shared_store.endpoint}/{bucket}/k", method=method, data=b"x" if method in ("PUT", "POST") else None)
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request)
        assert error.value.code in (403, 405), method


@pytest.mark.parametrize("algorithm", ["SHA512", "MD5", "XXHASH64", "XXHASH3", "XXHASH128"])
def test_the_newer_checksums(start_store, algorithm):
    """boto3 computes SHA512 and MD5 alone; the others need awscrt, so their values are sent ready-made."""
    known = {
        "SHA512": "3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==",
        "MD5": "kAFQmDzST7DWlj99KOF/cg==",
        "XXHASH64": "RLws9a13CZk=",
        "XXHASH3": "eK9flIkvOVA=",
        "XXHASH128": "BrBatnM6YYV4r1+UiS85UA==",
    }
    s3 = start_store(1).client()
    s3.create_bucket(Bucket="sums")
    name = f"Checksum{algorithm}"
    s3.put_object(Bucket="sums", Key="k", Body=b"abc", **{name: known[algorithm]})
    assert s3.head_object(Bucket="sums", Key="k", ChecksumMode="ENABLED")[name] == known[algorithm]
    with pytest.raises(botocore.exceptions.ClientError, match="BadDigest"):
        s3.put_object(Bucket="sums", Key="bad", Body=b"abd", **{name: known[algorithm]})
    upload = s3.create_multipart_upload(Bucket="sums", Key="m", ChecksumAlgorithm=algorithm)["UploadId"]
    place = {"Bucket": "sums", "Key": "m", "UploadId": upload}
    part = s3.upload_part(PartNumber=1, Body=b"abc", **place, **{name: known[algorithm]})
    listed = {"PartNumber": 1, "ETag": part["ETag"], name: known[algorithm]}
    done = s3.complete_multipart_upload(MultipartUpload={"Parts": [listed]}, **place)
    assert done[name].endswith("-1") and done["ChecksumType"] == "COMPOSITE"
