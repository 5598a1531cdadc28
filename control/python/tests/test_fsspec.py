"""The filesystem: fsspec's own suite, against our server, and what it does not ask."""

import fsspec
import fsspec.tests.abstract as abstract
import pytest
from penstock import errors
from penstock.fsspec import PenstockFileSystem, register_as_s3

from conftest import KIB, MIB, fresh_bucket


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self, ours):
        return PenstockFileSystem(skip_instance_cache=True, **ours.options(timeout=120))

    @pytest.fixture
    def fs_path(self, ours, request):
        return fresh_bucket(ours.client(), request.node.name)

    @pytest.fixture
    def fs_join(self):
        return lambda *names: "/".join(names)

    # Folders are what keys have in common: there are no empty ones.
    @pytest.fixture
    def supports_empty_directories(self):
        return False


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    pass


@pytest.fixture
def fs(server):
    return PenstockFileSystem(skip_instance_cache=True, **server.options(timeout=120))


def test_it_is_found_by_its_entry_point(ours, bucket_of_ours):
    with fsspec.open(f"penstock://{bucket_of_ours}/a/b", "wb", **ours.options()) as out:
        out.write(b"hello")
    with fsspec.open(f"penstock://{bucket_of_ours}/a/b", "rt", **ours.options()) as source:
        assert source.read() == "hello"
    assert isinstance(fsspec.filesystem("penstock", **ours.options()), PenstockFileSystem)


def test_it_can_have_s3(ours, bucket_of_ours):
    register_as_s3()
    fs, path = fsspec.core.url_to_fs(f"s3://{bucket_of_ours}/k", **ours.options())
    assert isinstance(fs, PenstockFileSystem) and path == f"{bucket_of_ours}/k"


def test_files_and_folders(fs, bucket):
    for key in ("a/1", "a/2", "a/b/3", "c"):
        fs.pipe_file(f"{bucket}/{key}", key.encode() * 100)
    assert fs.ls(bucket, detail=False) == [f"{bucket}/a", f"{bucket}/c"]
    assert fs.ls(f"{bucket}/a", detail=False) == [f"{bucket}/a/1", f"{bucket}/a/2", f"{bucket}/a/b"]
    assert fs.ls(f"penstock://{bucket}/c", detail=False) == [f"{bucket}/c"]
    assert fs.find(bucket) == [f"{bucket}/{key}" for key in ("a/1", "a/2", "a/b/3", "c")]
    assert fs.glob(f"{bucket}/a/*") == [f"{bucket}/a/1", f"{bucket}/a/2", f"{bucket}/a/b"]
    assert fs.isdir(f"{bucket}/a") and fs.isfile(f"{bucket}/a/1") and not fs.exists(f"{bucket}/z") and fs.isdir(bucket)
    assert fs.du(bucket) == 1200 and fs.info(f"{bucket}/a/b/3")["size"] == 500
    assert fs.modified(f"{bucket}/c").year >= 2026
    assert fs.cat_file(f"{bucket}/c", 1, 5) == (b"c" * 100)[1:5] and fs.cat_file(f"{bucket}/c", -5) == b"c" * 5
    assert fs.cat_file(f"{bucket}/c", 2, -90) == b"c" * 8 and fs.cat_file(f"{bucket}/c", 5, 5) == b""
    assert fs.tail(f"{bucket}/a/1", 3) == b"a/1" and fs.head(f"{bucket}/a/1", 3) == b"a/1"
    assert fs.cat([f"{bucket}/a/1", f"{bucket}/c"]) == {f"{bucket}/a/1": b"a/1" * 100, f"{bucket}/c": b"c" * 100}
    assert fs.cat_ranges([f"{bucket}/a/1", f"{bucket}/c"], [0, 5], [3, 6]) == [b"a/1", b"c"]
    assert isinstance(fs.cat_ranges([f"{bucket}/no"], [0], [3])[0], FileNotFoundError)
    fs.mv(f"{bucket}/c", f"{bucket}/d/e")
    assert not fs.exists(f"{bucket}/c") and fs.cat(f"{bucket}/d/e") == b"c" * 100
    with pytest.raises(IsADirectoryError):
        fs.rm(f"{bucket}/a")
    fs.rm(f"{bucket}/a", recursive=True)
    assert fs.find(bucket) == [f"{bucket}/d/e"]
    with pytest.raises(FileExistsError):
        fs.pipe_file(f"{bucket}/d/e", b"", mode="create")
    with fs.open(f"{bucket}/d/e", "ab") as out:
        out.write(b"more")
    assert fs.cat(f"{bucket}/d/e") == b"c" * 100 + b"more"
    with pytest.raises(FileExistsError):
        fs.open(f"{bucket}/d/e", "xb")
    for missing in (lambda: fs.open(f"{bucket}/no"), lambda: fs.info(f"{bucket}/no"), lambda: fs.ls(f"{bucket}/no"), lambda: fs.cat(f"{bucket}/no")):
        with pytest.raises(FileNotFoundError):
            missing()


def test_long_files(fs, bucket, tmp_path):
    import os

    body = os.urandom(11 * MIB + 3)
    with fs.open(f"{bucket}/k", "wb", block_size=5 * MIB) as out:
        for at in range(0, len(body), 300 * KIB):
            out.write(body[at : at + 300 * KIB])
    fs.get_file(f"{bucket}/k", tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == body
    fs.put_file(tmp_path / "k", f"{bucket}/again")
    with fs.open(f"{bucket}/again", "rb") as source:
        source.seek(10 * MIB)
        assert source.read(100) == body[10 * MIB : 10 * MIB + 100]


def test_options_are_the_clients():
    with pytest.raises(errors.ConfigurationError):
        PenstockFileSystem("not a url", skip_instance_cache=True)
