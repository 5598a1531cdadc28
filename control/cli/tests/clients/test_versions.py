"""Versions, tags, locks, attributes and lifecycle, by boto3 as users have them."""

import datetime
import os
import time
import urllib.parse

import botocore.exceptions
import pytest

MIB = 1 << 20


def refused():
    return pytest.raises(botocore.exceptions.ClientError)


def code_of(error):
    return error.value.response["Error"]["Code"]


def status_of(error):
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def headers_of(error):
    return error.value.response["ResponseMetadata"]["HTTPHeaders"]


@pytest.fixture
def name():
    return f"versions-{os.urandom(6).hex()}"


@pytest.fixture
def versioned(s3, name):
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    yield name
    empty(s3, name)
    s3.delete_bucket(Bucket=name)


def empty(s3, name):
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name, PaginationConfig={"PageSize": 3}):
        for version in page.get("Versions", []) + page.get("DeleteMarkers", []):
            s3.delete_object(
                Bucket=name, Key=version["Key"], VersionId=version["VersionId"], BypassGovernanceRetention=True
            )


def body(s3, bucket, key, **more):
    return s3.get_object(Bucket=bucket, Key=key, **more)["Body"].read()


def test_versioning_states(s3, name):
    s3.create_bucket(Bucket=name)
    assert "Status" not in s3.get_bucket_versioning(Bucket=name)
    assert "VersionId" not in s3.put_object(Bucket=name, Key="k", Body=b"null")
    for status in ["Enabled", "Suspended", "Enabled"]:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": status})
        assert s3.get_bucket_versioning(Bucket=name)["Status"] == status
    with refused() as error:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "On"})
    assert code_of(error) == "MalformedXML"
    with refused() as error:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled", "MFADelete": "Enabled"})
    assert status_of(error) == 501
    assert body(s3, name, "k", VersionId="null") == b"null"
    empty(s3, name)
    s3.delete_bucket(Bucket=name)


def test_versions_come_and_go(s3, versioned):
    ids = [s3.put_object(Bucket=versioned, Key="k", Body=f"{at}".encode())["VersionId"] for at in range(3)]
    assert len(set(ids)) == 3
    assert body(s3, versioned, "k") == b"2"
    for at, version in enumerate(ids):
        got = s3.get_object(Bucket=versioned, Key="k", VersionId=version)
        assert (got["VersionId"], got["Body"].read()) == (version, f"{at}".encode())
    marker = s3.delete_object(Bucket=versioned, Key="k")
    assert marker["DeleteMarker"] is True
    with refused() as error:
        s3.get_object(Bucket=versioned, Key="k")
    assert code_of(error) == "NoSuchKey"
    assert headers_of(error)["x-amz-delete-marker"] == "true"
    assert headers_of(error)["x-amz-version-id"] == marker["VersionId"]
    for operation in [s3.get_object, s3.head_object]:
        with refused() as error:
            operation(Bucket=versioned, Key="k", VersionId=marker["VersionId"])
        assert status_of(error) == 405
        assert headers_of(error)["x-amz-delete-marker"] == "true"
        assert "last-modified" in headers_of(error)
    listed = s3.list_object_versions(Bucket=versioned)
    assert [version["VersionId"] for version in listed["Versions"]] == ids[::-1]
    assert [version["IsLatest"] for version in listed["Versions"]] == [False] * 3
    assert [(m["VersionId"], m["IsLatest"]) for m in listed["DeleteMarkers"]] == [(marker["VersionId"], True)]
    gone = s3.delete_object(Bucket=versioned, Key="k", VersionId=marker["VersionId"])
    assert gone["DeleteMarker"] is True and gone["VersionId"] == marker["VersionId"]
    assert body(s3, versioned, "k") == b"2"
    gone = s3.delete_object(Bucket=versioned, Key="k", VersionId=ids[2])
    assert "DeleteMarker" not in gone and gone["VersionId"] == ids[2]
    assert body(s3, versioned, "k") == b"1"
    with refused() as error:
        s3.get_object(Bucket=versioned, Key="k", VersionId=ids[2])
    assert code_of(error) == "NoSuchVersion"
    with refused() as error:
        s3.get_object(Bucket=versioned, Key="k", VersionId="nonsense")
    assert (status_of(error), code_of(error)) == (400, "InvalidArgument")
    with refused() as error:
        s3.delete_bucket(Bucket=versioned)
    assert code_of(error) == "BucketNotEmpty"


def test_null_versions(s3, name):
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"before")
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=name, Key="k", Body=b"first")["VersionId"]
    assert body(s3, name, "k", VersionId="null") == b"before"
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=name, Key="k", Body=b"after")
    assert s3.head_object(Bucket=name, Key="k")["VersionId"] == "null"
    listed = s3.list_object_versions(Bucket=name)["Versions"]
    assert [(version["VersionId"], version["IsLatest"]) for version in listed] == [("null", True), (first, False)]
    marker = s3.delete_object(Bucket=name, Key="k")
    assert (marker["VersionId"], marker["DeleteMarker"]) == ("null", True)
    listed = s3.list_object_versions(Bucket=name)
    assert [version["VersionId"] for version in listed["Versions"]] == [first]
    assert [version["VersionId"] for version in listed["DeleteMarkers"]] == ["null"]
    s3.delete_object(Bucket=name, Key="k", VersionId="null")
    assert body(s3, name, "k") == b"first"
    empty(s3, name)
    s3.delete_bucket(Bucket=name)


def test_listings_of_versions(s3, versioned):
    for key in ["a", "a/1", "a/1", "a/2", "b", "b", "c d"]:
        s3.put_object(Bucket=versioned, Key=key, Body=key.encode())
    s3.delete_object(Bucket=versioned, Key="b")
    for size in [1, 2, 1000]:
        pages = s3.get_paginator("list_object_versions").paginate(
            Bucket=versioned, PaginationConfig={"PageSize": size}, EncodingType="url"
        )
        found = []
        for page in pages:
            rows = page.get("Versions", []) + page.get("DeleteMarkers", [])
            assert len(rows) <= size
            found += [row["Key"] for row in rows]
        assert sorted(map(urllib.parse.unquote, found)) == ["a", "a/1", "a/1", "a/2", "b", "b", "b", "c d"]
    rolled = s3.list_object_versions(Bucket=versioned, Delimiter="/")
    assert [prefix["Prefix"] for prefix in rolled["CommonPrefixes"]] == ["a/"]
    assert [version["Key"] for version in rolled["Versions"]] == ["a", "b", "b", "c d"]
    under = s3.list_object_versions(Bucket=versioned, Prefix="a/")["Versions"]
    assert [version["Key"] for version in under] == ["a/1", "a/1", "a/2"]
    after = s3.list_object_versions(
        Bucket=versioned, KeyMarker="a/1", VersionIdMarker=under[0]["VersionId"], MaxKeys=1
    )
    assert after["Versions"][0]["VersionId"] == under[1]["VersionId"] and after["IsTruncated"]
    with refused() as error:
        s3.list_object_versions(Bucket=versioned, VersionIdMarker=under[0]["VersionId"])
    assert code_of(error) == "InvalidArgument"
    keys = [row["Key"] for row in s3.list_objects_v2(Bucket=versioned)["Contents"]]
    assert keys == ["a", "a/1", "a/2", "c d"]


def test_copies_of_versions(s3, versioned):
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"old")["VersionId"]
    s3.put_object(Bucket=versioned, Key="k", Body=b"new")
    source = {"Bucket": versioned, "Key": "k", "VersionId": old}
    done = s3.copy_object(Bucket=versioned, Key="k", CopySource=source)
    assert done["CopySourceVersionId"] == old and done["VersionId"] != old
    assert body(s3, versioned, "k") == b"old"
    with refused() as error:
        s3.copy_object(Bucket=versioned, Key="k", CopySource={"Bucket": versioned, "Key": "k"})
    assert code_of(error) == "InvalidRequest"
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    with refused() as error:
        s3.copy_object(Bucket=versioned, Key="l", CopySource={**source, "VersionId": marker})
    assert code_of(error) == "InvalidRequest"
    upload = s3.create_multipart_upload(Bucket=versioned, Key="parts")["UploadId"]
    part = s3.upload_part_copy(Bucket=versioned, Key="parts", UploadId=upload, PartNumber=1, CopySource=source)
    assert part["CopySourceVersionId"] == old
    done = s3.complete_multipart_upload(
        Bucket=versioned,
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]},
    )
    assert body(s3, versioned, "parts", VersionId=done["VersionId"]) == b"old"


def test_deletes_of_many_versions(s3, versioned):
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"1")["VersionId"]
    s3.put_object(Bucket=versioned, Key="k", Body=b"2")
    done = s3.delete_objects(
        Bucket=versioned,
        Delete={"Objects": [{"Key": "k", "VersionId": first}, {"Key": "k"}, {"Key": "k", "VersionId": "bad"}]},
    )
    by_version = {entry.get("VersionId"): entry for entry in done["Deleted"]}
    assert "DeleteMarker" not in by_version[first]
    assert by_version[None]["DeleteMarker"] is True
    marker = by_version[None]["DeleteMarkerVersionId"]
    assert [(entry["VersionId"], entry["Code"]) for entry in done["Errors"]] == [("bad", "InvalidArgument")]
    done = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "k", "VersionId": marker}]})
    assert done["Deleted"] == [
        {"Key": "k", "VersionId": marker, "DeleteMarker": True, "DeleteMarkerVersionId": marker}
    ]
    assert body(s3, versioned, "k") == b"2"


def test_conditions_are_of_the_current_version(s3, versioned):
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"1")
    with refused() as error:
        s3.put_object(Bucket=versioned, Key="k", Body=b"2", IfNoneMatch="*")
    assert code_of(error) == "PreconditionFailed"
    s3.put_object(Bucket=versioned, Key="k", Body=b"2", IfMatch=first["ETag"])
    with refused() as error:
        s3.put_object(Bucket=versioned, Key="k", Body=b"3", IfMatch=first["ETag"])
    assert code_of(error) == "PreconditionFailed"
    s3.delete_object(Bucket=versioned, Key="k")
    s3.put_object(Bucket=versioned, Key="k", Body=b"4", IfNoneMatch="*")
    assert body(s3, versioned, "k") == b"4"


def tag_set(**tags):
    return {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}


def test_tags_of_buckets(s3, name):
    s3.create_bucket(Bucket=name)
    with refused() as error:
        s3.get_bucket_tagging(Bucket=name)
    assert (status_of(error), code_of(error)) == (404, "NoSuchTagSet")
    s3.put_bucket_tagging(Bucket=name, Tagging=tag_set(a="1", b=""))
    assert s3.get_bucket_tagging(Bucket=name)["TagSet"] == tag_set(a="1", b="")["TagSet"]
    with refused() as error:
        s3.put_bucket_tagging(Bucket=name, Tagging=tag_set(**{"aws:a": "1"}))
    assert code_of(error) == "InvalidTag"
    s3.delete_bucket_tagging(Bucket=name)
    with refused() as error:
        s3.get_bucket_tagging(Bucket=name)
    assert code_of(error) == "NoSuchTagSet"
    s3.delete_bucket(Bucket=name)


def test_tags_of_objects(s3, versioned):
    def tags(key="k", **more):
        return {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(Bucket=versioned, Key=key, **more)["TagSet"]}

    first = s3.put_object(Bucket=versioned, Key="k", Body=b"1", Tagging="a=1&b%20c=%2B")["VersionId"]
    assert tags() == {"a": "1", "b c": "+"}
    assert s3.head_object(Bucket=versioned, Key="k")["ResponseMetadata"]["HTTPHeaders"]["x-amz-tagging-count"] == "2"
    s3.put_object(Bucket=versioned, Key="k", Body=b"2")
    assert tags() == {} and tags(VersionId=first) == {"a": "1", "b c": "+"}
    done = s3.put_object_tagging(Bucket=versioned, Key="k", VersionId=first, Tagging=tag_set(x="y"))
    assert done["VersionId"] == first and tags(VersionId=first) == {"x": "y"} and tags() == {}
    source = {"Bucket": versioned, "Key": "k", "VersionId": first}
    s3.copy_object(Bucket=versioned, Key="copied", CopySource=source)
    assert tags("copied") == {"x": "y"}
    s3.copy_object(Bucket=versioned, Key="copied", CopySource=source, TaggingDirective="REPLACE", Tagging="z=1")
    assert tags("copied") == {"z": "1"}
    s3.delete_object_tagging(Bucket=versioned, Key="copied")
    assert tags("copied") == {}
    upload = s3.create_multipart_upload(Bucket=versioned, Key="parts", Tagging="p=q")["UploadId"]
    part = s3.upload_part(Bucket=versioned, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=versioned, Key="parts", UploadId=upload, MultipartUpload=parts)
    assert tags("parts") == {"p": "q"}
    for bad in [tag_set(**{f"k{at}": "" for at in range(11)}), tag_set(k="v" * 257)]:
        with refused() as error:
            s3.put_object_tagging(Bucket=versioned, Key="k", Tagging=bad)
        assert (status_of(error), code_of(error)) == (400, "InvalidTag")
    with refused() as error:
        s3.put_object(Bucket=versioned, Key="k", Body=b"", Tagging="a=1&a=2")
    assert code_of(error) == "InvalidArgument"
    with refused() as error:
        s3.get_object_tagging(Bucket=versioned, Key="none")
    assert code_of(error) == "NoSuchKey"


def test_attributes(s3, versioned):
    everything = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    done = s3.put_object(Bucket=versioned, Key="k", Body=b"hello", ChecksumAlgorithm="SHA256")
    got = s3.get_object_attributes(Bucket=versioned, Key="k", ObjectAttributes=everything)
    assert got["ETag"] == done["ETag"].strip('"')
    assert got["ObjectSize"] == 5 and got["StorageClass"] == "STANDARD" and "ObjectParts" not in got
    assert got["Checksum"]["ChecksumSHA256"] == done["ChecksumSHA256"]
    assert got["VersionId"] == done["VersionId"] and "LastModified" in got
    only = s3.get_object_attributes(Bucket=versioned, Key="k", ObjectAttributes=["ObjectSize"])
    assert "ETag" not in only and only["ObjectSize"] == 5
    upload = s3.create_multipart_upload(Bucket=versioned, Key="parts", ChecksumAlgorithm="CRC32")["UploadId"]
    parts = []
    for number, size in [(1, 5 * MIB), (3, 5 * MIB), (4, 7)]:
        part = s3.upload_part(
            Bucket=versioned, Key="parts", UploadId=upload, PartNumber=number, Body=b"x" * size, ChecksumAlgorithm="CRC32"
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]})
    s3.complete_multipart_upload(Bucket=versioned, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    got = s3.get_object_attributes(Bucket=versioned, Key="parts", ObjectAttributes=everything, MaxParts=2)["ObjectParts"]
    assert got["TotalPartsCount"] == 3 and got["IsTruncated"] and got["NextPartNumberMarker"] == 3
    assert [(part["PartNumber"], part["Size"]) for part in got["Parts"]] == [(1, 5 * MIB), (3, 5 * MIB)]
    assert [part["ChecksumCRC32"] for part in got["Parts"]] == [part["ChecksumCRC32"] for part in parts[:2]]
    got = s3.get_object_attributes(
        Bucket=versioned, Key="parts", ObjectAttributes=["ObjectParts"], PartNumberMarker=3
    )["ObjectParts"]
    assert [part["PartNumber"] for part in got["Parts"]] == [4] and not got["IsTruncated"]
    with refused() as error:
        s3.get_object_attributes(Bucket=versioned, Key="k", ObjectAttributes=["Shape"])
    assert code_of(error) == "InvalidArgument"


def test_object_lock(s3, name):
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    got = s3.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]
    assert got == {"ObjectLockEnabled": "Enabled"}
    with refused() as error:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    assert (status_of(error), code_of(error)) == (409, "InvalidBucketState")
    until = datetime.datetime(2040, 1, 1, tzinfo=datetime.timezone.utc)
    held = s3.put_object(
        Bucket=name,
        Key="k",
        Body=b"x",
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=until,
        ObjectLockLegalHoldStatus="ON",
    )["VersionId"]
    head = s3.head_object(Bucket=name, Key="k")
    assert (head["ObjectLockMode"], head["ObjectLockLegalHoldStatus"]) == ("GOVERNANCE", "ON")
    assert head["ObjectLockRetainUntilDate"] == until

    def delete(**more):
        return s3.delete_object(Bucket=name, Key="k", VersionId=held, **more)

    for more in [{}, {"BypassGovernanceRetention": True}]:
        with refused() as error:
            delete(**more)
        assert (status_of(error), code_of(error)) == (403, "AccessDenied")
    s3.put_object_legal_hold(Bucket=name, Key="k", LegalHold={"Status": "OFF"})
    assert s3.get_object_legal_hold(Bucket=name, Key="k")["LegalHold"] == {"Status": "OFF"}
    done = s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": "k", "VersionId": held}]})
    assert [entry["Code"] for entry in done["Errors"]] == ["AccessDenied"]
    with refused() as error:
        s3.put_object_retention(
            Bucket=name, Key="k", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until - datetime.timedelta(days=1)}
        )
    assert code_of(error) == "AccessDenied"
    later = {"Mode": "GOVERNANCE", "RetainUntilDate": until + datetime.timedelta(days=1)}
    s3.put_object_retention(Bucket=name, Key="k", Retention=later)
    assert s3.get_object_retention(Bucket=name, Key="k")["Retention"] == later
    delete(BypassGovernanceRetention=True)
    default = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
    s3.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=default)
    assert s3.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"] == default
    s3.put_object(Bucket=name, Key="k", Body=b"by default")
    assert s3.get_object_retention(Bucket=name, Key="k")["Retention"]["Mode"] == "GOVERNANCE"
    for bad, code in [
        ({"Mode": "GOVERNANCE", "Days": 0}, "InvalidRetentionPeriod"),
        ({"Mode": "GOVERNANCE", "Days": 1, "Years": 1}, "MalformedXML"),
        ({"Mode": "abc", "Days": 1}, "MalformedXML"),
    ]:
        with refused() as error:
            rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": bad}}
            s3.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=rule)
        assert code_of(error) == code
    empty(s3, name)
    s3.delete_bucket(Bucket=name)


def test_lock_where_there_is_none(s3, name):
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    enabled = {"ObjectLockEnabled": "Enabled"}
    with refused() as error:
        s3.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=enabled)
    assert (status_of(error), code_of(error)) == (409, "InvalidBucketState")
    with refused() as error:
        s3.get_object_lock_configuration(Bucket=name)
    assert (status_of(error), code_of(error)) == (404, "ObjectLockConfigurationNotFoundError")
    for operation in [s3.get_object_retention, s3.get_object_legal_hold]:
        with refused() as error:
            operation(Bucket=name, Key="k")
        assert code_of(error) == "InvalidRequest"
    with refused() as error:
        s3.put_object(Bucket=name, Key="k", Body=b"x", ObjectLockLegalHoldStatus="ON")
    assert code_of(error) == "InvalidRequest"
    # Later, on a bucket that makes versions.
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=enabled)
    s3.put_object_legal_hold(Bucket=name, Key="k", LegalHold={"Status": "ON"})
    with refused() as error:
        s3.delete_object(Bucket=name, Key="k", VersionId="null")
    assert code_of(error) == "AccessDenied"
    s3.put_object_legal_hold(Bucket=name, Key="k", LegalHold={"Status": "OFF"})
    empty(s3, name)
    s3.delete_bucket(Bucket=name)


RULES = [
    {"ID": "old", "Prefix": "logs/", "Status": "Enabled", "Expiration": {"Days": 1}},
    {
        "ID": "versions",
        "Filter": {"And": {"Prefix": "v/", "Tags": [{"Key": "t", "Value": "1"}]}},
        "Status": "Enabled",
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1, "NewerNoncurrentVersions": 1},
    },
    {
        "ID": "uploads",
        "Filter": {"Prefix": "u/"},
        "Status": "Enabled",
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    },
    {"ID": "off", "Filter": {}, "Status": "Disabled", "Expiration": {"Days": 1}},
]


def test_lifecycle_configurations(s3, name):
    s3.create_bucket(Bucket=name)
    with refused() as error:
        s3.get_bucket_lifecycle_configuration(Bucket=name)
    assert (status_of(error), code_of(error)) == (404, "NoSuchLifecycleConfiguration")
    s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": RULES})
    assert s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"] == RULES
    head = s3.put_object(Bucket=name, Key="logs/x", Body=b"x")
    assert 'rule-id="old"' in head["Expiration"] and "Expiration" in s3.head_object(Bucket=name, Key="logs/x")
    assert "Expiration" not in s3.put_object(Bucket=name, Key="else", Body=b"x")
    for rule, code in [
        ({"ID": "x" * 256}, "InvalidArgument"),
        ({"Status": "enabled"}, "MalformedXML"),
        ({"Expiration": {"Days": 0}}, "InvalidArgument"),
        ({"Expiration": {"Date": datetime.datetime(2030, 1, 1, 1)}}, "InvalidArgument"),
        ({"Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}, "NotImplemented"),
    ]:
        with refused() as error:
            rules = [{**RULES[0], **rule}]
            s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
        assert code_of(error) == code
    with refused() as error:
        rules = [RULES[0], RULES[0]]
        s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
    assert code_of(error) == "InvalidArgument"
    s3.delete_bucket_lifecycle(Bucket=name)
    with refused() as error:
        s3.get_bucket_lifecycle_configuration(Bucket=name)
    assert code_of(error) == "NoSuchLifecycleConfiguration"
    s3.delete_object(Bucket=name, Key="logs/x")
    s3.delete_object(Bucket=name, Key="else")
    s3.delete_bucket(Bucket=name)


def test_lifecycle_expires(start_store):
    s3 = start_store(1, "--lifecycle-day-seconds", 1).client()
    s3.create_bucket(Bucket="bucket")
    s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    for key in ["logs/a", "logs/b", "keep"]:
        s3.put_object(Bucket="bucket", Key=key, Body=b"x")
    ids = [s3.put_object(Bucket="bucket", Key="v/k", Body=b"x", Tagging="t=1")["VersionId"] for _ in range(4)]
    s3.create_multipart_upload(Bucket="bucket", Key="u/k")
    s3.create_multipart_upload(Bucket="bucket", Key="w/k")
    s3.put_bucket_lifecycle_configuration(Bucket="bucket", LifecycleConfiguration={"Rules": RULES})

    def state():
        keys = [row["Key"] for row in s3.list_objects_v2(Bucket="bucket")["Contents"]]
        versions = s3.list_object_versions(Bucket="bucket", Prefix="v/")["Versions"]
        uploads = s3.list_multipart_uploads(Bucket="bucket")["Uploads"]
        return keys, [row["VersionId"] for row in versions], [row["Key"] for row in uploads]

    # The current version and one older one stay; markers hide what expired.
    want = (["keep", "v/k"], [ids[3], ids[2]], ["w/k"])
    deadline = time.monotonic() + 60
    while state() != want and time.monotonic() < deadline:
        time.sleep(0.2)
    assert state() == want
    assert len(s3.list_object_versions(Bucket="bucket", Prefix="logs/")["DeleteMarkers"]) == 2
