"""Keeping a store of real processes: a node that is killed for good is rebuilt on the others by the nodes themselves, one is
drained, everything is scrubbed; `penstock admin` and the metrics say so."""

import json
import os
import random
import subprocess
import time
import urllib.request

import pytest

from conftest import BINARY, Process, free_port, make_client, read_keys

NODES = 8
WAIT_SECONDS_MAX = 180


class Cluster:
    """A gateway and nodes as processes of their own, RS(4,2)."""

    def __init__(self, folder):
        self.folder = folder
        subprocess.run([BINARY, "cluster-key", "--out", folder / "cluster.key"], check=True)
        self.port, self.metrics = free_port(), free_port()
        ports = [free_port() for _ in range(NODES)]
        self.node_metrics = [free_port() for _ in range(NODES)]
        lines = [
            "[cluster]", 'key_file = "cluster.key"', 'code = "RS(4,2)"', 'rdma = "off"',
            "[gateway]", f'listen = "127.0.0.1:{self.port}"', 'data = "gateway"', f'metrics = "127.0.0.1:{self.metrics}"',
            "garbage_grace_seconds = 1",
            "[keep]", "node_lost_after_seconds = 3", "stray_grace_seconds = 1", "survey_seconds = 3600",
        ]  # fmt: skip
        for number, port in enumerate(ports):
            lines += [
                "[[node]]", f"id = {number}", f'address = "127.0.0.1:{port}"', f'data = "node-{number:02}"',
                'capacity = "1GiB"', f'metrics = "127.0.0.1:{self.node_metrics[number]}"',
            ]  # fmt: skip
        config = folder / "cluster.toml"
        config.write_text("\n".join(lines) + "\n")
        self.nodes = [
            Process(folder, f"node-{number}", ["node", "--config", config, "--id", number], port)
            for number, port in enumerate(ports)
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

    def client(self):
        return make_client(f"http://127.0.0.1:{self.port}", self.keys, retries={"total_max_attempts": 3})

    def admin(self, *arguments):
        command = [BINARY, "admin", "--endpoint", f"http://127.0.0.1:{self.port}", "--data", self.folder / "gateway", *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=WAIT_SECONDS_MAX)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self):
        return json.loads(self.admin("status", "--json"))

    def wait_until(self, holds, what):
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while time.monotonic() < deadline:
            report = self.status()
            if holds(report):
                return report
            time.sleep(0.5)
        raise AssertionError(f"not {what}: {report}")

    def scrape(self, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return {line.rpartition(" ")[0].replace("{}", ""): float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}

    def stop(self):
        for process in [self.gateway, *self.nodes]:
            process.kill()


@pytest.fixture
def cluster(folder):
    cluster = Cluster(folder)
    yield cluster.start()
    cluster.stop()


def test_nodes_are_lost_drained_and_scrubbed(cluster):
    s3 = cluster.client()
    s3.create_bucket(Bucket="kept")
    source = random.Random(1)
    objects = {f"k{i}": source.randbytes(size) for i, size in enumerate([10, 5000, 300_000, 4 << 20, (9 << 20) + 7])}
    for key, body in objects.items():
        s3.put_object(Bucket="kept", Key=key, Body=body)

    def all_read():
        for key, body in objects.items():
            assert s3.get_object(Bucket="kept", Key=key)["Body"].read() == body, key

    # Gone for good: what it had is rebuilt on others, and no payload passes through the gateway.
    before = cluster.scrape(cluster.metrics)
    cluster.nodes[0].kill()
    cluster.wait_until(lambda report: report["nodes"][0]["state"] == "lost", "lost")
    report = cluster.wait_until(
        lambda report: report["survey"]["runs"] > 0 and report["nodes"][0]["runs"] == 0 and report["queued"] + report["put_off"] == 0,
        "rebuilt",
    )
    # Four reads for a shard; fewer where a short object's other shards are zeros, which are known.
    assert report["repaired"]["shards"] > 0 and 0 < report["repaired"]["reads"] <= 4 * report["repaired"]["shards"], report
    after = cluster.scrape(cluster.metrics)
    for name in ["penstock_gateway_payload_in_bytes_total", "penstock_gateway_payload_out_bytes_total"]:
        assert after[name] == before[name], name
    rebuilt = sum(
        value
        for port in cluster.node_metrics[1:]
        for name, value in cluster.scrape(port).items()
        if name.startswith("penstock_rebuild_stored_shards_total")
    )
    assert rebuilt == report["repaired"]["shards"]
    assert 'penstock_cluster_nodes{state="lost"}' in after
    # Full redundancy again: two more may go.
    for node in [1, 2]:
        cluster.nodes[node].kill()
    all_read()
    for node in [1, 2]:
        cluster.nodes[node].start().wait()
    cluster.wait_until(lambda report: all(node["state"] == "up" for node in report["nodes"][1:]), "back")

    # Emptied: the command ends when it is.
    out = cluster.admin("drain", 3)
    assert "node-03 is empty" in out, out
    cluster.nodes[3].kill()
    all_read()
    cluster.nodes[3].start().wait()

    # Scrubbed, and shown.
    out = cluster.admin("scrub", "--bytes-per-second", "1GiB")
    assert "node-04" in out, out
    report = cluster.status()
    scrubbed = [node for node in report["nodes"] if node["state"] == "up"]
    assert scrubbed and all(node["scrub_last_ended_unix_ms"] > 0 for node in scrubbed), report
    assert "survey" in cluster.admin("repair")
    assert cluster.status()["survey"]["under_replicated"] == {}
    all_read()

    # Refused with a sentence.
    command = [BINARY, "admin", "--endpoint", f"http://127.0.0.1:{cluster.port}", "--data", cluster.folder / "gateway", "drain", "77"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode != 0 and "node-77" in done.stderr, done.stderr
    # And nobody but the store's own account may.
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "A" * 20, "AWS_SECRET_ACCESS_KEY": "x" * 40}
    command = [BINARY, "admin", "--endpoint", f"http://127.0.0.1:{cluster.port}", "status"]
    assert subprocess.run(command, capture_output=True, env=environment).returncode != 0
