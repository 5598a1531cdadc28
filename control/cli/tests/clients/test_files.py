"""Clients that show a bucket as files: rclone, and s3fs-fuse as a mounted file system."""

import contextlib
import filecmp
import os
import pathlib
import shutil
import subprocess
import time

import pytest

MIB = 1 << 20


@pytest.fixture
def tree(tmp_path):
    """A folder of files with names that need care."""
    tree = tmp_path / "tree"
    for name, size in [("a", 10), ("b c", 0), ("deep/er/é", 5000), ("deep/x+y%20z", 70_000), ("large", 23 * MIB)]:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    return tree


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file())


def assert_same(one, other):
    assert files(one) == files(other)
    _, different, odd = filecmp.cmpfiles(one, other, files(one), shallow=False)
    assert (different, odd) == ([], [])


def test_rclone(shared_store, bucket, tree, tmp_path):
    """ListObjects v1, parts with Content-MD5, many HEADs, server-side moves."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "RCLONE_"))}
    environment.update(
        RCLONE_CONFIG=str(tmp_path / "none.conf"),
        RCLONE_CONFIG_S_TYPE="s3",
        RCLONE_CONFIG_S_PROVIDER="Other",
        RCLONE_CONFIG_S_ACCESS_KEY_ID=shared_store.keys[0],
        RCLONE_CONFIG_S_SECRET_ACCESS_KEY=shared_store.keys[1],
        RCLONE_CONFIG_S_ENDPOINT=shared_store.endpoint,
        RCLONE_CONFIG_S_REGION="us-east-1",
        RCLONE_S3_CHUNK_SIZE="5Mi",
        RCLONE_S3_UPLOAD_CUTOFF="10Mi",
        RCLONE_RETRIES="1",
        RCLONE_LOW_LEVEL_RETRIES="1",
    )

    def rclone(*arguments):
        done = subprocess.run(["rclone", *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"rclone {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    rclone("copy", tree, f"s:{bucket}/t")
    rclone("check", tree, f"s:{bucket}/t")
    rclone("check", "--download", tree, f"s:{bucket}/t")
    assert sorted(rclone("lsf", "-R", "--files-only", f"s:{bucket}/t").splitlines()) == files(tree)
    assert rclone("lsf", f"s:{bucket}/t").splitlines() == ["a", "b c", "deep/", "large"]
    rclone("moveto", f"s:{bucket}/t/large", f"s:{bucket}/t/moved")
    (tree / "large").rename(tree / "moved")
    (tree / "a").write_bytes(b"changed")
    (tree / "b c").unlink()
    rclone("sync", tree, f"s:{bucket}/t")
    back = tmp_path / "back"
    rclone("copy", f"s:{bucket}/t", back)
    assert_same(tree, back)
    piped = subprocess.run(["rclone", "rcat", f"s:{bucket}/piped"], env=environment, input=b"from a pipe" * 9999, timeout=60)
    assert piped.returncode == 0 and rclone("cat", "--head", "11", f"s:{bucket}/piped") == "from a pipe"
    rclone("delete", f"s:{bucket}")
    assert rclone("lsf", "-R", "--files-only", f"s:{bucket}") == ""


@contextlib.contextmanager
def mounted(shared_store, bucket, tmp_path):
    if not os.path.exists("/dev/fuse"):
        pytest.fail("s3fs-fuse needs /dev/fuse, and this machine has none: load the kernel's module `fuse`, or give the container the device")
    secret, mountpoint, log = tmp_path / "passwd", tmp_path / "mnt", tmp_path / "s3fs.log"
    secret.write_text(":".join(shared_store.keys))
    secret.chmod(0o600)
    mountpoint.mkdir()
    options = (
        f"passwd_file={secret},url={shared_store.endpoint},use_path_request_style,endpoint=us-east-1,multipart_size=5,"
        f"retries=1,stat_cache_expire=1,logfile={log}"
    )
    process = subprocess.Popen(["s3fs", bucket, mountpoint, "-f", "-o", options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while not os.path.ismount(mountpoint):
            said = log.read_text() if log.exists() else ""
            assert process.poll() is None, f"s3fs ended: {process.stdout.read().decode()}\n{said}"
            assert time.monotonic() < deadline, f"s3fs did not mount:\n{said}"
            time.sleep(0.05)
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=False, capture_output=True, timeout=60)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            subprocess.run(["umount", "-l", mountpoint], check=False, capture_output=True, timeout=60)


def test_s3fs_fuse(shared_store, bucket, s3, tree, tmp_path):
    """A file system over the bucket: folders as objects, renames as copies, appends as uploads."""
    with mounted(shared_store, bucket, tmp_path) as mountpoint:
        shutil.copytree(tree, mountpoint / "t", copy_function=shutil.copyfile)
        assert_same(tree, mountpoint / "t")
        assert s3.get_object(Bucket=bucket, Key="t/large")["Body"].read() == (tree / "large").read_bytes()
        with open(mountpoint / "t" / "a", "ab") as out:
            out.write(b" and more")
        assert s3.get_object(Bucket=bucket, Key="t/a")["Body"].read() == (tree / "a").read_bytes() + b" and more"
        # Not truncated: s3fs 1.90 (Debian 12's) puts zeros then, without asking the server for the bytes that stay.
        (mountpoint / "t" / "a").write_bytes(b"shorter")
        assert s3.get_object(Bucket=bucket, Key="t/a")["Body"].read() == b"shorter"
        with open(mountpoint / "t" / "large", "rb") as source:
            source.seek(11 * MIB)
            assert source.read(1000) == (tree / "large").read_bytes()[11 * MIB : 11 * MIB + 1000]
        os.rename(mountpoint / "t" / "large", mountpoint / "moved")
        os.rename(mountpoint / "t" / "deep", mountpoint / "shallow")
        assert files(mountpoint) == ["moved", "shallow/er/é", "shallow/x+y%20z", "t/a", "t/b c"]
        s3.put_object(Bucket=bucket, Key="from/elsewhere", Body=b"seen")
        assert (mountpoint / "from" / "elsewhere").read_bytes() == b"seen"
        shutil.rmtree(mountpoint / "t")
        (mountpoint / "moved").unlink()
        assert files(mountpoint) == ["from/elsewhere", "shallow/er/é", "shallow/x+y%20z"]
    keys = {row["Key"] for row in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert {"shallow/er/é", "shallow/x+y%20z", "from/elsewhere"} <= keys and not any(key.startswith("t/") for key in keys)
