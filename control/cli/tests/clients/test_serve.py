"""Starting, stopping, keys, nodes that vanish, disks that fill."""

import hashlib
import os
import shutil
import stat
import subprocess
import time

import botocore.exceptions
import pytest

from conftest import BINARY, Process, Store, free_port, read_keys

MIB = 1 << 20


def code_of(error):
    return error.value.response["Error"]["Code"]


def refused():
    return pytest.raises(botocore.exceptions.ClientError)


def test_keys_are_made_once_shown_once_and_kept(start_store, folder):
    store = start_store(1)
    shown = store.server.out.read_text()
    access, secret = store.keys
    assert f"AWS_ACCESS_KEY_ID={access}\n" in shown and f"AWS_SECRET_ACCESS_KEY={secret}\n" in shown
    line = next(row for row in shown.splitlines() if " aws " in row)
    assert subprocess.run(
        line.replace(" aws ", f" {os.path.dirname(os.sys.executable)}/aws "), shell=True, env={**os.environ}, timeout=60
    ).returncode == 0, "the line to paste works"
    assert [row["Name"] for row in store.client().list_buckets()["Buckets"]] == ["first"]
    mode = (store.data / "root-credentials.toml").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert secret not in store.server.log.read_text(), "secrets are not logged"
    assert store.server.stop() == 0
    store.start()
    assert store.server.out.read_text() == shown, "not shown again"
    assert read_keys(store.data) == store.keys
    assert [row["Name"] for row in store.client().list_buckets()["Buckets"]] == ["first"]
    assert sorted(p.name for p in store.data.glob("node-*")) == ["node-00"]


def run_to_end(*arguments):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_refused_starts_say_why(folder, start_store):
    done = run_to_end("serve", "--data", folder / "x", "--nodes", 3, "--code", "RS(4,2)")
    assert done.returncode == 1 and all(word in done.stderr for word in ("RS(4,2)", "6", "3"))
    done = run_to_end("serve", "--data", folder / "x", "--code", "nonsense")
    assert done.returncode == 2 and "RS(k,m)" in done.stderr
    store = start_store(3)
    done = run_to_end("serve", "--data", store.data, "--nodes", 3, "--listen", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1 and "in use" in done.stderr
    done = run_to_end("serve", "--data", folder / "other", "--listen", f"127.0.0.1:{store.port}")
    assert done.returncode == 1 and str(store.port) in done.stderr
    store.server.stop()
    done = run_to_end("serve", "--data", store.data, "--nodes", 1, "--listen", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1 and "--nodes 3" in done.stderr


@pytest.mark.parametrize(("nodes", "lose"), [(3, 1), (6, 2), (14, 4)])
def test_nodes_whose_directories_are_gone(start_store, nodes, lose):
    store = start_store(nodes)
    s3 = store.client()
    s3.create_bucket(Bucket="kept")
    objects = {f"k{size}": os.urandom(size) for size in (1, 1000, MIB, 9 * MIB + 5)}
    for key, data in objects.items():
        s3.put_object(Bucket="kept", Key=key, Body=data)
    assert store.server.stop() == 0
    for number in range(lose):
        shutil.rmtree(store.data / f"node-{(number * 3) % nodes:02}")
    store.start()
    assert "starts empty" in store.server.log.read_text()
    for key, data in objects.items():
        assert s3.get_object(Bucket="kept", Key=key)["Body"].read() == data
    s3.put_object(Bucket="kept", Key="new", Body=b"written to empty nodes too")
    assert s3.get_object(Bucket="kept", Key="new")["Body"].read() == b"written to empty nodes too"


def test_too_many_nodes_gone_is_an_error_and_not_wrong_bytes(start_store):
    store = start_store(6)
    s3 = store.client()
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="k", Body=os.urandom(MIB))
    store.server.stop()
    for number in range(3):
        shutil.rmtree(store.data / f"node-{number:02}")
    store.start()
    with pytest.raises(Exception) as error:
        s3.get_object(Bucket="kept", Key="k")["Body"].read()
    # Not looked for in the message: that names a random id, which may hold any three digits.
    status = getattr(error.value, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
    assert status != 404, "lost is not the same as never there"
    assert s3.head_object(Bucket="kept", Key="k")["ContentLength"] == MIB


def used_bytes(folder):
    return sum(os.stat(path).st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def test_deleted_data_gives_its_space_back(start_store):
    store = start_store(3, "--node-capacity", "4GiB", "--garbage-grace-seconds", 0)
    s3 = store.client()
    s3.create_bucket(Bucket="bucket")
    for _ in range(40):
        s3.put_object(Bucket="bucket", Key="k", Body=os.urandom(16 * MIB))
    s3.delete_object(Bucket="bucket", Key="k")
    # A node of 4 GiB has extents of 64 MiB; it keeps one open and one in reserve. What was written is 320 MiB a node.
    kept = 3 * 2 * 64 * MIB + 100 * MIB
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and used_bytes(store.data) > kept:
        time.sleep(0.5)
    assert used_bytes(store.data) < kept


def test_a_full_disk_refuses_reads_on_and_recovers(start_store):
    store = start_store(1, "--node-capacity", "512MiB", "--garbage-grace-seconds", 0)
    s3 = store.client()
    s3.create_bucket(Bucket="full")
    kept = {}
    with refused() as error:
        for number in range(200):
            data = os.urandom(8 * MIB)
            s3.put_object(Bucket="full", Key=f"k{number}", Body=data)
            kept[f"k{number}"] = hashlib.md5(data).hexdigest()
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] in (503, 507)
    assert 20 <= len(kept) < 64
    for key, digest in kept.items():
        assert hashlib.md5(s3.get_object(Bucket="full", Key=key)["Body"].read()).hexdigest() == digest
    assert len(s3.list_objects_v2(Bucket="full")["Contents"]) == len(kept), "what was refused is not there"
    for key in list(kept)[: len(kept) * 3 // 4]:
        s3.delete_object(Bucket="full", Key=key)
        del kept[key]
    deadline = time.monotonic() + 120
    while True:
        try:
            s3.put_object(Bucket="full", Key="again", Body=os.urandom(8 * MIB))
            break
        except botocore.exceptions.ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (503, 507)
            assert time.monotonic() < deadline, "space that was freed is not used again"
            time.sleep(0.5)
    for key, digest in kept.items():
        assert hashlib.md5(s3.get_object(Bucket="full", Key=key)["Body"].read()).hexdigest() == digest


@pytest.fixture
def small_file_system(folder):
    """A file system of 900 MB that nothing else writes to. Needs the right to mount, which CI has."""
    place = folder / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"not run: this user may not mount: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_file_system_refuses_reads_deletes_and_recovers(small_file_system, start_store):
    """Filled by us, then by somebody else, metadata and log included."""
    store = Store(small_file_system, 1, "--garbage-grace-seconds", 0)
    try:
        store.start()
        s3 = store.client()
        s3.create_bucket(Bucket="full")
        kept = {}

        def put(key, size):
            data = os.urandom(size)
            s3.put_object(Bucket="full", Key=key, Body=data)
            kept[key] = data

        def read_all():
            for key, data in kept.items():
                assert s3.get_object(Bucket="full", Key=key)["Body"].read() == data

        def put_when_there_is_room(key, size):
            deadline = time.monotonic() + 60
            while True:
                try:
                    return put(key, size)
                except botocore.exceptions.ClientError as error:
                    assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (503, 507)
                    assert time.monotonic() < deadline, "space that was freed is not used again"
                    time.sleep(0.3)

        with refused() as error:
            for number in range(400):
                put(f"k{number}", 4 * MIB)
        assert code_of(error) == "InsufficientStorage" and len(kept) > 50
        read_all()
        for key in list(kept)[: len(kept) * 3 // 4]:
            s3.delete_object(Bucket="full", Key=key)
            del kept[key]
        put_when_there_is_room("again", 4 * MIB)

        filler = small_file_system / "filler"
        with open(filler, "wb") as out, pytest.raises(OSError):
            while True:
                out.write(bytes(MIB))
                out.flush()
        for number in range(50):
            with refused() as error:
                put(f"small{number}", 1000)
            assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] in (503, 507)
        read_all()
        victim = next(iter(kept))
        s3.delete_object(Bucket="full", Key=victim)
        del kept[victim]
        filler.unlink()
        put_when_there_is_room("later", 1000)
        read_all()
        listed = {row["Key"] for row in s3.list_objects_v2(Bucket="full")["Contents"]}
        assert listed == set(kept), "what was refused is not there"
        assert store.server.stop() == 0
        store.start()
        read_all()
    finally:
        store.server.kill()


def test_ten_gib_there_and_back_in_300_mb(start_store):
    """A PUT and a GET of 10 GiB (two parts of 5 GiB, the largest S3 has) with bounded memory."""
    from test_boto3 import Pattern

    size = 10 << 30
    store = start_store(1)
    s3 = store.client(request_checksum_calculation="when_required", read_timeout=600,
                      s3={"addressing_style": "path", "payload_signing_enabled": False})
    s3.create_bucket(Bucket="big")
    upload = s3.create_multipart_upload(Bucket="big", Key="k")["UploadId"]
    rows = []
    for number in (1, 2):
        part = Half(size // 2, (number - 1) * (size // 2))
        done = s3.upload_part(Bucket="big", Key="k", UploadId=upload, PartNumber=number, Body=part, ContentLength=size // 2)
        rows.append({"PartNumber": number, "ETag": done["ETag"]})
    s3.complete_multipart_upload(Bucket="big", Key="k", UploadId=upload, MultipartUpload={"Parts": rows})
    assert s3.head_object(Bucket="big", Key="k")["ContentLength"] == size
    assert Pattern(size).same_as(s3.get_object(Bucket="big", Key="k")["Body"])
    peak = store.server.resident_peak_bytes()
    print(f"peak RSS {peak / 1e6:.0f} MB")
    assert peak < 300_000_000


class Half:
    """A window of a Pattern as a file, so that two parts make one Pattern."""

    def __init__(self, length, start):
        from test_boto3 import Pattern

        self.pattern, self.length, self.start, self.at = Pattern(start + length), length, start, 0

    def __len__(self):
        return self.length

    def tell(self):
        return self.at

    def seek(self, offset, whence=0):
        self.at = offset + (0, self.at, self.length)[whence]
        return self.at

    def read(self, length=-1):
        if length is None or length < 0:
            length = self.length - self.at
        data = self.pattern.read_at(self.start + self.at, min(length, self.length - self.at))
        self.at += len(data)
        return data


class Cluster:
    """A gateway and its nodes as processes, from one file."""

    def __init__(self, folder, nodes):
        self.folder, self.port = folder, free_port()
        ports = []
        while len(ports) < nodes:
            port = free_port()
            if port not in ports and port != self.port:
                ports.append(port)
        config = folder / "cluster.toml"
        rows = [f'[cluster]\nkey_file = "cluster.key"\n[gateway]\nlisten = "127.0.0.1:{self.port}"\ndata = "gateway"\n']
        rows += [
            f'[[node]]\nid = {n}\naddress = "127.0.0.1:{port}"\ndata = "node-{n:02}"\ncapacity = "4GiB"\nbuffers = "32MiB"\n'
            for n, port in enumerate(ports)
        ]
        config.write_text("\n".join(rows))
        made = run_to_end("cluster-key", "--out", folder / "cluster.key")
        assert made.returncode == 0, made.stderr
        self.nodes = [
            Process(folder, f"node-{n:02}", ["node", "--config", config, "--id", n], port) for n, port in enumerate(ports)
        ]
        self.gateway = Process(folder, "gateway", ["gateway", "--config", config], self.port)

    def start(self):
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait()
        self.gateway.start().wait()
        self.keys = read_keys(self.folder / "gateway")
        return self

    def kill(self):
        for process in [self.gateway, *self.nodes]:
            process.kill()


@pytest.fixture
def cluster(folder):
    cluster = Cluster(folder, 14)
    yield cluster
    cluster.kill()


def test_fourteen_node_processes_lose_any_four(cluster):
    import random

    from conftest import make_client

    cluster.start()
    s3 = make_client(f"http://127.0.0.1:{cluster.port}", cluster.keys)
    patient = make_client(f"http://127.0.0.1:{cluster.port}", cluster.keys, retries={"max_attempts": 8, "mode": "standard"})
    s3.create_bucket(Bucket="spread")
    objects = {f"k{size}": os.urandom(size) for size in (0, 1, 5000, 3 * MIB, 17 * MIB + 3)}
    for key, data in objects.items():
        s3.put_object(Bucket="spread", Key=key, Body=data)
    choose = random.Random(14)
    for _ in range(4):
        lost = choose.sample(range(14), 4)
        for number in lost:
            cluster.nodes[number].kill()
        for key, data in objects.items():
            assert s3.get_object(Bucket="spread", Key=key)["Body"].read() == data, (key, lost)
        assert s3.get_object(Bucket="spread", Key=f"k{17 * MIB + 3}", Range="bytes=4194300-4194310")["Body"].read() == (
            objects[f"k{17 * MIB + 3}"][4194300:4194311]
        )
        # Ten nodes are enough to read and one too few to write: k + 1 shards must be durable.
        with refused() as error:
            s3.put_object(Bucket="spread", Key="refused", Body=b"x" * 1000)
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        back = lost.pop()
        cluster.nodes[back].start().wait()
        # A client that tries again, as all do: the gateway asks a node that refused it again after a moment.
        patient.put_object(Bucket="spread", Key="eleven", Body=b"y" * 1000)
        assert s3.get_object(Bucket="spread", Key="eleven")["Body"].read() == b"y" * 1000
        for number in lost:
            cluster.nodes[number].start()
        for number in lost:
            cluster.nodes[number].wait()
    listed = [row["Key"] for row in s3.list_objects_v2(Bucket="spread")["Contents"]]
    assert "refused" not in listed and set(objects) <= set(listed)
