"""Golden checkpoints of MindSpore, and a check that MindSpore reads what Qianli writes.

    python -m venv VENV && VENV/bin/pip install mindspore==2.10.0     # an environment of its own
    VENV/bin/python tools/reference/check_mindspore.py                # reads tests/golden/formats
    VENV/bin/python tools/reference/check_mindspore.py --write        # makes the golden files anew
    VENV/bin/python tools/reference/check_mindspore.py --large FILE   # 600 MiB in two pieces, not kept
    VENV/bin/python tools/reference/check_mindspore.py --show FILE    # what MindSpore reads in it

The C++ tests write mindspore_crc.ckpt again byte for byte, so reading it here proves our writer.
"""
import argparse
import os
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "formats"
TYPES = ["bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
         "float16", "bfloat16", "float32", "float64"]


def tensors():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    named = {name: Tensor(values, getattr(ms, name)) for name in TYPES}
    return named | {"scalar": Tensor(1.5, ms.float32)}


def save(named, path, **options):
    path.unlink(missing_ok=True)
    ms.save_checkpoint([{"name": name, "data": data} for name, data in named.items()], str(path),
                       **options)
    os.chmod(path, 0o644)


def write_all(folder):
    save(tensors(), folder / "mindspore_crc.ckpt", crc_check=True)
    save(tensors(), folder / "mindspore_text.ckpt", append_dict={"epoch": 3, "note": "千 li"})


def check(folder):
    for name, options in [("mindspore_crc.ckpt", {"crc_check": True}), ("mindspore_text.ckpt", {})]:
        found = ms.load_checkpoint(str(folder / name), **options)
        for key, data in tensors().items():
            assert found[key].dtype == data.dtype and found[key].shape == data.shape, key
            assert (found[key].float() == data.float()).all(), key
    assert found["note"] == "千 li" and int(found["epoch"]) == 3
    print("MindSpore", ms.__version__, "reads the golden files")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make the golden files anew")
    parser.add_argument("--large", type=Path, metavar="FILE", help="write 600 MiB")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print what is in a file")
    arguments = parser.parse_args()
    if arguments.large:
        count = 600 << 18
        save({"large": Tensor(np.arange(count, dtype=np.float32).reshape(600, -1)),
              "small": Tensor(np.float32(7))}, arguments.large)
    elif arguments.show:
        for key, data in ms.load_checkpoint(str(arguments.show), crc_check=False).items():
            print(key, data.dtype, data.shape, data.asnumpy().ravel()[[0, -1]])
    elif arguments.write:
        write_all(GOLDEN)
    else:
        check(GOLDEN)
