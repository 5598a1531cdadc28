"""Datasets, loaders, checkpoints."""

import collections
import io
import os

import pytest
import torch
import torch.distributed.checkpoint as dcp
import torch.utils.data
from penstock import errors
from penstock.torch import (
    S3Checkpoint,
    S3IterableDataset,
    S3MapDataset,
    S3StorageReader,
    S3StorageWriter,
    load_safetensors,
    save_safetensors,
)

from conftest import MIB, fresh_bucket

SAMPLES = 45


def name_and_sum(reader):
    return reader.key, sum(reader.read())


def name_of(reader):
    return reader.key


@pytest.fixture
def train(client, bucket):
    """Samples, and what is to come of them."""
    expected = {}
    for i in range(SAMPLES):
        body = os.urandom(500 + i)
        client.put(bucket, f"train/{i:03}", body)
        expected[f"train/{i:03}"] = sum(body)
    client.put(bucket, "train/", b"")
    client.put(bucket, "other", b"1")
    return expected


@pytest.mark.parametrize("workers,method", [(0, None), (2, "fork"), (4, "fork"), (2, "spawn")])
def test_loaders_see_every_sample_once_an_epoch(server, client, bucket, train, workers, method):
    want = collections.Counter(train.items())
    options = {"num_workers": workers, "multiprocessing_context": method, "persistent_workers": workers > 0}
    dataset = S3MapDataset.from_prefix(f"s3://{bucket}/train/", transform=name_and_sum, **server.options())
    assert len(dataset) == SAMPLES and dataset[3] == ("train/003", train["train/003"])
    iterable = S3IterableDataset.from_prefix(f"s3://{bucket}/train/", transform=name_and_sum, **server.options())
    for loader in (
        torch.utils.data.DataLoader(dataset, batch_size=7, shuffle=True, collate_fn=list, **options),
        torch.utils.data.DataLoader(iterable, batch_size=7, collate_fn=list, **options),
    ):
        for _ in range(2):
            got = collections.Counter(sample for batch in loader for sample in batch)
            assert got == want
        del loader
    # The process that has loaders goes on.
    assert bytes(client.get(bucket, "other")) == b"1"


def test_a_batch_is_read_at_once(ours, request):
    client = ours.client()
    bucket = fresh_bucket(client, request.node.name)
    for i in range(20):
        client.put(bucket, f"k{i:02}", bytes([i]))
    dataset = S3MapDataset.from_objects([f"s3://{bucket}/k{i:02}" for i in range(20)], transform=lambda reader: reader.read(), client=client)
    before = client.stats()["requests"]
    assert dataset.__getitems__([3, 1, 19]) == [b"\3", b"\1", b"\x13"]
    assert client.stats()["requests"] == before + 3, "no HEAD, no listing"
    with pytest.raises(IndexError):
        dataset[20]
    client.delete(bucket, "k05")
    with pytest.raises(errors.NotFound, match="k05"):
        dataset.__getitems__([4, 5])
    with pytest.raises(errors.NotFound, match="k05"):
        list(S3IterableDataset.from_objects([f"s3://{bucket}/k05"], client=client))


def test_ranks_share_what_there_is(ours, request, monkeypatch):
    client = ours.client()
    bucket = fresh_bucket(client, request.node.name)
    for i in range(11):
        client.put(bucket, f"k{i:02}", b"1")
    every = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        dataset = S3IterableDataset.from_prefix(f"s3://{bucket}/", transform=name_of, client=client, shuffle=True, seed=5)
        dataset.set_epoch(2)
        mine = list(dataset)
        assert len(mine) in (3, 4)
        every += mine
    assert sorted(every) == [f"k{i:02}" for i in range(11)]
    alone = S3IterableDataset.from_prefix(f"s3://{bucket}/", transform=name_of, client=client, enable_sharding=False)
    assert list(alone) == [f"k{i:02}" for i in range(11)]


def test_shuffles_differ_by_epoch_and_repeat(client, bucket, train):
    dataset = S3IterableDataset.from_prefix(f"s3://{bucket}/train/", transform=name_of, client=client, shuffle=True)
    first = list(dataset)
    assert list(dataset) == first
    dataset.set_epoch(1)
    second = list(dataset)
    assert second != first and sorted(second) == sorted(first) == sorted(train)


def test_an_epoch_is_resumed_in_its_middle(client, bucket, train):
    def make():
        return S3IterableDataset.from_prefix(f"s3://{bucket}/train/", transform=name_of, client=client, shuffle=True, seed=1)

    whole = list(make())
    dataset = make()
    samples = iter(dataset)
    begun = [next(samples) for _ in range(17)]
    state = dataset.state_dict()
    samples.close()
    again = make()
    again.load_state_dict(state)
    assert begun + list(again) == whole
    assert list(again) == whole, "the next epoch is a whole one"
    with pytest.raises(errors.ConfigurationError, match="share"):
        again.load_state_dict({**state, "shares": 2})
    with pytest.raises(errors.ConfigurationError, match="seed"):
        S3IterableDataset.from_prefix(f"s3://{bucket}/train/", client=client).load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_is_resumed(server, client, bucket, train, workers):
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make():
        dataset = S3IterableDataset.from_prefix(f"s3://{bucket}/train/", transform=name_of, shuffle=True, **server.options())
        return StatefulDataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=list, multiprocessing_context="fork" if workers else None)

    whole = [sample for batch in make() for sample in batch]
    assert sorted(whole) == sorted(train)
    loader = make()
    batches = iter(loader)
    begun = [sample for _ in range(5) for sample in next(batches)]
    state = loader.state_dict()
    del batches
    again = make()
    again.load_state_dict(state)
    assert begun + [sample for batch in again for sample in batch] == whole


def test_datasets_of_nothing(client, bucket):
    assert len(S3MapDataset.from_prefix(f"s3://{bucket}/none/", client=client)) == 0
    assert list(S3IterableDataset.from_prefix(f"s3://{bucket}/none/", client=client)) == []
    for make in (S3MapDataset, S3IterableDataset):
        with pytest.raises(errors.ConfigurationError):
            make.from_prefix("no uri", client=client)
        with pytest.raises(errors.ConfigurationError, match="from_prefix"):
            make.from_objects("s3://b/k", client=client)
        with pytest.raises(errors.ConfigurationError):
            make.from_objects(["s3://b"], client=client)
        with pytest.raises(TypeError):
            make.from_prefix("s3://b/", client=client, endpoint="http://x")
    with pytest.raises(errors.NotFound):
        len(S3MapDataset.from_prefix("s3://no-such-bucket-here/", client=client))


def test_tensors_are_read_into(client, bucket):
    source = torch.arange(30_000, dtype=torch.float32).reshape(100, 300)
    client.put(bucket, "k", source)
    into = torch.zeros_like(source)
    assert client.get_into(bucket, "k", into) == source.numel() * 4
    assert torch.equal(into, source)
    assert client.get_into(bucket, "k", into[1], start=0) == 1200 and torch.equal(into[1], source[0])
    half = torch.zeros(5, dtype=torch.bfloat16)
    client.put(bucket, "half", torch.ones(5, dtype=torch.bfloat16))
    client.get_into(bucket, "half", half)
    assert torch.equal(half, torch.ones(5, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="contiguous"):
        client.get_into(bucket, "k", into.t())
    with pytest.raises(TypeError, match="meta"):
        client.get_into(bucket, "k", torch.zeros(5, device="meta"))
    shared = torch.from_dlpack(client.get(bucket, "half"))
    assert shared.dtype == torch.uint8 and torch.equal(shared.view(torch.bfloat16), half)
    assert torch.equal(torch.frombuffer(client.get(bucket, "k"), dtype=torch.float32), source.flatten())


def test_checkpoints(client, bucket):
    model = torch.nn.Sequential(torch.nn.Linear(700, 900), torch.nn.Linear(900, 700))
    checkpoint = S3Checkpoint(client=client, part_bytes=5 * MIB)
    with checkpoint.writer(f"s3://{bucket}/epoch-0.pt") as out:
        torch.save(model.state_dict(), out)
    with checkpoint.reader(f"s3://{bucket}/epoch-0.pt") as source:
        loaded = torch.load(source)
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ZeroDivisionError):
        with checkpoint.writer(f"s3://{bucket}/epoch-0.pt") as out:
            out.write(b"half")
            raise ZeroDivisionError
    with checkpoint.reader(f"s3://{bucket}/epoch-0.pt") as source:
        assert torch.load(source).keys() == loaded.keys()
    with pytest.raises(errors.ConfigurationError):
        checkpoint.reader("epoch-0.pt")


def state_of(seed):
    torch.manual_seed(seed)
    return {
        "weight": torch.randn(700, 900),
        "long": torch.randn(3, 1000, 1000),
        "half": torch.randn(33).to(torch.bfloat16),
        "scalar": torch.tensor(3.5),
        "none": torch.empty(0, 5),
        "transposed": torch.randn(20, 30).t(),
        "numbers": torch.arange(1000),
        "nested": {"step": 17, "name": "a run", "list": [1, 2, torch.ones(3)]},
    }


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.reshape(-1).view(torch.uint8) if a.is_contiguous() else a, b.reshape(-1).view(torch.uint8) if a.is_contiguous() else b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_distributed_checkpoints_come_back_bit_for_bit(client, bucket):
    saved = state_of(1)
    dcp.save(saved, storage_writer=S3StorageWriter(f"s3://{bucket}/step-1", client=client))
    keys = [entry.key for entry in client.list(bucket, "step-1/")]
    assert "step-1/.metadata" in keys and len(keys) == 3, keys
    loaded = state_of(2)
    addresses = {name: value.data_ptr() for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    dcp.load(loaded, storage_reader=S3StorageReader(f"s3://{bucket}/step-1/", client=client))
    assert equal(loaded, saved)
    assert all(loaded[name].data_ptr() == address for name, address in addresses.items()), "into the tensors that were there"
    with pytest.raises(dcp.api.CheckpointException, match="no checkpoint"):
        dcp.load(loaded, storage_reader=S3StorageReader(f"s3://{bucket}/step-2", client=client))


def test_a_checkpoint_is_read_in_other_shards(client, bucket):
    """Pieces of a tensor, by rows and by columns, as a run with other ranks asks for them."""
    from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, ReadItem

    whole = torch.arange(60 * 40, dtype=torch.int32).reshape(60, 40)
    dcp.save({"w": whole}, storage_writer=S3StorageWriter(f"s3://{bucket}/c", client=client))
    reader = S3StorageReader(f"s3://{bucket}/c", client=client)
    metadata = reader.read_metadata()
    reader.set_up_storage_reader(metadata, True)
    index = next(iter(metadata.storage_data))

    class Planner:
        def __init__(self, target):
            self.target = target

        def resolve_tensor(self, item):
            return self.target

        def commit_tensor(self, item, tensor):
            pass

    for rows, columns in (((10, 20), (0, 40)), ((0, 60), (7, 5)), ((59, 1), (39, 1)), ((5, 10), (3, 30))):
        target = torch.zeros(rows[1], columns[1], dtype=torch.int32)
        item = ReadItem(
            type=LoadItemType.TENSOR, dest_index=index, dest_offsets=torch.Size([0, 0]), storage_index=index,
            storage_offsets=torch.Size([rows[0], columns[0]]), lengths=torch.Size([rows[1], columns[1]]),
        )
        reader.read_data(LoadPlan([item]), Planner(target)).wait()
        assert torch.equal(target, whole[rows[0] : rows[0] + rows[1], columns[0] : columns[0] + columns[1]])


def test_checkpoints_of_torchs_own_writer_are_read(client, bucket, tmp_path):
    saved = {name: value for name, value in state_of(3).items() if name != "none"}
    dcp.save(saved, checkpoint_id=str(tmp_path / "c"))
    for path in (tmp_path / "c").iterdir():
        client.put(bucket, f"c/{path.name}", path.read_bytes())
    loaded = {name: value for name, value in state_of(4).items() if name != "none"}
    dcp.load(loaded, storage_reader=S3StorageReader(f"s3://{bucket}/c", client=client))
    assert equal(loaded, saved)


def test_safetensors(client, bucket):
    import safetensors.torch

    tensors = {name: value.contiguous() for name, value in state_of(5).items() if isinstance(value, torch.Tensor)}
    client.put(bucket, "theirs", safetensors.torch.save(tensors))
    loaded = load_safetensors(f"s3://{bucket}/theirs", client=client)
    assert equal(loaded, tensors)
    assert equal(load_safetensors(f"s3://{bucket}/theirs", names=["half"], client=client), {"half": tensors["half"]})
    save_safetensors(tensors, f"s3://{bucket}/ours", metadata={"format": "pt"}, client=client)
    assert equal(safetensors.torch.load(client.get(bucket, "ours").tobytes()), tensors)
    assert equal(load_safetensors(f"s3://{bucket}/ours", client=client), tensors)
    with pytest.raises(KeyError, match="no tensor 'missing'"):
        load_safetensors(f"s3://{bucket}/ours", names=["missing"], client=client)
    for body in (b"", b"1234567", b"\xff" * 100, (50).to_bytes(8, "little") + b"no json" * 10, (50).to_bytes(8, "little") + b"{}"):
        client.put(bucket, "bad", body)
        with pytest.raises(ValueError, match="no safetensors file"):
            load_safetensors(f"s3://{bucket}/bad", client=client)


def test_webdataset(ours, request):
    import tarfile

    import penstock.webdataset
    import webdataset

    client = ours.client()
    bucket = fresh_bucket(client, request.node.name)
    for shard in range(3):
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            for i in range(10):
                member = tarfile.TarInfo(f"{shard}-{i:03}.txt")
                member.size = 5
                tar.addfile(member, io.BytesIO(f"{shard}-{i:03}".encode()))
        client.put(bucket, f"shard-{shard:03}.tar", body.getvalue())
    penstock.webdataset.register(**ours.options())
    dataset = webdataset.WebDataset(f"penstock://{bucket}/shard-{{000..002}}.tar", shardshuffle=False).decode()
    assert [sample["txt"] for sample in dataset] == [f"{shard}-{i:03}" for shard in range(3) for i in range(10)]
    with client.writer(bucket, "written.tar") as stream, webdataset.TarWriter(stream) as out:
        out.write({"__key__": "a", "txt": "hello"})
    assert client.head(bucket, "written.tar").size > 0


def test_progress_is_told(client, bucket):
    class Bar:
        def __init__(self):
            self.total = 0

        def update(self, n):
            self.total += n

    bar = Bar()
    with client.writer(bucket, "k", progress=bar) as out:
        out.write(b"12345")
        out.write(b"678")
    assert bar.total == 8
    bar = Bar()
    assert len(client.get_many(bucket, ["k"] * 50, at_a_time=4, progress=bar)) == 50 and bar.total == 50


def test_one_import_is_changed(ours, request):
    """s3torchconnector's calls, as its documentation has them."""
    from penstock.compat.s3torchconnector import S3Checkpoint, S3ClientConfig, S3IterableDataset, S3MapDataset
    from penstock.compat.s3torchconnector.dcp import S3StorageReader, S3StorageWriter

    client = ours.client()
    bucket = fresh_bucket(client, request.node.name)
    environment = {"AWS_ACCESS_KEY_ID": ours.keys[0], "AWS_SECRET_ACCESS_KEY": ours.keys[1]}
    for i in range(5):
        client.put(bucket, f"p/{i}", bytes([i]))
    uri, region = f"s3://{bucket}/p/", "us-east-1"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        dataset = S3MapDataset.from_prefix(uri, region=region, endpoint=ours.endpoint)
        assert (dataset[2].bucket, dataset[2].key, dataset[2].read()) == (bucket, "p/2", b"\2")
        config = S3ClientConfig(part_size=8 << 20, max_attempts=3)
        iterable = S3IterableDataset.from_prefix(uri, region=region, endpoint=ours.endpoint, s3client_config=config, enable_sharding=True)
        assert [reader.read() for reader in iterable] == [bytes([i]) for i in range(5)]
        objects = S3IterableDataset.from_objects([uri + "1"], region=region, endpoint=ours.endpoint, transform=name_of)
        assert list(objects) == ["p/1"]
        checkpoint = S3Checkpoint(region=region, endpoint=ours.endpoint)
        with checkpoint.writer(uri + "c.pt") as out:
            torch.save({"a": torch.ones(3)}, out)
        with checkpoint.reader(uri + "c.pt") as source:
            assert torch.equal(torch.load(source, weights_only=True)["a"], torch.ones(3))
        state = {"w": torch.randn(5, 5)}
        dcp.save(state, storage_writer=S3StorageWriter(region, uri + "dcp", endpoint=ours.endpoint))
        loaded = {"w": torch.zeros(5, 5)}
        dcp.load(loaded, storage_reader=S3StorageReader(region, uri + "dcp", endpoint=ours.endpoint))
        assert torch.equal(loaded["w"], state["w"])
        with pytest.raises(errors.ConfigurationError, match="unsigned"):
            S3MapDataset.from_prefix(uri, region=region, s3client_config=S3ClientConfig(unsigned=True))
        with pytest.raises(errors.ConfigurationError, match="reader_constructor"):
            S3MapDataset.from_prefix(uri, region=region, reader_constructor=object())
