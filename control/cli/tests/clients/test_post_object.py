"""Uploads by HTML form, signed by boto3 and sent as a browser would."""

import re

import pytest
import requests


@pytest.fixture
def store(start_store):
    store = start_store(1)
    store.client().create_bucket(Bucket="forms")
    return store


def form(store, key="k", fields=None, conditions=None, expires=60):
    # boto3 signs forms by Signature Version 2 unless it is told otherwise.
    s3 = store.client(signature_version="s3v4")
    return s3.generate_presigned_post("forms", key, Fields=fields, Conditions=conditions, ExpiresIn=expires)


def post(made, data=b"hello", name="dir/f.txt", **changed):
    fields = {**made["fields"], **changed}
    return requests.post(made["url"], data=fields, files={"file": (name, data)}, allow_redirects=False)


def code(answer):
    return answer.status_code, re.search("<Code>(.*?)</Code>", answer.text).group(1)


def test_a_form_uploads(store):
    s3 = store.client()
    answer = post(form(store))
    assert answer.status_code == 204 and answer.headers["ETag"] and not answer.content
    assert s3.get_object(Bucket="forms", Key="k")["Body"].read() == b"hello"

    fields = {"Content-Type": "text/x", "x-amz-meta-who": "me", "success_action_status": "201"}
    made = form(store, "up/${filename}", fields, [["starts-with", "$key", "up/"], *({k: v} for k, v in fields.items())])
    answer = post(made, b"x" * (9 << 20), "C:\\dir\\big file.bin")
    assert answer.status_code == 201 and "<Key>up/big file.bin</Key>" in answer.text
    found = s3.get_object(Bucket="forms", Key="up/big file.bin")
    assert found["ContentType"] == "text/x" and found["Metadata"] == {"who": "me"}
    assert found["Body"].read() == b"x" * (9 << 20)

    there = {"success_action_redirect": "http://127.0.0.1/thanks?a=b"}
    answer = post(form(store, "r", there, [there]))
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("http://127.0.0.1/thanks?a=b&bucket=forms&key=r&etag=")
    wrong = {"success_action_status": "404"}
    assert post(form(store, "s", wrong, [wrong])).status_code == 204


def test_what_the_policy_does_not_allow_is_refused_and_nothing_is_stored(store):
    sized = form(store, conditions=[["content-length-range", 3, 10]])
    assert code(post(sized, b"xx")) == (400, "EntityTooSmall")
    assert code(post(sized, b"x" * 11)) == (400, "EntityTooLarge")
    assert code(post(sized, b"x" * (6 << 20))) == (400, "EntityTooLarge")
    assert code(post(form(store), **{"x-amz-meta-extra": "1"})) == (403, "AccessDenied")
    assert code(post(form(store), key="other")) == (403, "AccessDenied")
    assert code(post(form(store, expires=-5))) == (403, "AccessDenied")
    assert code(post(form(store), **{"x-amz-signature": "0" * 64})) == (403, "SignatureDoesNotMatch")
    assert code(post(form(store), **{"x-amz-credential": "NOBODY/20260101/us-east-1/s3/aws4_request"})) == (400, "InvalidArgument")
    made = form(store)
    today = made["fields"]["x-amz-credential"].split("/")[1]
    stranger = {"x-amz-credential": f"NOBODY/{today}/us-east-1/s3/aws4_request"}
    assert code(post(made, **stranger)) == (403, "InvalidAccessKeyId")
    assert code(post(made, policy="bm90IGpzb24=")) == (403, "SignatureDoesNotMatch")
    unsigned = requests.post(made["url"], data={"key": "k"}, files={"file": b"x"})
    assert code(unsigned) == (403, "AccessDenied")
    old = requests.post(made["url"], data={"key": "k", "AWSAccessKeyId": "a", "signature": "b"}, files={"file": b"x"})
    assert code(old) == (400, "InvalidRequest")
    assert code(requests.post(made["url"], files={k: (None, v) for k, v in made["fields"].items()})) == (400, "InvalidArgument")
    sse = {"x-amz-server-side-encryption": "rot13"}
    assert post(form(store, "k", sse, [sse])).status_code in (400, 501)
    garbage = requests.post(made["url"], data=b"garbage", headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert code(garbage) == (400, "MalformedPOSTRequest")
    assert "Contents" not in store.client().list_objects_v2(Bucket="forms")


def test_checksums_in_forms_are_verified(store):
    good = {"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-crc32": "NhCmhg=="}
    assert post(form(store, "c", good, [{k: v} for k, v in good.items()])).status_code == 204
    bad = {**good, "x-amz-checksum-crc32": "AAAAAA=="}
    assert code(post(form(store, "d", bad, [{k: v} for k, v in bad.items()]))) == (400, "BadDigest")
