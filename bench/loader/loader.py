"""`bench loader`: what Python's S3 clients cost a training machine, side by side on one server in one run.

    python bench/loader/loader.py --quick          # minutes; shapes are scaled down
    python bench/loader/loader.py --json out.json

Contenders that are not installed are named as left out. Each (contender, workload) runs in a process of its own, pinned to nothing; rounds are
interleaved (a, b, c, a, b, c, ...), and the median over rounds is told. `client_cpu_s_per_gb` is the process's own user and system time per
10^9 bytes of payload, without its start and a warm-up. The server is `penstock serve` (or --endpoint) on the same machine: figures
compare clients with each other, and say nothing of the server.

Rows (JSON): contender, workload, client_cpu_s_per_gb, mb_per_s, p50_ms, p99_ms.
"""

import argparse
import concurrent.futures
import importlib.util
import json
import os
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUCKET = "bench-loader"
KIB, MIB = 1 << 10, 1 << 20
AT_A_TIME = 16

#: Workload: objects, bytes of each, bytes of a read (None: whole objects), reads; then the same for --quick.
#: Shapes are MLPerf Storage's, scaled down: unet3d 146 MB samples, resnet50 150 KB records of 138 MB shards, cosmoflow 2.8 MB.
WORKLOADS = {
    "random-110k": ((1000, 110_000, None, 2000), (200, 110_000, None, 400)),
    "get-64m": ((8, 64 * MIB, None, 16), (2, 64 * MIB, None, 4)),
    "ranges-1m": ((4, 64 * MIB, MIB, 512), (1, 64 * MIB, MIB, 64)),
    "unet3d": ((4, 146 * MIB, None, 8), (1, 146 * MIB, None, 2)),
    "resnet50": ((2, 138 * MIB, 150_000, 2000), (1, 138 * MIB, 150_000, 300)),
    "cosmoflow": ((64, 2_800_000, None, 256), (16, 2_800_000, None, 64)),
    "checkpoint-load": ((2, 256 * MIB, None, 4), (1, 128 * MIB, None, 2)),
    "checkpoint-save": ((2, 256 * MIB, None, 4), (1, 128 * MIB, None, 2)),
    "kv-blocks": ((64, 4 * MIB, None, 256), (16, 4 * MIB, None, 32)),
}
#: One after the other, as their users do; all others AT_A_TIME at a time.
ONE_BY_ONE = {"get-64m", "unet3d", "checkpoint-load", "checkpoint-save"}


class Ours:
    module = "penstock"

    def __init__(self, endpoint, keys):
        import penstock

        self.client = penstock.Client(endpoint, access_key=keys[0], secret_key=keys[1])

    def get(self, key, start, length):
        return len(self.client.get(BUCKET, key, start=start, length=length))

    def put(self, key, data):
        self.client.put(BUCKET, key, data)


class Boto3:
    module = "boto3"

    def __init__(self, endpoint, keys):
        import boto3
        from botocore.config import Config

        config = Config(max_pool_connections=AT_A_TIME, s3={"addressing_style": "path"})
        self.client = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=keys[0], aws_secret_access_key=keys[1], region_name="us-east-1", config=config)

    def get(self, key, start, length):
        span = {} if start is None else {"Range": f"bytes={start}-{start + length - 1}"}
        return len(self.client.get_object(Bucket=BUCKET, Key=key, **span)["Body"].read())

    def put(self, key, data):
        import io

        self.client.upload_fileobj(io.BytesIO(data), BUCKET, key)


class Obstore:
    module = "obstore"

    def __init__(self, endpoint, keys):
        import obstore.store

        self.store = obstore.store.S3Store(
            BUCKET, endpoint=endpoint, region="us-east-1", access_key_id=keys[0], secret_access_key=keys[1],
            virtual_hosted_style_request=False, client_options={"allow_http": True},
        )

    def get(self, key, start, length):
        import obstore

        if start is None:
            return len(obstore.get(self.store, key).bytes())
        return len(obstore.get_range(self.store, key, start=start, length=length))

    def put(self, key, data):
        import obstore

        obstore.put(self.store, key, data)


class S3torchconnector:
    module = "s3torchconnectorclient"

    def __init__(self, endpoint, keys):
        os.environ.update(AWS_ACCESS_KEY_ID=keys[0], AWS_SECRET_ACCESS_KEY=keys[1])
        from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client

        self.client = MountpointS3Client(region="us-east-1", endpoint=endpoint, force_path_style=True, throughput_target_gbps=10.0)

    def get(self, key, start, length):
        if start is None:
            stream = self.client.get_object(BUCKET, key)
        else:
            stream = self.client.get_object(BUCKET, key, start=start, end=start + length)
        return len(b"".join(stream))

    def put(self, key, data):
        stream = self.client.put_object(BUCKET, key)
        stream.write(data)
        stream.close()


class S3fs:
    module = "s3fs"

    def __init__(self, endpoint, keys):
        import s3fs

        self.fs = s3fs.S3FileSystem(key=keys[0], secret=keys[1], client_kwargs={"endpoint_url": endpoint, "region_name": "us-east-1"})

    def get(self, key, start, length):
        end = None if start is None else start + length
        return len(self.fs.cat_file(f"{BUCKET}/{key}", start=start, end=end))

    def put(self, key, data):
        self.fs.pipe_file(f"{BUCKET}/{key}", data)


CONTENDERS = {"penstock": Ours, "s3torchconnector": S3torchconnector, "obstore": Obstore, "s3fs": S3fs, "boto3": Boto3}


def plan(workload, quick, seed):
    objects, size, piece, reads = WORKLOADS[workload][1 if quick else 0]
    chance = random.Random(seed)
    wanted = []
    for number in range(reads):
        key = f"{workload if workload != 'checkpoint-save' else 'checkpoint-load'}/{number % objects:05}"
        if piece is None:
            wanted.append((key, None, size))
        else:
            wanted.append((key, chance.randrange(0, size - piece), piece))
    chance.shuffle(wanted)
    return wanted


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(contender, workload, endpoint, keys, quick, seed):
    """One run, in this process."""
    client = CONTENDERS[contender](endpoint, keys)
    wanted = plan(workload, quick, seed)
    saving = workload == "checkpoint-save"
    data = os.urandom(wanted[0][2]) if saving else b""

    def one(job):
        key, start, length = job
        began = time.perf_counter()
        if saving:
            client.put(f"saved/{contender}/{key.rsplit('/', 1)[1]}", data)
        else:
            got = client.get(key, start, length)
            if got != length:
                raise SystemExit(f"{contender}: {got} bytes of {key}, {length} were asked for")
        return time.perf_counter() - began

    one(wanted[0])
    cpu, began = cpu_seconds(), time.perf_counter()
    if workload in ONE_BY_ONE:
        times = [one(job) for job in wanted]
    else:
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as threads:
            times = list(threads.map(one, wanted))
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    total = sum(length for _, _, length in wanted)
    times.sort()
    return {
        "contender": contender,
        "workload": workload,
        "client_cpu_s_per_gb": cpu / total * 1e9,
        "mb_per_s": total / seconds / 1e6,
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[min(len(times) - 1, len(times) * 99 // 100)] * 1e3,
    }


def fill(endpoint, keys, workloads, quick):
    """The objects, put by our client, in one bucket."""
    client = Ours(endpoint, keys).client
    client.create_bucket(BUCKET)
    for workload in workloads:
        if workload == "checkpoint-save":
            continue
        objects, size, _, _ = WORKLOADS[workload][1 if quick else 0]
        body = os.urandom(size)
        for number in range(objects):
            client.put(BUCKET, f"{workload}/{number:05}", body)


def serve(binary, folder):
    """A store of this machine: its endpoint, keys and process."""
    spec = importlib.util.spec_from_file_location("penstock_processes", ROOT / "control/cli/tests/clients/conftest.py")
    os.environ["PENSTOCK_BIN"] = binary
    processes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(processes)
    store = processes.Store(folder, 6).start()
    return store.endpoint, store.keys, store


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="small shapes, one round")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS), help="only these")
    parser.add_argument("--contender", action="append", choices=list(CONTENDERS), help="only these")
    parser.add_argument("--endpoint", help="a server that is there; keys by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    parser.add_argument("--binary", default=os.environ.get("PENSTOCK_BIN", str(ROOT / "target/release/penstock")))
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--one", nargs=4, metavar=("CONTENDER", "WORKLOAD", "ENDPOINT", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        contender, workload, endpoint, seed = arguments.one
        keys = (os.environ["BENCH_KEY"], os.environ["BENCH_SECRET"])
        print(json.dumps(measure(contender, workload, endpoint, keys, arguments.quick, int(seed))))
        return
    workloads = arguments.workload or list(WORKLOADS)
    contenders = []
    for name in arguments.contender or list(CONTENDERS):
        if importlib.util.find_spec(CONTENDERS[name].module) is None:
            print(f"left out: {name} is not installed", file=sys.stderr)
        else:
            contenders.append(name)
    with tempfile.TemporaryDirectory(prefix="bench-loader-") as folder:
        store = None
        if arguments.endpoint:
            endpoint, keys = arguments.endpoint, (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        else:
            endpoint, keys, store = serve(arguments.binary, folder)
        try:
            fill(endpoint, keys, workloads, arguments.quick)
            rows = []
            environment = {**os.environ, "BENCH_KEY": keys[0], "BENCH_SECRET": keys[1]}
            for number in range(arguments.rounds or (1 if arguments.quick else 3)):
                for workload in workloads:
                    for contender in contenders:
                        command = [sys.executable, __file__, "--one", contender, workload, endpoint, str(number)]
                        done = subprocess.run(command + ["--quick"] * arguments.quick, env=environment, capture_output=True, text=True)
                        if done.returncode != 0:
                            print(f"{contender} {workload}: failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}", file=sys.stderr)
                            continue
                        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        finally:
            if store is not None:
                store.server.stop()
    medians = []
    for workload in workloads:
        for contender in contenders:
            mine = [row for row in rows if (row["contender"], row["workload"]) == (contender, workload)]
            if mine:
                figures = {name: statistics.median(row[name] for row in mine) for name in ("client_cpu_s_per_gb", "mb_per_s", "p50_ms", "p99_ms")}
                medians.append({"contender": contender, "workload": workload, **figures})
    print(f"{'workload':<16} {'contender':<18} {'CPU-s/GB':>9} {'MB/s':>9} {'p50 ms':>9} {'p99 ms':>9}")
    for row in medians:
        print(f"{row['workload']:<16} {row['contender']:<18} {row['client_cpu_s_per_gb']:>9.2f} {row['mb_per_s']:>9.0f} {row['p50_ms']:>9.2f} {row['p99_ms']:>9.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(medians, indent=1) + "\n")


if __name__ == "__main__":
    main()
