"""The AWS CLI as people run it (v1: the one that PyPI has)."""

import json
import os
import subprocess
import sys

import pytest

MIB = 1 << 20
AWS = os.path.join(os.path.dirname(sys.executable), "aws")


@pytest.fixture
def aws(shared_store):
    def run(*arguments, fails=False):
        done = subprocess.run([AWS, *map(str, arguments)], env=shared_store.environment(), capture_output=True, text=True, timeout=300)
        if fails:
            assert done.returncode != 0, done.stdout
            return done.stderr
        assert done.returncode == 0, f"aws {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def cli_bucket(aws):
    name = f"cli-{os.urandom(6).hex()}"
    aws("s3", "mb", f"s3://{name}")
    yield name
    aws("s3", "rb", f"s3://{name}", "--force")


@pytest.mark.parametrize("size", [0, 1000, 64 * MIB])
def test_cp_there_and_back(aws, cli_bucket, tmp_path, size):
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(size))
    aws("s3", "cp", source, f"s3://{cli_bucket}/a/file", "--no-progress")
    aws("s3", "cp", f"s3://{cli_bucket}/a/file", back, "--no-progress")
    assert back.read_bytes() == source.read_bytes()
    assert f"{size} file" in " ".join(aws("s3", "ls", f"s3://{cli_bucket}/a/").split())


def test_sync_mv_and_rm(aws, cli_bucket, tmp_path):
    tree = tmp_path / "tree"
    for name in ["a", "b/c", "b/d e", "é"]:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(5000))
    aws("s3", "sync", tree, f"s3://{cli_bucket}/t", "--no-progress")
    assert aws("s3", "sync", tree, f"s3://{cli_bucket}/t", "--no-progress") == "", "a second sync has nothing to do"
    aws("s3", "mv", f"s3://{cli_bucket}/t/a", f"s3://{cli_bucket}/t/moved", "--no-progress")
    back = tmp_path / "back"
    aws("s3", "sync", f"s3://{cli_bucket}/t", back, "--no-progress")
    assert sorted(str(p.relative_to(back)) for p in back.rglob("*") if p.is_file()) == ["b/c", "b/d e", "moved", "é"]
    assert (back / "moved").read_bytes() == (tree / "a").read_bytes()
    aws("s3", "rm", f"s3://{cli_bucket}/t", "--recursive")
    assert aws("s3", "ls", f"s3://{cli_bucket}", "--recursive") == ""


def test_streams_and_presigned(aws, cli_bucket, tmp_path, shared_store):
    import urllib.request

    done = subprocess.run(
        [AWS, "s3", "cp", "-", f"s3://{cli_bucket}/stream"], input=b"from a pipe" * 1000, env=shared_store.environment(), timeout=120
    )
    assert done.returncode == 0
    # For us-east-1 the CLI's version 1 presigns with Signature Version 2, retired by AWS and refused by us.
    url = aws("s3", "presign", f"s3://{cli_bucket}/stream", "--expires-in", 60, "--region", "eu-central-1").strip()
    assert "X-Amz-Signature" in url
    assert urllib.request.urlopen(url).read() == b"from a pipe" * 1000


def test_s3api(aws, cli_bucket, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(b"0123456789")
    aws("s3api", "put-object", "--bucket", cli_bucket, "--key", "k", "--body", body, "--if-none-match", "*")
    assert "PreconditionFailed" in aws(
        "s3api", "put-object", "--bucket", cli_bucket, "--key", "k", "--body", body, "--if-none-match", "*", fails=True
    )
    out = tmp_path / "out"
    got = json.loads(aws("s3api", "get-object", "--bucket", cli_bucket, "--key", "k", "--range", "bytes=2-4", out))
    assert got["ContentRange"] == "bytes 2-4/10" and out.read_bytes() == b"234"
    listed = json.loads(aws("s3api", "list-objects-v2", "--bucket", cli_bucket, "--delimiter", "/"))
    assert [row["Key"] for row in listed["Contents"]] == ["k"]
    assert "NotImplemented" in aws("s3api", "put-bucket-website", "--bucket", cli_bucket,
                                   "--website-configuration", "IndexDocument={Suffix=i}", fails=True)
