#!/usr/bin/env python3
"""Unpacks the parts of Python wheels that building and running need.

usage: unpack_wheels.py TARGET KIND WHEELS ...

KIND: of LibTorch cpu; cuda, with what building the CUDA library needs; gpu, with all that a GPU needs at run
time. arrow: the reader of Parquet and Arrow files.
"""

import pathlib
import sys
import zipfile

CPU = (
    "torch/include/",
    "torch/lib/libc10.so",
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libgomp.so.1",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
)
CUDA = CPU + ("torch/lib/libtorch_cuda.so", "torch/lib/libc10_cuda.so", "nvidia/nccl/include/nccl.h")
# libtorch_cuda finds its neighbours in these folders; linear algebra and compilation come on first use.
GPU = CUDA + (
    "torch/lib/libtorch_cuda_linalg.so",
    "torch/lib/libcaffe2_nvrtc.so",
    "nvidia/cu13/lib/",
    "nvidia/cudnn/lib/",
    "nvidia/cusparselt/lib/",
    "nvidia/nccl/lib/",
    "nvidia/nvshmem/lib/",
)
ARROW = ("pyarrow/include/", "pyarrow/libarrow.so.", "pyarrow/libparquet.so.")
KINDS = {"cpu": CPU, "cuda": CUDA, "gpu": GPU, "arrow": ARROW}


def main() -> None:
    target, wanted = pathlib.Path(sys.argv[1]), KINDS[sys.argv[2]]
    folders = [pathlib.Path(folder) for folder in sys.argv[3:]]
    found = set()
    for wheel in sorted(wheel for folder in folders for wheel in folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                part = next((w for w in wanted if name == w or (w[-1] in "/." and name.startswith(w))), None)
                if part:
                    archive.extract(name, target)  # checks the member's CRC
                    found.add(part)
    missing = [part for part in wanted if part not in found]
    if missing:
        sys.exit(f"[setup] expected {', '.join(missing)} in the wheels of {', '.join(map(str, folders))}, got none.")


if __name__ == "__main__":
    main()
