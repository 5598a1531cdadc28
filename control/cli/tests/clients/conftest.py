"""Starts real `penstock` processes for tests with real S3 clients."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import boto3
import botocore.config
import pytest

BINARY = os.environ.get("PENSTOCK_BIN") or str(
    pathlib.Path(__file__).resolve().parents[4] / "target" / "debug" / "penstock"
)
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
LIMITS = {"retries": {"max_attempts": 1, "mode": "standard"}, "read_timeout": 120, "connect_timeout": 10}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process, log):
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"penstock ended with {process.returncode}:\n{log.read_text()}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on {port}:\n{log.read_text()}")


class Process:
    """One penstock process: its arguments, its log, its life."""

    def __init__(self, folder, name, arguments, port):
        self.arguments, self.port = arguments, port
        self.log = folder / f"{name}.log"
        self.out = folder / f"{name}.out"
        self.process = None

    def start(self):
        with open(self.log, "ab") as log, open(self.out, "ab") as out:
            self.process = subprocess.Popen([BINARY, *map(str, self.arguments)], stdout=out, stderr=log)
        return self

    def wait(self):
        wait_for_port(self.port, self.process, self.log)
        return self

    def kill(self):
        """SIGKILL: what a power cut does to a process."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stop(self):
        """SIGTERM, and what it ended with."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"did not stop on SIGTERM:\n{self.log.read_text()[-4000:]}")
        return self.process.returncode if self.process else None

    def resident_peak_bytes(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")


class Store:
    """`penstock serve` over a folder, and clients of it."""

    def __init__(self, folder, nodes=1, *extra):
        self.folder = pathlib.Path(folder)
        self.data = self.folder / "data"
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        arguments = ["serve", "--data", self.data, "--nodes", nodes, "--listen", f"127.0.0.1:{self.port}", *extra]
        self.server = Process(self.folder, "serve", arguments, self.port)
        self.keys = None

    def start(self):
        self.server.start().wait()
        if self.keys is None:
            self.keys = read_keys(self.data)
        return self

    def client(self, **config):
        return make_client(self.endpoint, self.keys, **config)

    def environment(self):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        environment.update(
            AWS_ACCESS_KEY_ID=self.keys[0],
            AWS_SECRET_ACCESS_KEY=self.keys[1],
            AWS_DEFAULT_REGION="us-east-1",
            AWS_ENDPOINT_URL=self.endpoint,
            AWS_CONFIG_FILE=str(self.folder / "no-such-config"),
            AWS_EC2_METADATA_DISABLED="true",
        )
        return environment


def read_keys(folder):
    import tomllib

    pair = tomllib.loads((pathlib.Path(folder) / "root-credentials.toml").read_text())
    return pair["access_key_id"], pair["secret_access_key"]


def make_client(endpoint, keys, **config):
    settings = {**LIMITS, "s3": {"addressing_style": "path"}, **config}
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
        region_name="us-east-1",
        config=botocore.config.Config(**settings),
    )


@pytest.fixture
def folder():
    """A folder on a real file system (O_DIRECT works there), removed afterwards."""
    base = pathlib.Path(__file__).resolve().parents[4] / "target" / "tmp"
    base.mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(tempfile.mkdtemp(prefix="clients-", dir=base))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def start_store(folder):
    """Starts stores; all are stopped at the end, and must end well."""
    stores = []

    def start(nodes=1, *extra):
        store = Store(folder, nodes, *extra)
        stores.append(store)
        return store.start()

    yield start
    for store in stores:
        store.server.kill()


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory):
    """One store of six nodes, RS(4,2), for all tests that don't break it."""
    base = pathlib.Path(__file__).resolve().parents[4] / "target" / "tmp"
    base.mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(tempfile.mkdtemp(prefix="clients-shared-", dir=base))
    store = Store(path, 6, "--garbage-grace-seconds", 1).start()
    yield store
    code = store.server.stop()
    shutil.rmtree(path, ignore_errors=True)
    assert code == 0, "the store did not end well on SIGTERM"


@pytest.fixture
def s3(shared_store):
    return shared_store.client()


@pytest.fixture
def bucket(s3, request):
    """A fresh bucket, emptied and removed afterwards: which shows that both work."""
    name = "b-" + "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:40].strip("-")
    name = f"{name}-{os.urandom(4).hex()}"
    s3.create_bucket(Bucket=name)
    yield name
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=name):
        for upload in page.get("Uploads", []):
            s3.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        keys = [{"Key": row["Key"]} for row in page.get("Contents", [])]
        if keys:
            s3.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True})
    s3.delete_bucket(Bucket=name)
