"""Lets torch's Linux wheel be imported for work on the CPU without the gigabytes of CUDA that it links against.

The wheel of x86-64 on PyPI is built with CUDA: its libraries name CUDA's, and don't load without them. The tests use the CPU alone,
so this puts libraries of those names beside torch's own whose every function answers "no device" (100, for the runtime and
the driver alike). torch then finds no GPU, as on any machine without one. For tests only: with a GPU, install torch as usual.

Does nothing where the libraries are there, or where the wheel needs none.
"""

import pathlib
import re
import subprocess
import sys
import sysconfig
import tempfile

CUDA_LIBRARY = re.compile(r"lib(cu|nccl|nvrtc|nvshmem|nvJitLink|nvToolsExt)\S*\.so")
CUDA_FUNCTION = re.compile(r"(cu|__cuda|nccl|nvrtc|nvshmem|nvJitLink|nvtx)")
NO_DEVICE = 100


def lines(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def main():
    packages = pathlib.Path(sysconfig.get_paths()["purelib"])
    folder = packages / "torch" / "lib"
    if (packages / "nvidia").exists():
        return
    needed, wanted, defined = set(), {}, set()
    for library in folder.glob("*.so*"):
        for line in lines("readelf", "-dW", library):
            if "(NEEDED)" in line:
                needed.add(line.split("[")[1].rstrip("]"))
        for line in lines("nm", "-D", library):
            kind, name = line.split()[-2:]
            name, _, version = name.partition("@")
            if kind in "Uwv":
                wanted.setdefault(name, set()).add(version.strip("@"))
            else:
                defined.add(name)
    missing = {name for name in needed if CUDA_LIBRARY.match(name) and not (folder / name).exists()}
    if not missing:
        return
    functions = {name: set() for name in missing}
    runtime = next(name for name in missing if name.startswith("libcudart"))
    for name, versions in wanted.items():
        if name in defined or not CUDA_FUNCTION.match(name):
            continue
        version = max(versions)
        host = next((library for library in missing if library == version), runtime)
        if version == "NVSHMEM":
            host = next(library for library in missing if "nvshmem" in library)
        functions[host].add(name)
    with tempfile.TemporaryDirectory() as work:
        for library, names in functions.items():
            source, script = pathlib.Path(work, "stand_in.c"), pathlib.Path(work, "stand_in.map")
            text = ["static void *room[64];"]
            for name in sorted(names):
                value = f"(void *){NO_DEVICE}"
                if name.startswith("__cudaRegisterFatBinary"):
                    value = "room"
                elif name.endswith(("ErrorString", "ErrorName")):
                    value = '"a stand-in for CUDA: there is no device"'
                text.append(f"void *{name}(void) {{ return {value}; }}")
            source.write_text("\n".join(text))
            version = "NVSHMEM" if "nvshmem" in library else library
            script.write_text(f"{version} {{ global: *; }};\n")
            flags = ["-shared", "-fPIC", "-w", "-O1", f"-Wl,-soname,{library}", f"-Wl,--version-script,{script}"]
            subprocess.run(["cc", *flags, "-o", folder / library, source], check=True)
    subprocess.run([sys.executable, "-c", "import torch; assert not torch.cuda.is_available(); torch.ones(3).sum()"], check=True)


if __name__ == "__main__":
    main()
