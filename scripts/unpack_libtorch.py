#!/usr/bin/env python3
"""Unpacks the parts of the LibTorch wheels that building and running need.

usage: unpack_libtorch.py WHEELS TARGET cpu|cuda
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
CUDA = CPU + ("torch/lib/libtorch_cuda.so", "torch/lib/libc10_cuda.so")


def main() -> None:
    wheels, target, kind = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    wanted = CUDA if kind == "cuda" else CPU
    found = set()
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                part = next((w for w in wanted if name == w or (w.endswith("/") and name.startswith(w))), None)
                if part:
                    archive.extract(name, target)  # checks the member's CRC
                    found.add(part)
    missing = [part for part in wanted if part not in found]
    if missing:
        sys.exit(f"[setup] expected {', '.join(missing)} in the wheels of {wheels}, got none.")


if __name__ == "__main__":
    main()
