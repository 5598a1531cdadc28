"""What people keep tables in: each library writes through its own S3 client, reads back, and is compared with what it wrote."""

import concurrent.futures
import os
import pathlib
import subprocess

import deltalake
import deltalake.exceptions
import duckdb
import duckdb_ext
import polars
import pyarrow
import pyarrow.compute
import pytest
import pyiceberg.catalog.sql

MIB = 1 << 20
FOLDER = pathlib.Path(__file__).resolve().parent
ROWS = 50_000


def rows(first=0, count=ROWS):
    numbers = range(first, first + count)
    return pyarrow.table({"n": list(numbers), "text": [f"row {n}" for n in numbers], "part": [n % 4 for n in numbers]})


@pytest.fixture
def options(shared_store):
    """What object_store (polars, deltalake) is told."""
    return {
        "aws_endpoint_url": shared_store.endpoint,
        "aws_access_key_id": shared_store.keys[0],
        "aws_secret_access_key": shared_store.keys[1],
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
    }


def test_fsspec(shared_store, bucket):
    """s3fs: multipart through aiobotocore, ranges, moves, recursive deletes. It wants a botocore of its own, so it has a Python of
    its own (`./dev clients` makes it)."""
    python = os.environ.get("PENSTOCK_S3FS_PYTHON") or str(FOLDER.parents[3] / "target" / "venv-s3fs" / "bin" / "python")
    script = FOLDER / "fsspec_work.py"
    arguments = [python, script, shared_store.endpoint, *shared_store.keys, bucket]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_duckdb(shared_store, bucket):
    """httpfs: many small ranged reads of Parquet, globs, partitioned writes."""
    host = shared_store.endpoint.removeprefix("http://")
    with duckdb_ext.init(duckdb.connect()) as db:
        db.execute("LOAD httpfs")
        db.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID '{shared_store.keys[0]}', SECRET '{shared_store.keys[1]}', REGION 'us-east-1', "
            f"ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false)"
        )
        db.execute(f"CREATE TABLE numbers AS SELECT range AS n, 'row ' || range AS text, range % 4 AS part FROM range({ROWS * 4})")
        db.execute(f"COPY numbers TO 's3://{bucket}/numbers.parquet' (FORMAT parquet, ROW_GROUP_SIZE 10000)")
        db.execute(f"COPY numbers TO 's3://{bucket}/parts' (FORMAT parquet, PARTITION_BY (part))")
        db.execute(f"COPY numbers TO 's3://{bucket}/numbers.csv' (HEADER)")
        want = db.execute("SELECT count(*), sum(n), count(DISTINCT text) FROM numbers").fetchone()
        for source in ("numbers.parquet", "parts/*/*.parquet", "numbers.csv"):
            got = db.execute(f"SELECT count(*), sum(n), count(DISTINCT text) FROM 's3://{bucket}/{source}'").fetchone()
            assert got == want, source
        assert db.execute(f"SELECT text FROM 's3://{bucket}/numbers.parquet' WHERE n = 123456").fetchall() == [("row 123456",)]
        assert db.execute(f"SELECT count(*) FROM glob('s3://{bucket}/parts/**')").fetchone()[0] >= 4


def test_polars(bucket, options):
    """object_store again, with polars' own way of uploading: CRC64NVME headers, unsigned payloads."""
    frame = polars.from_arrow(rows())
    frame.write_parquet(f"s3://{bucket}/frame.parquet", storage_options=options)
    assert polars.read_parquet(f"s3://{bucket}/frame.parquet", storage_options=options).equals(frame)
    lazy = polars.scan_parquet(f"s3://{bucket}/frame.parquet", storage_options=options)
    assert lazy.filter(polars.col("n") > ROWS - 11).select(polars.len()).collect().item() == 10
    lazy.with_columns(twice=polars.col("n") * 2).sink_parquet(f"s3://{bucket}/sunk/twice.parquet", storage_options=options)
    frame.write_csv(f"s3://{bucket}/sunk/frame.csv", storage_options=options)
    assert polars.scan_csv(f"s3://{bucket}/sunk/*.csv", storage_options=options).collect().equals(frame)
    twice = polars.scan_parquet(f"s3://{bucket}/sunk/*.parquet", storage_options=options).select(polars.col("twice").sum()).collect()
    assert twice.item() == ROWS * (ROWS - 1)


def test_deltalake_loses_no_commit(bucket, options, s3):
    """Writers that commit at the same time: each commit is a conditional PUT, and every one that was acknowledged is there."""
    uri = f"s3://{bucket}/table"
    deltalake.write_deltalake(uri, rows(count=10), storage_options=options)
    writers, commits = 6, 5

    def write(writer):
        for commit in range(commits):
            first = 1_000_000 * (writer + 1) + 1000 * commit
            for _ in range(50):
                try:
                    deltalake.write_deltalake(uri, rows(first, 10), mode="append", storage_options=options)
                    break
                except deltalake.exceptions.CommitFailedError:
                    # Lost to others more often than the library tries: nothing was written.
                    continue
            else:
                raise AssertionError("no commit in 50 tries")

    with concurrent.futures.ThreadPoolExecutor(writers) as pool:
        for done in [pool.submit(write, writer) for writer in range(writers)]:
            done.result(300)
    table = deltalake.DeltaTable(uri, storage_options=options)
    numbers = sorted(pyarrow.table(table.to_pyarrow_table())["n"].to_pylist())
    want = [*range(10)]
    want += [1_000_000 * (w + 1) + 1000 * c + n for w in range(writers) for c in range(commits) for n in range(10)]
    assert numbers == sorted(want), "a commit was lost or made twice"
    assert table.version() == writers * commits
    log = [row["Key"] for row in s3.list_objects_v2(Bucket=bucket, Prefix="table/_delta_log/")["Contents"]]
    assert len([key for key in log if key.endswith(".json")]) == writers * commits + 1
    table.delete("n >= 1000000")
    table.optimize.compact()
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert sorted(deltalake.DeltaTable(uri, storage_options=options).to_pyarrow_table()["n"].to_pylist()) == [*range(10)]


def test_pyiceberg(shared_store, bucket, tmp_path):
    """Manifests, snapshots and data files through pyarrow's S3; the catalog is a local SQLite file."""
    catalog = pyiceberg.catalog.sql.SqlCatalog(
        "tests",
        **{
            "uri": f"sqlite:///{tmp_path}/catalog.db",
            "warehouse": f"s3://{bucket}/warehouse",
            "s3.endpoint": shared_store.endpoint,
            "s3.access-key-id": shared_store.keys[0],
            "s3.secret-access-key": shared_store.keys[1],
            "s3.region": "us-east-1",
        },
    )
    catalog.create_namespace("space")
    data = rows()
    table = catalog.create_table("space.numbers", schema=data.schema)
    table.append(data)
    table.append(rows(ROWS, 1000))
    assert table.scan().to_arrow().num_rows == ROWS + 1000
    assert table.scan(row_filter="n >= 50990").to_arrow()["n"].to_pylist() == [*range(50_990, 51_000)]
    table.delete("n < 50000")
    read = catalog.load_table("space.numbers")
    assert sorted(read.scan().to_arrow()["n"].to_pylist()) == [*range(50_000, 51_000)]
    before = read.snapshots()[1].snapshot_id
    assert read.scan(snapshot_id=before).to_arrow().num_rows == ROWS + 1000, "an older snapshot is still there"
    catalog.purge_table("space.numbers")


def test_s3torchconnector(shared_store, bucket, monkeypatch):
    """Mountpoint's client over the AWS CRT, without torch: streamed multipart uploads, prefetching reads."""
    from s3torchconnectorclient import S3Exception
    from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", shared_store.keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", shared_store.keys[1])
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = MountpointS3Client(region="us-east-1", user_agent_prefix="tests", endpoint=shared_store.endpoint, force_path_style=True)
    data = os.urandom(21 * MIB)
    for key, bytes_ in (("shard/large", data), ("shard/small", b"x"), ("shard/empty", b"")):
        stream = client.put_object(bucket, key)
        for at in range(0, len(bytes_), 3 * MIB):
            stream.write(bytes_[at : at + 3 * MIB])
        stream.close()
        assert b"".join(client.get_object(bucket, key)) == bytes_
    assert client.head_object(bucket, "shard/large").size == len(data)
    client.copy_object(bucket, "shard/small", bucket, "copied")
    listed = [info.key for page in client.list_objects(bucket) for info in page.object_info]
    assert sorted(listed) == ["copied", "shard/empty", "shard/large", "shard/small"]
    client.delete_object(bucket, "copied")
    with pytest.raises(S3Exception):
        list(client.get_object(bucket, "copied"))
