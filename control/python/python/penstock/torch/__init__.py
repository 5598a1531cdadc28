"""For PyTorch: datasets, checkpoints, distributed checkpoints.

    from penstock.torch import S3MapDataset, S3IterableDataset, S3Checkpoint

    dataset = S3MapDataset.from_prefix("s3://bucket/train/", transform=decode)
    loader = torch.utils.data.DataLoader(dataset, batch_size=256, shuffle=True, num_workers=4)

A batch is read at once (``__getitems__``, 32 objects at a time), by workers that may be forked or spawned. Names are those of
s3torchconnector; `penstock.compat.s3torchconnector` is for programs that are to change one import.
"""

from .._reader import Reader as S3Reader
from .._writer import Writer as S3Writer
from .checkpoint import S3Checkpoint
from .dataset import S3IterableDataset, S3MapDataset

__all__ = [
    "S3Checkpoint",
    "S3IterableDataset",
    "S3MapDataset",
    "S3Reader",
    "S3StorageReader",
    "S3StorageWriter",
    "S3Writer",
    "load_safetensors",
    "save_safetensors",
]


def __getattr__(name: str):
    # torch.distributed takes its time to be imported.
    if name in ("S3StorageReader", "S3StorageWriter"):
        from . import dcp

        return getattr(dcp, name)
    if name in ("load_safetensors", "save_safetensors"):
        from . import safetensors

        return getattr(safetensors, name.replace("_safetensors", ""))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
