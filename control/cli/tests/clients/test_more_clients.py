"""Other clients that people use, each with its own way of signing, sending and listing (s3-compat.md)."""

import io
import os
import subprocess
import sys

import minio
import obstore
import obstore.store
import pyarrow
import pyarrow.fs
import pyarrow.parquet
import pytest

MIB = 1 << 20


def test_minio_py(shared_store, bucket):
    """Signed chunks, probes, deletes with Content-MD5."""
    host = shared_store.endpoint.removeprefix("http://")
    client = minio.Minio(host, *shared_store.keys, secure=False, region="us-east-1")
    data = os.urandom(23 * MIB)
    client.put_object(bucket, "big", io.BytesIO(data), len(data), part_size=5 * MIB)
    client.put_object(bucket, "unknown length", io.BytesIO(data), -1, part_size=10 * MIB)
    for key in ("big", "unknown length"):
        assert client.get_object(bucket, key).read() == data
    assert client.get_object(bucket, "big", offset=5 * MIB - 3, length=7).read() == data[5 * MIB - 3 : 5 * MIB + 4]
    assert client.stat_object(bucket, "big").size == len(data)
    from minio.commonconfig import CopySource

    client.copy_object(bucket, "copy", CopySource(bucket, "big"))
    assert client.get_object(bucket, "copy").read() == data
    from minio.deleteobjects import DeleteObject

    keys = ["\U0001f40e", "a&b<c>", "é"]
    for key in keys:
        client.put_object(bucket, key, io.BytesIO(b"x"), 1)
    assert {row.object_name for row in client.list_objects(bucket, recursive=True)} == {*keys, "big", "unknown length", "copy"}
    assert list(client.remove_objects(bucket, [DeleteObject(key) for key in keys])) == []
    assert {row.object_name for row in client.list_objects(bucket)} == {"big", "unknown length", "copy"}


def test_obstore(shared_store, bucket):
    """object_store: what polars, delta and many databases read and write through; conditional puts above all."""
    store = obstore.store.S3Store(
        bucket, endpoint=shared_store.endpoint, region="us-east-1", access_key_id=shared_store.keys[0],
        secret_access_key=shared_store.keys[1], virtual_hosted_style_request=False, client_options={"allow_http": True},
    )
    data = os.urandom(17 * MIB)
    obstore.put(store, "multi/part", data, use_multipart=True, chunk_size=5 * MIB)
    assert bytes(obstore.get(store, "multi/part").bytes()) == data
    assert bytes(obstore.get_range(store, "multi/part", start=100, length=50)) == data[100:150]
    ranges = obstore.get_ranges(store, "multi/part", starts=[0, 9 * MIB], lengths=[10, 10])
    assert [bytes(r) for r in ranges] == [data[:10], data[9 * MIB : 9 * MIB + 10]]
    made = obstore.put(store, "_delta_log/0.json", b"{}", mode="create")
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        obstore.put(store, "_delta_log/0.json", b"{}", mode="create")
    obstore.put(store, "_delta_log/0.json", b"{1}", mode={"e_tag": made["e_tag"]})
    with pytest.raises(obstore.exceptions.PreconditionError):
        obstore.put(store, "_delta_log/0.json", b"{2}", mode={"e_tag": made["e_tag"]})
    assert bytes(obstore.get(store, "_delta_log/0.json").bytes()) == b"{1}"
    listed = [row["path"] for page in obstore.list(store) for row in page]
    assert sorted(listed) == ["_delta_log/0.json", "multi/part"]
    obstore.copy(store, "multi/part", "copied")
    obstore.delete(store, ["multi/part", "copied"])
    assert [row["path"] for row in obstore.list(store).collect()] == ["_delta_log/0.json"]


def test_pyarrow(shared_store, bucket):
    """The AWS C++ SDK: chunked transfer without Content-Length, trailers, multipart for tiny files."""
    fs = pyarrow.fs.S3FileSystem(
        endpoint_override=shared_store.endpoint, access_key=shared_store.keys[0], secret_key=shared_store.keys[1], region="us-east-1"
    )
    table = pyarrow.table({"n": list(range(200_000)), "text": [f"row {n}" for n in range(200_000)]})
    for _ in range(3):
        pyarrow.parquet.write_table(table, f"{bucket}/set/rows.parquet", filesystem=fs)
        assert pyarrow.parquet.read_table(f"{bucket}/set/rows.parquet", filesystem=fs).equals(table)
    with fs.open_output_stream(f"{bucket}/large") as out:
        for n in range(12):
            out.write(bytes([n]) * MIB)
    with fs.open_input_file(f"{bucket}/large") as source:
        source.seek(5 * MIB)
        assert source.read(3) == bytes([5]) * 3
    names = {info.path for info in fs.get_file_info(pyarrow.fs.FileSelector(bucket, recursive=True))}
    assert {f"{bucket}/set/rows.parquet", f"{bucket}/large"} <= names
    fs.delete_dir_contents(bucket)
    assert fs.get_file_info(pyarrow.fs.FileSelector(bucket, recursive=True)) == []


def test_s3cmd(shared_store, bucket, tmp_path):
    """ListObjects v1, storage class headers, and its own multipart."""
    config = tmp_path / "s3cfg"
    host = shared_store.endpoint.removeprefix("http://")
    config.write_text(
        f"[default]\naccess_key = {shared_store.keys[0]}\nsecret_key = {shared_store.keys[1]}\nhost_base = {host}\n"
        f"host_bucket = {host}\nuse_https = False\nsignature_v2 = False\nmultipart_chunk_size_mb = 5\n"
    )

    def s3cmd(*arguments):
        binary = os.path.join(os.path.dirname(sys.executable), "s3cmd")
        done = subprocess.run([sys.executable, binary, "-c", config, *map(str, arguments)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"s3cmd {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(12 * MIB))
    s3cmd("put", source, f"s3://{bucket}/dir/file")
    assert f"s3://{bucket}/dir/file" in s3cmd("ls", "-r", f"s3://{bucket}")
    s3cmd("get", f"s3://{bucket}/dir/file", back)
    assert back.read_bytes() == source.read_bytes()
    s3cmd("cp", f"s3://{bucket}/dir/file", f"s3://{bucket}/copy")
    s3cmd("del", f"s3://{bucket}/dir/file")
    assert "dir" not in s3cmd("ls", f"s3://{bucket}")


def test_crt(shared_store, bucket, tmp_path):
    """The AWS CRT by s3transfer, which the AWS CLI and boto3 share (the CLI's version 1 has it and does not offer it): unsigned
    payloads with CRC64NVME trailers, parts side by side, parallel ranged reads under If-Match."""
    import botocore.session
    from s3transfer.crt import (
        BotocoreCRTCredentialsWrapper, BotocoreCRTRequestSerializer, CRTTransferManager, create_s3_crt_client,
    )

    session = botocore.session.Session()
    session.set_credentials(*shared_store.keys)
    credentials = BotocoreCRTCredentialsWrapper(session.get_credentials()).to_crt_credentials_provider()
    crt = create_s3_crt_client("us-east-1", crt_credentials_provider=credentials, use_ssl=False, part_size=5 * MIB)
    serializer = BotocoreCRTRequestSerializer(session, {"region_name": "us-east-1", "endpoint_url": shared_store.endpoint})
    sizes = {"empty": 0, "small": 1000, "large": 40 * MIB, "é b+c": 9 * MIB}
    with CRTTransferManager(crt, serializer) as manager:
        for name, size in sizes.items():
            (tmp_path / name).write_bytes(os.urandom(size))
            manager.upload(str(tmp_path / name), bucket, f"dir/{name}").result()
            manager.download(bucket, f"dir/{name}", str(tmp_path / f"{name} back")).result()
        manager.delete(bucket, "dir/small").result()
    # Not before: the result of a download is there a moment before its file has its name, which the manager's end waits for.
    for name in sizes:
        assert (tmp_path / f"{name} back").read_bytes() == (tmp_path / name).read_bytes(), name
    client = shared_store.client()
    assert [row["Key"] for row in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["dir/empty", "dir/large", "dir/é b+c"]
    stored = client.head_object(Bucket=bucket, Key="dir/large", ChecksumMode="ENABLED")
    assert stored["ChecksumType"] == "COMPOSITE" and stored["ChecksumCRC32"].endswith("-8"), "the CRT sent each part's checksum"
