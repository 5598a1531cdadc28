"""HTTPS with a real client, and the logs of requests."""

import json
import subprocess

import boto3
import botocore.config
import pytest

from conftest import LIMITS


@pytest.fixture
def certificate(folder):
    pair = folder / "server.pem", folder / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-out", pair[0], "-keyout", pair[1]],
        check=True,
        capture_output=True,
    )
    return pair


def test_boto3_over_https(start_store, certificate, folder):
    access, audit = folder / "access.log", folder / "audit.log"
    store = start_store(
        1, "--tls-certificate", certificate[0], "--tls-key", certificate[1], "--access-log", access, "--audit-log", audit
    )
    s3 = boto3.client(
        "s3",
        endpoint_url=f"https://localhost:{store.port}",
        aws_access_key_id=store.keys[0],
        aws_secret_access_key=store.keys[1],
        region_name="us-east-1",
        verify=str(certificate[0]),
        config=botocore.config.Config(s3={"addressing_style": "path"}, **LIMITS),
    )
    s3.create_bucket(Bucket="safe")
    body = b"x" * (9 << 20)
    s3.put_object(Bucket="safe", Key="k", Body=body)
    assert s3.get_object(Bucket="safe", Key="k")["Body"].read() == body
    upload = s3.create_multipart_upload(Bucket="safe", Key="m")["UploadId"]
    part = s3.upload_part(Bucket="safe", Key="m", UploadId=upload, PartNumber=1, Body=b"y")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    done = s3.complete_multipart_upload(Bucket="safe", Key="m", UploadId=upload, MultipartUpload=parts)
    assert done["Location"].startswith("https://")
    assert store.server.stop() == 0
    lines = access.read_text().splitlines()
    assert len(lines) == 6 and all("TLSv1.3" in line for line in lines)
    names = [json.loads(line)["operation"] for line in audit.read_text().splitlines()]
    assert names == ["CreateBucket", "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"]


def test_half_a_certificate_is_refused(folder, certificate):
    from conftest import BINARY

    done = subprocess.run(
        [BINARY, "serve", "--data", folder / "d", "--tls-certificate", certificate[0]], capture_output=True, text=True
    )
    assert done.returncode == 2 and "--tls-key" in done.stderr
    (folder / "bad.key").write_text("no key")
    done = subprocess.run(
        [BINARY, "serve", "--data", folder / "d", "--listen", "127.0.0.1:0"]
        + ["--tls-certificate", certificate[0], "--tls-key", folder / "bad.key"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "bad.key" in done.stderr
