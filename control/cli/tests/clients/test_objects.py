"""`penstock cp|mv|sync|ls|cat|head|rm|mb|rb|presign`, as people and scripts run them, against our server and against moto."""

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from conftest import BINARY, free_port, wait_for_port

MIB = 1 << 20
NOT_FOUND, DENIED, LATER, WRONG_BYTES, CONDITION, USAGE = 3, 4, 5, 6, 7, 2


class Cli:
    def __init__(self, environment):
        self.environment = environment

    def __call__(self, *arguments, code=0, given=None, **more):
        done = subprocess.run(
            [BINARY, *map(str, arguments)],
            env={**self.environment, **more},
            input=given,
            capture_output=True,
            timeout=300,
        )
        error = done.stderr.decode()
        assert done.returncode == code, f"penstock {arguments}: {done.returncode}\n{done.stdout[-2000:]!r}\n{error}"
        return error if code else done.stdout.decode(errors="replace")

    def lines(self, *arguments):
        return [json.loads(line) for line in self(*arguments, "--json").splitlines()]

    def bytes(self, *arguments):
        done = subprocess.run([BINARY, *map(str, arguments)], env=self.environment, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


class Moto:
    """Another S3 server, in a process of its own."""

    def __init__(self, folder):
        self.port, self.log = free_port(), folder / "moto.log"
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def start(self):
        code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{self.port}'])"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log)
        wait_for_port(self.port, self.process, self.log)
        return self

    def environment(self):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        environment.update(
            AWS_ACCESS_KEY_ID="testing",
            AWS_SECRET_ACCESS_KEY="testing",
            AWS_ENDPOINT_URL=self.endpoint,
            AWS_CONFIG_FILE="/no/such/config",
            AWS_EC2_METADATA_DISABLED="true",
        )
        return environment


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    server = Moto(tmp_path_factory.mktemp("moto")).start()
    yield server
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()


@pytest.fixture(params=["penstock", "moto"])
def cli(request):
    server = request.getfixturevalue("shared_store" if request.param == "penstock" else "moto")
    return Cli(server.environment())


@pytest.fixture
def bucket(cli):
    name = f"objects-{os.urandom(6).hex()}"
    cli("mb", f"s3://{name}")
    yield name
    cli("rb", f"s3://{name}", "--force")


def make_tree(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(3000))


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parts(folder):
    return [path for path in folder.rglob("*.part")]


@pytest.mark.parametrize("size", [0, 1000, 70 * MIB])
def test_a_file_there_and_back(cli, bucket, tmp_path, size):
    source, back = tmp_path / "source", tmp_path / "new folder" / "back"
    source.write_bytes(os.urandom(size))
    cli("cp", source, f"s3://{bucket}/a/", "--content-type", "text/x", "--metadata", "who=me")
    cli("cp", f"s3://{bucket}/a/source", back)
    assert back.read_bytes() == source.read_bytes()
    assert parts(tmp_path) == [], "what was begun was renamed"
    [head] = cli.lines("head", f"s3://{bucket}/a/source")
    assert (head["bytes"], head["content-type"], head["x-amz-meta-who"]) == (str(size), "text/x", "me")
    [entry] = cli.lines("ls", f"s3://{bucket}/a/")
    assert (entry["key"], entry["bytes"]) == ("a/source", size)
    # The file is as old as the object: a sync has nothing to do.
    assert cli("sync", f"s3://{bucket}/a", back.parent, "--exclude", "*", "--include", "back") == ""


def test_standard_input_and_output(cli, bucket):
    body = os.urandom(20 * MIB)
    done = subprocess.run([BINARY, "cp", "-", f"s3://{bucket}/piped"], env=cli.environment, input=body, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert cli.bytes("cat", f"s3://{bucket}/piped") == body
    assert cli.bytes("cp", f"s3://{bucket}/piped", "-") == body
    assert cli.bytes("cat", f"s3://{bucket}/piped", "--range", "5-9") == body[5:10]
    assert cli.bytes("cat", f"s3://{bucket}/piped", "--range", "-7") == body[-7:]
    # Whoever reads may have seen enough.
    reader = subprocess.run(
        ["sh", "-c", f"{BINARY} cat s3://{bucket}/piped | head -c 10"], env=cli.environment, capture_output=True
    )
    assert reader.stdout == body[:10] and reader.stderr == b"", reader.stderr


def test_folders_there_and_back_with_rules(cli, bucket, tmp_path):
    source, back = tmp_path / "tree", tmp_path / "back"
    names = ["a.txt", "b/c.jpg", "b/d e+%.txt", "b/é&<.bin", "z/z/z.jpg"]
    make_tree(source, names)
    dry = cli.lines("cp", "-r", source, f"s3://{bucket}/t", "--dry-run")
    assert len(dry) == 5 and all(line["dry_run"] for line in dry)
    assert cli("ls", f"s3://{bucket}") == "", "a dry run does nothing"
    done = cli.lines("cp", "--recursive", source, f"s3://{bucket}/t")
    assert sorted(line["to"] for line in done) == sorted(f"s3://{bucket}/t/{name}" for name in names)
    cli("cp", "-r", f"s3://{bucket}/t", back, "--exclude", "*", "--include", "*.jpg")
    assert sorted(tree(back)) == ["b/c.jpg", "z/z/z.jpg"]
    cli("cp", "-r", f"s3://{bucket}/t/", back)
    assert tree(back) == tree(source)
    # On the server, and away with the old.
    cli("mv", "-r", f"s3://{bucket}/t", f"s3://{bucket}/u", "--exclude", "z/*")
    assert [e["key"] for e in cli.lines("ls", "-r", f"s3://{bucket}/t/")] == ["t/z/z/z.jpg"]
    keys = [entry["key"] for entry in cli.lines("ls", "-r", f"s3://{bucket}/u/")]
    assert keys == sorted(f"u/{name}" for name in names[:4])
    assert cli.bytes("cat", f"s3://{bucket}/u/b/é&<.bin") == (source / "b/é&<.bin").read_bytes()
    rolled = cli("ls", f"s3://{bucket}/u/")
    assert "PRE u/b/" in rolled and "u/a.txt" in rolled and "c.jpg" not in rolled
    assert "4 objects" in cli("ls", "-r", f"s3://{bucket}/u/", "--summarize", "--human-readable")
    cli("rm", "-r", f"s3://{bucket}/u", "--exclude", "*.txt")
    assert [e["key"] for e in cli.lines("ls", "-r", f"s3://{bucket}/u/")] == ["u/a.txt", "u/b/d e+%.txt"]
    # `t` is not a prefix of `tt`.
    cli("cp", source / "a.txt", f"s3://{bucket}/tt/a")
    cli("rm", "-r", f"s3://{bucket}/t")
    assert [e["key"] for e in cli.lines("ls", "-r", f"s3://{bucket}/t")] == ["tt/a"]


def test_sync_copies_what_differs_and_removes_when_told(cli, bucket, tmp_path):
    source, back = tmp_path / "tree", tmp_path / "back"
    make_tree(source, ["a", "b/c", "b/d"])
    assert len(cli("sync", source, f"s3://{bucket}/s").splitlines()) == 3
    assert cli("sync", source, f"s3://{bucket}/s") == "", "a second sync has nothing to do"
    (source / "a").write_bytes(b"longer now" * 1000)
    (source / "b/d").unlink()
    assert cli("sync", source, f"s3://{bucket}/s").startswith("upload: ")
    later = time.time() + 100
    os.utime(source / "b/c", (later, later))
    assert cli("sync", source, f"s3://{bucket}/s", "--size-only") == ""
    assert "b/c" in cli("sync", source, f"s3://{bucket}/s")
    dry = cli("sync", source, f"s3://{bucket}/s", "--delete", "--exclude", "b/c", "--dry-run")
    assert dry.splitlines() == [f"(dry run) delete: s3://{bucket}/s/b/d"]
    cli("sync", source, f"s3://{bucket}/s", "--delete", "--exclude", "b/c")
    cli("sync", f"s3://{bucket}/s", back)
    assert tree(back) == tree(source)
    make_tree(back, ["extra"])
    assert cli("sync", f"s3://{bucket}/s", back, "--delete").splitlines() == [f"delete: {back}/extra"]
    cli("sync", f"s3://{bucket}/s", f"s3://{bucket}/copy")
    assert len(cli.lines("ls", "-r", f"s3://{bucket}/copy/")) == 2


def test_a_url_is_good_for_who_has_it(cli, bucket, tmp_path):
    (tmp_path / "f").write_bytes(b"hello")
    cli("cp", tmp_path / "f", f"s3://{bucket}/a b/ü")
    url = cli("presign", f"s3://{bucket}/a b/ü", "--expires-in", 60).strip()
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"hello"


def test_what_is_wrong_is_said_with_a_code_of_its_own(cli, bucket, tmp_path):
    (tmp_path / "f").write_bytes(b"hello")
    assert "NoSuchKey" in cli("cat", f"s3://{bucket}/no", code=NOT_FOUND)
    assert "404" in cli("cp", f"s3://{bucket}/no", tmp_path / "x", code=NOT_FOUND)
    assert "NoSuchBucket" in cli("ls", "s3://no-such-bucket-here/", code=NOT_FOUND)
    cli("rm", f"s3://{bucket}/no", code=NOT_FOUND)
    cli("cp", "-r", f"s3://{bucket}/no", tmp_path, code=NOT_FOUND)
    assert "No such file" in cli("cp", tmp_path / "no", f"s3://{bucket}/k", code=NOT_FOUND)
    assert "--recursive" in cli("cp", tmp_path, f"s3://{bucket}/k", code=USAGE)
    assert "write s3://BUCKET" in cli("cat", "bucket/key", code=USAGE)
    assert "names no object" in cli("cat", f"s3://{bucket}", code=USAGE)
    assert "copies no files to files" in cli("cp", tmp_path / "f", tmp_path / "g", code=USAGE)
    assert "http://host:port" in cli("ls", "--endpoint-url", "localhost:9000", code=USAGE)
    assert "check the endpoint" in cli("ls", "--endpoint-url", "http://127.0.0.1:1", code=LATER)
    assert "7 days" in cli("presign", f"s3://{bucket}/k", "--expires-in", 10**6, code=USAGE)
    assert "no credentials" in cli("ls", code=DENIED, AWS_ACCESS_KEY_ID="", HOME="/nowhere")
    assert not (tmp_path / "x").exists() and parts(tmp_path) == []


@pytest.fixture
def ours(shared_store):
    return Cli(shared_store.environment())


@pytest.fixture
def our_bucket(ours):
    name = f"objects-{os.urandom(6).hex()}"
    ours("mb", f"s3://{name}")
    yield name
    ours("rb", f"s3://{name}", "--force")


def test_what_only_a_server_that_checks_can_refuse(ours, our_bucket, tmp_path):
    (tmp_path / "f").write_bytes(b"hello")
    error = ours("ls", code=DENIED, AWS_SECRET_ACCESS_KEY="wrong")
    assert "SignatureDoesNotMatch" in error and "check the access key" in error
    ours("cp", tmp_path / "f", f"s3://{our_bucket}/k", "--no-clobber")
    assert "condition" in ours("cp", tmp_path / "f", f"s3://{our_bucket}/k", "--no-clobber", code=CONDITION)
    assert "BucketNotEmpty" in ours("rb", f"s3://{our_bucket}", code=1)
    # One of several fails: the others are done.
    make_tree(tmp_path / "many", ["a", "b", "c"])
    os.chmod(tmp_path / "many" / "b", 0)
    if os.geteuid() != 0:
        error = ours("cp", "-r", tmp_path / "many", f"s3://{our_bucket}/m", code=DENIED)
        assert "1 of 3 failed" in error
    # A key that would lead out of the folder is no file.
    ours("cp", tmp_path / "f", f"s3://{our_bucket}/out/../../evil")
    error = ours("cp", "-r", f"s3://{our_bucket}/out", tmp_path / "in", code=1)
    assert "leads somewhere else" in error and not (tmp_path.parent / "evil").exists()


def test_a_configuration_file_says_where_and_who(ours, shared_store, tmp_path):
    config, keys = tmp_path / "config", tmp_path / "credentials"
    config.write_text(f"[profile lab]\nendpoint_url = {shared_store.endpoint}\nregion = us-east-1\n")
    keys.write_text(f"[lab]\naws_access_key_id = {shared_store.keys[0]}\naws_secret_access_key = {shared_store.keys[1]}\n")
    bare = {k: v for k, v in ours.environment.items() if not k.startswith("AWS_")}
    bare.update(AWS_CONFIG_FILE=str(config), AWS_SHARED_CREDENTIALS_FILE=str(keys), AWS_EC2_METADATA_DISABLED="true")
    Cli(bare)("ls", "--profile", "lab")
    Cli(bare)("ls", AWS_PROFILE="lab")


def test_payload_goes_by_plan_where_the_server_gives_one(ours, our_bucket, tmp_path):
    (tmp_path / "f").write_bytes(os.urandom(9 * MIB))
    ours("cp", tmp_path / "f", f"s3://{our_bucket}/k", "--require-plan")
    ours("cp", f"s3://{our_bucket}/k", tmp_path / "g", "--require-plan")
    assert (tmp_path / "g").read_bytes() == (tmp_path / "f").read_bytes()
    ours("cp", f"s3://{our_bucket}/k", tmp_path / "h", "--http")
    assert (tmp_path / "h").read_bytes() == (tmp_path / "f").read_bytes()


def test_an_upload_that_was_killed_goes_on(ours, our_bucket, shared_store, tmp_path):
    """Killed in its middle; the next run sends what is missing and no more."""
    source = tmp_path / "long"
    source.write_bytes(os.urandom(160 * MIB))
    s3 = shared_store.client()
    sending = subprocess.Popen(
        [BINARY, "cp", str(source), f"s3://{our_bucket}/long", "--http", "--part-size", "8MiB", "--parallel", "1"],
        env=ours.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    have = 0
    deadline = time.monotonic() + 120
    while have < 3 and sending.poll() is None and time.monotonic() < deadline:
        uploads = s3.list_multipart_uploads(Bucket=our_bucket).get("Uploads", [])
        if uploads:
            listed = s3.list_parts(Bucket=our_bucket, Key="long", UploadId=uploads[0]["UploadId"])
            have = len(listed.get("Parts", []))
    sending.kill()
    sending.wait()
    if sending.returncode == 0:
        pytest.fail("the upload was over before it could be killed")
    assert have >= 3
    done = subprocess.run(
        [BINARY, "cp", str(source), f"s3://{our_bucket}/long", "--http", "--part-size", "8MiB", "--stats"],
        env=ours.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written = int(done.stderr.split("written_bytes: {")[1].split('"http": ')[1].split(",")[0])
    assert written <= 160 * MIB - have * 8 * MIB, done.stderr
    digest = hashlib.sha256(s3.get_object(Bucket=our_bucket, Key="long")["Body"].read())
    assert digest.digest() == hashlib.sha256(source.read_bytes()).digest()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=our_bucket)


def test_a_download_that_broke_off_goes_on_and_another_object_does_not(ours, our_bucket, tmp_path):
    source, to = tmp_path / "long", tmp_path / "to" / "long"
    source.write_bytes(os.urandom(80 * MIB))
    ours("cp", source, f"s3://{our_bucket}/long")
    [head] = ours.lines("head", f"s3://{our_bucket}/long")
    etag = "".join(c for c in head["etag"] if c.isalnum())
    part = to.parent / f".long.{etag}.part"
    part.parent.mkdir()
    # What an earlier run would have left: the first 50 MiB.
    part.write_bytes(source.read_bytes()[: 50 * MIB])
    done = subprocess.run(
        [BINARY, "cp", f"s3://{our_bucket}/long", str(to), "--stats", "--http"], env=ours.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert to.read_bytes() == source.read_bytes() and parts(tmp_path) == []
    read = int(done.stderr.split("read_bytes: {")[1].split('"http": ')[1].split(",")[0])
    assert read == 30 * MIB
    # One whose bytes are not those of the object is found out by the checksum, and removed.
    part.write_bytes(os.urandom(50 * MIB))
    error = ours("cp", f"s3://{our_bucket}/long", tmp_path / "to" / "long", code=WRONG_BYTES)
    assert "run it again" in error and parts(tmp_path) == []
    assert to.read_bytes() == source.read_bytes(), "what was there stays"
    # A part of another version of the object has another name.
    part.write_bytes(b"old")
    source.write_bytes(os.urandom(MIB))
    ours("cp", source, f"s3://{our_bucket}/long")
    ours("cp", f"s3://{our_bucket}/long", to)
    assert to.read_bytes() == source.read_bytes()
