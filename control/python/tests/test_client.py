"""The client's operations, against both servers."""

import asyncio
import os
import pickle
import subprocess
import sys
import threading

import numpy
import penstock
import pytest
from penstock import errors

from conftest import KIB, MIB, fresh_bucket


def test_objects_come_back_as_they_went(client, bucket):
    for length in (0, 1, 110 * KIB, 5 * MIB + 3):
        body = os.urandom(length)
        done = client.put(bucket, "a/key", body, content_type="text/x", metadata={"Owner": "me"})
        assert len(done.etag) >= 32
        read = client.get(bucket, "a/key")
        assert (len(read), bytes(read), read.tobytes()) == (length, body, body)
        info = client.head(bucket, "a/key")
        assert (info.size, info.etag, info.content_type, info.metadata) == (length, done.etag, "text/x", {"owner": "me"})
        assert info.crc64 in (None, done.crc64)
    assert bytes(client.get(bucket, "a/key", start=1000, length=50)) == body[1000:1050]
    assert bytes(client.get(bucket, "a/key", start=length - 10)) == body[-10:]
    assert bytes(client.get(bucket, "a/key", start=length - 10, length=100)) == body[-10:]
    client.delete(bucket, "a/key")
    client.delete(bucket, "a/key")
    with pytest.raises(errors.NotFound) as gone:
        client.get(bucket, "a/key")
    assert gone.value.code == "NoSuchKey" and gone.value.status == 404 and not gone.value.retryable
    assert "a/key" in str(gone.value)


def test_everything_that_is_memory_can_be_sent(client, bucket):
    array = numpy.arange(1000, dtype=numpy.float64).reshape(10, 100)
    body = array.tobytes()
    for data in (body, bytearray(body), memoryview(body), array, client_buffer(client, bucket, body)):
        client.put(bucket, "k", data)
        assert bytes(client.get(bucket, "k")) == body
    client.put(bucket, "k", (array.ctypes.data, array.nbytes))
    assert bytes(client.get(bucket, "k")) == body
    with pytest.raises(TypeError, match="encode"):
        client.put(bucket, "k", "text")
    with pytest.raises(TypeError, match="int"):
        client.put(bucket, "k", 5)
    with pytest.raises(ValueError, match="contiguous"):
        client.put(bucket, "k", array[:, ::2])


def client_buffer(client, bucket, body):
    client.put(bucket, "buffer", body)
    return client.get(bucket, "buffer")


def test_buffers_are_memory_that_others_see(client, bucket):
    body = os.urandom(300 * KIB)
    client.put(bucket, "k", body)
    read = client.get(bucket, "k")
    assert read.address % 4096 == 0
    view = memoryview(read)
    assert not view.readonly and view.format == "B" and view.nbytes == len(body)
    array = numpy.frombuffer(read, dtype=numpy.uint32)
    array[0] = 7
    assert bytes(view[:4]) == (7).to_bytes(4, sys.byteorder)
    shared = numpy.from_dlpack(read)
    assert shared.ctypes.data == read.address and shared.flags.writeable
    del read, view, array
    # The memory stays as long as somebody sees it.
    again = [client.get(bucket, "k") for _ in range(4)]
    assert shared[4:].tobytes() == body[4:]
    assert all(bytes(one) == body for one in again)
    capsule = again[0].__dlpack__()
    del capsule


def test_memory_is_used_again(ours, request):
    client = ours.client()
    bucket = fresh_bucket(client, request.node.name)
    client.put(bucket, "k", os.urandom(3 * MIB))
    assert len({client.get(bucket, "k").address for _ in range(8)}) <= 2


def test_reads_into_memory_that_is_there(client, bucket):
    body = os.urandom(400 * KIB)
    client.put(bucket, "k", body)
    for into in (bytearray(len(body)), numpy.zeros(len(body) // 4, numpy.float32), memoryview(bytearray(len(body)))):
        assert client.get_into(bucket, "k", into) == len(body)
        assert bytes(memoryview(into).cast("B")) == body
    array = numpy.zeros((100, 10), numpy.uint8)
    assert client.get_into(bucket, "k", array, start=77) == 1000
    assert array.tobytes() == body[77:1077]
    assert client.get_into(bucket, "k", (array.ctypes.data, 500), start=5) == 500
    assert array.tobytes() == body[5:505] + body[577:1077]
    parts = [bytearray(10), bytearray(20), numpy.zeros(30, numpy.int8)]
    assert client.get_ranges_into(bucket, "k", [(0, parts[0]), (300 * KIB, parts[1]), (9, parts[2])]) == 60
    assert parts[0] == body[:10] and parts[1] == body[300 * KIB : 300 * KIB + 20] and parts[2].tobytes() == body[9:39]


def test_destinations_that_are_none_are_refused(client, bucket):
    client.put(bucket, "k", b"12345")
    frozen = numpy.zeros(5, numpy.uint8)
    frozen.flags.writeable = False
    for into in (b"00000", frozen, memoryview(b"00000")):
        with pytest.raises(ValueError, match="read-only"):
            client.get_into(bucket, "k", into)
    with pytest.raises(ValueError, match="contiguous"):
        client.get_into(bucket, "k", numpy.zeros(10, numpy.uint8)[::2])
    for into in ("00000", 5, None, [0] * 5, (0, 5, 1, 1), ("0", 5)):
        with pytest.raises(TypeError):
            client.get_into(bucket, "k", into)
    with pytest.raises(ValueError, match="null"):
        client.get_into(bucket, "k", (0, 5))
    for length in (0, 4, 6):
        with pytest.raises(errors.WrongSize, match=f"{length}.*5|5.*{length}"):
            client.get_into(bucket, "k", bytearray(length))
    with pytest.raises(ValueError):
        client.get_into(bucket, "k", bytearray(6), start=0)
    with pytest.raises(errors.WrongSize):
        client.get_into(bucket, "k", bytearray(6), start=5)


def test_many_at_a_time(client, bucket):
    bodies = {f"k{i:03}": os.urandom(i * 700) for i in range(60)}
    for key, body in bodies.items():
        client.put(bucket, key, body)
    keys = sorted(bodies, reverse=True)
    assert [bytes(one) for one in client.get_many(bucket, keys)] == [bodies[key] for key in keys]
    uris = [f"s3://{bucket}/{key}" for key in keys[:5]]
    assert [bytes(one) for one in client.get_many(None, uris, at_a_time=2)] == [bodies[key] for key in keys[:5]]
    ranges = [("k059", 0, 10), ("k050", 5, None), "k001"]
    assert [bytes(one) for one in client.get_many(bucket, ranges)] == [bodies["k059"][:10], bodies["k050"][5:], bodies["k001"]]
    with pytest.raises(errors.NotFound, match="missing"):
        client.get_many(bucket, [*keys, "missing"])
    some = client.get_many(bucket, ["k001", "missing"], errors="return")
    assert bytes(some[0]) == bodies["k001"] and isinstance(some[1], errors.NotFound)
    assert client.get_many(bucket, []) == []


def test_blocks_by_address(client, bucket):
    blocks = {f"kv/{i}": os.urandom(64 * KIB) for i in range(8)}
    for key, block in blocks.items():
        client.put(bucket, key, block)
    arena = numpy.zeros((9, 64 * KIB), numpy.uint8)
    keys = [*blocks, "kv/missing"]
    ptrs = [arena[i].ctypes.data for i in range(9)]
    sizes = [64 * KIB] * 9
    assert client.batch_get_into(keys, ptrs, sizes, bucket=bucket) == [64 * KIB] * 8 + [-1]
    assert all(arena[i].tobytes() == block for i, block in enumerate(blocks.values()))
    assert client.batch_get_into([f"s3://{bucket}/kv/0"], ptrs[:1], sizes[:1]) == [64 * KIB]
    with pytest.raises(errors.WrongSize):
        client.batch_get_into(keys[:1], ptrs[:1], [64 * KIB - 1], bucket=bucket)
    with pytest.raises(ValueError, match="as many"):
        client.batch_get_into(keys, ptrs, sizes[:1], bucket=bucket)


def test_listings(client, bucket):
    keys = sorted(["a/1", "a/2", "a/b/3", "b", "ü &<", "c/4"], key=lambda key: key.encode())
    for key in keys:
        client.put(bucket, key, key.encode())
    assert [entry.key for entry in client.list(bucket)] == keys
    assert [(entry.key, entry.size) for entry in client.list(bucket, "a/")] == [("a/1", 3), ("a/2", 3), ("a/b/3", 5)]
    rolled = [(entry.key, entry.is_prefix) for entry in client.list(bucket, delimiter="/")]
    assert rolled == [("a/", True), ("b", False), ("c/", True), ("ü &<", False)]
    assert [entry.key for entry in client.list(bucket, start_after="a/b/3")] == ["b", "c/4", "ü &<"]
    assert list(client.list(bucket, "nothing")) == []


def test_listings_go_on_from_page_to_page(client, bucket, monkeypatch):
    keys = [f"{folder}/{i}" for folder in "abcdefgh" for i in range(3)]
    for key in keys:
        client.put(bucket, key, b"")
    monkeypatch.setattr(penstock._base, "LIST_PAGE", 2)
    assert [entry.key for entry in client.list(bucket)] == keys
    assert [entry.key for entry in client.list(bucket, delimiter="/")] == [f"{folder}/" for folder in "abcdefgh"]


def test_conditions(client, bucket):
    first = client.put(bucket, "k", b"1", if_none_match=True)
    with pytest.raises(errors.PreconditionFailed):
        client.put(bucket, "k", b"2", if_none_match=True)
    assert bytes(client.get(bucket, "k")) == b"1"
    assert first.etag == client.head(bucket, "k").etag


def test_long_bodies_go_in_parts(server, request):
    client = server.client(part_bytes=5 * MIB)
    bucket = fresh_bucket(client, request.node.name)
    body = os.urandom(12 * MIB)
    done = client.put(bucket, "k", body)
    assert done.etag.endswith("-3")
    assert client.get(bucket, "k").tobytes() == body


def test_urls(client, bucket):
    import urllib.request

    client.put(bucket, "a b", b"hello")
    with urllib.request.urlopen(client.presign(bucket, "a b", expires=60), timeout=30) as answer:
        assert answer.read() == b"hello"
    with pytest.raises(ValueError):
        client.presign(bucket, "a b", expires=0)
    with pytest.raises(TypeError):
        client.presign(bucket, "a b", method="POST")


def test_statistics_say_what_went_which_way(ours, request):
    client = ours.client()
    bucket = fresh_bucket(client, request.node.name)
    body = os.urandom(3 * MIB)
    client.put(bucket, "k", body)
    client.get(bucket, "k")
    stats = client.stats()
    assert stats["read_bytes"] == {"tcp": 3 * MIB} and stats["by_plan"] == 2 and stats["fallbacks"] == {}
    plain = ours.client(transport="http")
    plain.get(bucket, "k")
    assert plain.stats()["read_bytes"] == {"http": 3 * MIB}


def test_rdma_is_required_and_not_there(moto, request, monkeypatch):
    client = moto.client()
    bucket = fresh_bucket(client, request.node.name)
    client.put(bucket, "k", b"1" * MIB)
    # The machine that this runs on may have a device: this process does without.
    monkeypatch.setenv("PENSTOCK_RDMA_DEVICE", "none")
    for options in ({"transport": "rdma"}, {"require_rdma": True}):
        with pytest.raises(errors.RdmaRequired, match="transport="):
            moto.client(**options).get(bucket, "k")
    with pytest.raises(errors.ConfigurationError):
        moto.client(transport="http", require_rdma=True)


def test_many_threads_use_one_client(client, bucket):
    bodies = {f"k{i}": os.urandom(50 * KIB + i) for i in range(24)}
    for key, body in bodies.items():
        client.put(bucket, key, body)
    wrong = []

    def work(seed):
        for i in range(24):
            key = f"k{(i * 7 + seed) % 24}"
            if bytes(client.get(bucket, key)) != bodies[key]:
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_client_can_be_pickled(client, bucket):
    client.put(bucket, "k", b"1")
    assert bytes(pickle.loads(pickle.dumps(client)).get(bucket, "k")) == b"1"
    assert client._options["secret_key"] not in repr(client)


def test_asyncio(server, bucket):
    async def work():
        client = server.async_client(timeout=120)
        bodies = {f"k{i}": os.urandom(30 * KIB + i) for i in range(16)}
        await asyncio.gather(*(client.put(bucket, key, body, metadata={"a": "b"}) for key, body in bodies.items()))
        read = await asyncio.gather(*(client.get(bucket, key) for key in bodies))
        assert [bytes(one) for one in read] == list(bodies.values())
        assert [bytes(one) for one in await client.get_many(bucket, list(bodies))] == list(bodies.values())
        into = bytearray(30 * KIB + 3)
        assert await client.get_into(bucket, "k3", into) == len(into) and into == bodies["k3"]
        parts = [bytearray(5), bytearray(6)]
        assert await client.get_ranges_into(bucket, "k3", [(0, parts[0]), (9, parts[1])]) == 11
        assert parts[1] == bodies["k3"][9:15]
        block = numpy.zeros(len(into), numpy.uint8)
        assert await client.batch_get_into(["k3", "no"], [block.ctypes.data] * 2, [len(into)] * 2, bucket=bucket) == [len(into), -1]
        assert (await client.head(bucket, "k3")).metadata == {"a": "b"}
        assert sorted([entry.key async for entry in client.list(bucket)]) == sorted(bodies)
        assert "X-Amz-Signature" in await client.presign(bucket, "k3")
        await client.delete(bucket, "k3")
        with pytest.raises(errors.NotFound):
            await client.get(bucket, "k3")
        with pytest.raises(ValueError, match="read-only"):
            await client.get_into(bucket, "k4", b"1")
        assert client.stats()["requests"] > 0

    asyncio.run(work())


def test_names_of_objects():
    from penstock._uri import split_object

    assert split_object("s3://b/a/b c") == ("b", "a/b c")
    assert split_object("penstock://b/k") == ("b", "k")
    for bad in ("b/k", "s3://", "s3://b", "s3:///k", "http://b/k"):
        with pytest.raises(errors.ConfigurationError):
            split_object(bad)


def test_importing_it_needs_nothing_else():
    """No numpy, no torch, no RDMA or CUDA library."""
    code = (
        "import sys, penstock\n"
        "assert not {'numpy', 'torch', 'fsspec'} & set(sys.modules), sys.modules.keys()\n"
        "maps = open('/proc/self/maps').read()\n"
        "assert not any(name in maps for name in ('ibverbs', 'rdmacm', 'libcuda', 'libcudart')), maps\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
