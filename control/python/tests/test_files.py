"""Objects as files: written in parts, read at any place; copies and many deletes."""

import io
import os

import numpy
import pytest
from penstock import errors

from conftest import KIB, MIB


def test_a_small_file_is_one_put(client, bucket):
    with client.writer(bucket, "k", content_type="text/x", metadata={"a": "b"}) as out:
        assert out.write(b"hello ") == 6 and out.write(numpy.frombuffer(b"world", numpy.uint8)) == 5
        assert out.tell() == 11 and not list(client.list(bucket))
    info = client.head(bucket, "k")
    assert (info.size, info.content_type, info.metadata, out.result.etag) == (11, "text/x", {"a": "b"}, info.etag)
    assert "-" not in out.result.etag
    with pytest.raises(ValueError):
        out.write(b"1")
    with client.writer(bucket, "empty"):
        pass
    assert client.head(bucket, "empty").size == 0


def test_a_long_file_goes_in_parts(client, bucket):
    body = os.urandom(17 * MIB + 5)
    with client.writer(bucket, "k", part_bytes=5 * MIB) as out:
        for at in range(0, len(body), 3 * MIB + 1):
            out.write(body[at : at + 3 * MIB + 1])
    assert out.result.etag.endswith("-4")
    assert client.get(bucket, "k").tobytes() == body
    # Exactly one part is a PUT, exactly two are two.
    for parts in (1, 2):
        with client.writer(bucket, "exact", part_bytes=5 * MIB) as out:
            out.write(body[: parts * 5 * MIB])
        assert client.get(bucket, "exact").tobytes() == body[: parts * 5 * MIB]
    with pytest.raises(ValueError, match="5242880"):
        client.writer(bucket, "k", part_bytes=MIB)


def test_what_fails_in_the_middle_is_never_visible(client, bucket):
    client.put(bucket, "k", b"before")
    for written in (100, 11 * MIB):
        with pytest.raises(ZeroDivisionError):
            with client.writer(bucket, "k", part_bytes=5 * MIB) as out:
                out.write(bytes(written))
                raise ZeroDivisionError
        assert out.closed
        out = client.writer(bucket, "k", part_bytes=5 * MIB)
        out.write(bytes(written))
        out.abort()
        del out
        forgotten = client.writer(bucket, "k", part_bytes=5 * MIB)
        forgotten.write(bytes(written))
        del forgotten
        assert bytes(client.get(bucket, "k")) == b"before"
    with pytest.raises(errors.NotFound):
        with client.writer("no-such-bucket-here", "k") as out:
            out.write(b"1")


def test_reading_at_any_place(client, bucket):
    body = os.urandom(3 * MIB + 11)
    client.put(bucket, "k", body)
    reader = client.reader(bucket, "k")
    plain = io.BytesIO(body)
    assert reader.seekable() and reader.readable() and not reader.writable()
    for step in (("read", 10), ("seek", 100), ("read", 5), ("seek", -7, 2), ("read", 100), ("seek", MIB), ("read", 2 * MIB), ("seek", -5, 1), ("read", 5), ("read", 1), ("seek", 0, 2), ("read", 1), ("seek", 50), ("read", -1), ("seek", len(body) + 5), ("read", 3), ("seek", 0), ("read", -1), ("read", -1)):
        name, *arguments = step
        assert getattr(reader, name)(*arguments) == getattr(plain, name)(*arguments), step
        assert reader.tell() == plain.tell()
    small = client.reader(bucket, "k")
    small._window_bytes = 64 * KIB
    into = bytearray(MIB)
    assert small.seek(99) == 99 and small.read(10) == body[99:109]
    assert small.readinto(into) == MIB and into == body[109 : 109 + MIB]
    assert small.seek(-100, 2) and small.readinto(into) == 100 and into[:100] == body[-100:]
    assert small.readinto(into) == 0
    assert io.BufferedReader(client.reader(bucket, "k")).read() == body
    client.put(bucket, "empty", b"")
    empty = client.reader(bucket, "empty")
    assert empty.read(5) == b"" and empty.read() == b"" and empty.size == 0
    with pytest.raises(ValueError):
        reader.seek(-1)
    with pytest.raises(errors.NotFound):
        client.reader(bucket, "missing").read()


def test_a_whole_read_costs_one_request(ours, bucket_of_ours):
    client = ours.client()
    client.put(bucket_of_ours, "k", b"1" * 1000)
    before = client.stats()["requests"]
    assert client.reader(bucket_of_ours, "k").read() == b"1" * 1000
    assert client.stats()["requests"] == before + 1


def test_copies_and_many_deletes(client, bucket):
    body = os.urandom(200 * KIB)
    client.put(bucket, "a b/ü", body, metadata={"a": "b"})
    client.copy(bucket, "a b/ü", bucket, "copy")
    assert bytes(client.get(bucket, "copy")) == body and client.head(bucket, "copy").metadata == {"a": "b"}
    with pytest.raises(errors.NotFound):
        client.copy(bucket, "missing", bucket, "copy")
    for i in range(5):
        client.put(bucket, f"d{i}", b"")
    client.delete_many(bucket, [f"d{i}" for i in range(5)] + ["missing"])
    assert [entry.key for entry in client.list(bucket)] == ["a b/ü", "copy"]
    assert bucket in client.list_buckets()
    with pytest.raises(errors.PreconditionFailed):
        client.delete_bucket(bucket)
    client.delete_many(bucket, ["a b/ü", "copy"])
    client.delete_bucket(bucket)
    assert bucket not in client.list_buckets()


def test_a_body_of_pieces(client, bucket):
    client.put(bucket, "k", [b"ab", bytearray(b"cd"), numpy.frombuffer(b"ef", numpy.uint8)])
    assert bytes(client.get(bucket, "k")) == b"abcdef"
    assert bytes(client.get(bucket, "k", start=-2)) == b"ef"
    client.put(bucket, "k", [])
    assert len(client.get(bucket, "k")) == 0
