"""What test_tables.py has fsspec do: `fsspec_work.py ENDPOINT KEY SECRET BUCKET`. A program, because s3fs wants another botocore."""

import os
import sys

import fsspec

MIB = 1 << 20


def main(endpoint, key, secret, bucket):
    settings = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    fs = fsspec.filesystem("s3", key=key, secret=secret, client_kwargs=settings, use_listings_cache=False)
    data = os.urandom(13 * MIB)
    with fs.open(f"{bucket}/dir/large", "wb", block_size=5 * MIB) as out:
        out.write(data)
    assert fs.cat(f"{bucket}/dir/large") == data
    with fs.open(f"{bucket}/dir/large", "rb") as source:
        source.seek(6 * MIB)
        assert source.read(100) == data[6 * MIB : 6 * MIB + 100]
    assert fs.cat_file(f"{bucket}/dir/large", start=-10) == data[-10:]
    small = ("a", "b c", "é+%")
    fs.pipe({f"{bucket}/dir/{name}": name.encode() for name in small})
    assert sorted(fs.ls(f"{bucket}/dir", detail=False)) == sorted(f"{bucket}/dir/{name}" for name in (*small, "large"))
    fs.cp(f"{bucket}/dir", f"{bucket}/copy", recursive=True)
    assert fs.cat(f"{bucket}/copy/é+%") == "é+%".encode()
    fs.mv(f"{bucket}/copy/a", f"{bucket}/moved")
    assert fs.exists(f"{bucket}/moved") and not fs.exists(f"{bucket}/copy/a")
    assert fs.info(f"{bucket}/dir/large")["size"] == len(data) and fs.isdir(f"{bucket}/dir")
    assert fs.du(f"{bucket}/dir") == len(data) + sum(len(name.encode()) for name in small)
    assert len(fs.glob(f"{bucket}/**/large")) == 2
    fs.rm([f"{bucket}/dir", f"{bucket}/copy"], recursive=True)
    assert fs.find(bucket) == [f"{bucket}/moved"], fs.find(bucket)


if __name__ == "__main__":
    main(*sys.argv[1:])
