"""Golden files of foreign formats, made by the libraries that own them.

    python tools/reference/check_formats.py            # checks tests/golden/formats
    python tools/reference/check_formats.py --write    # makes them anew
    python tools/reference/check_formats.py --events FOLDER   # prints the scalars and texts of a run

The C++ tests read these files and write them again byte for byte; so what Qianli writes is what
safetensors, NumPy and TensorBoard write. Needs torch, transformers, safetensors, numpy, tensorboard.
"""
import argparse
import collections
import enum
import io
import struct
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.record_writer import RecordWriter
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "formats"
EVENTS = "events.out.tfevents.0000000001.golden"
DTYPES = ["bool", "uint8", "int8", "float8_e5m2", "float8_e4m3fn", "float8_e8m0fnu",
          "float8_e4m3fnuz", "float8_e5m2fnuz", "int16", "uint16", "float16", "bfloat16", "int32",
          "uint32", "float32", "complex64", "float64", "int64", "uint64"]
ONE_BYTE = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
            "F8_E8M0": torch.float8_e8m0fnu, "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
            "F8_E5M2FNUZ": torch.float8_e5m2fnuz}
LENGTHS = [5, 9, 3, 7, 6, 4, 8, 2, 10, 6]


def write_safetensors(path):
    tensors = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in DTYPES}
    tensors["scalar"] = torch.tensor(1.5)
    tensors["empty"] = torch.zeros(0, 4)
    tensors['quote " line \n 千'] = torch.tensor([7], dtype=torch.uint8)
    save_file(tensors, path, metadata={"format": "pt"})


def write_numbers(path):
    """Number formats: every code of the one-byte types, rounding, microscaling blocks."""
    codes = torch.arange(256).to(torch.uint8)
    tensors = {name: codes.view(dtype).float() for name, dtype in ONE_BYTE.items()}
    generator = torch.Generator().manual_seed(1)
    floats = torch.randn(2000, generator=generator) * 2.0 ** torch.arange(-40, 40).repeat(25)
    tensors |= {"floats": floats, "F16": floats.half(), "BF16": floats.bfloat16()}
    blocks = torch.randint(0, 256, (2, 18, 2, 16), generator=generator).to(torch.uint8)
    scales = torch.randint(110, 140, (2, 18, 2), generator=generator).to(torch.uint8)
    expected = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    tensors |= {"mxfp4.experts_blocks": blocks, "mxfp4.experts_scales": scales,
                "mxfp4.expected": expected.contiguous()}
    save_file(tensors, path, metadata={"format": "pt"})


class AttnBackend(enum.Enum):
    flash = 1


def write_torch(folder):
    """torch.save of this version: every type, views that share a storage, arrays of NumPy."""
    tensors = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in DTYPES}
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4), "base": base,
                "transposed": base.transpose(0, 2), "slice": base[:, 1:, ::2],
                "repeated": torch.tensor([7.0]).expand(3, 2),
                "parameter": torch.nn.Parameter(torch.tensor([1.0, 2.0]))}
    torch.save(tensors, folder / "torch_tensors.pt")
    generator = np.random.RandomState(1)
    torch.save({
        "args": argparse.Namespace(hidden_size=8, lr=1e-4, name="千", backend=AttnBackend.flash,
                                   params_dtype=torch.bfloat16, device=torch.device("cpu"),
                                   betas=(0.9, 0.95), big=2**80, negative=-2**40),
        "np_rng_state": generator.get_state(), "np_float": np.float64(0.1), "np_int": np.int32(-7),
        "columns": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "extra_state": io.BytesIO(b"state"), "size": torch.Size([2, 3]), "bytes": b"\x00\xff",
        "set": {1, 2}, "ordered": collections.OrderedDict(a=1, b=[True, None]),
        "lists": collections.defaultdict(dict, x={"w": torch.ones(2)}),
    }, folder / "torch_objects.pt")


def write_npy(folder):
    np.save(folder / "rows.npy", np.arange(8, dtype="<i4").reshape(4, 2))
    np.save(folder / "line.npy", np.arange(5, dtype="<u4") * 1000000000)
    with open(folder / "version2.npy", "wb") as file:
        np.lib.format.write_array(file, np.array([-1, 2**40], dtype="<i8"), version=(2, 0))


def write_indexed(folder):
    """Ten sequences of one document each; token k of the corpus has the value k."""
    tokens = np.arange(sum(LENGTHS), dtype="<i4")
    pointers = 4 * np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])
    (folder / "corpus.bin").write_bytes(tokens.tobytes())
    (folder / "corpus.idx").write_bytes(
        b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 4, len(LENGTHS), len(LENGTHS) + 1)
        + np.array(LENGTHS, "<i4").tobytes() + pointers.astype("<i8").tobytes()
        + np.arange(len(LENGTHS) + 1, dtype="<i8").tobytes())


def write_events(path):
    def summary(step, seconds, **value):
        return Event(wall_time=seconds, step=step, summary=Summary(value=[Summary.Value(**value)]))

    text = TensorProto(dtype=7, string_val=["**bold** 千".encode()],
                       tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]))
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for event in [Event(wall_time=1.0, file_version="brain.Event:2"),
                      summary(0, 1.5, tag="lm loss", simple_value=10.25),
                      summary(5, 2.0, tag="loss", simple_value=1.5),
                      summary(3000000000, 3.0, tag="learning-rate", simple_value=float("nan")),
                      summary(7, 4.0, tag="config", tensor=text, metadata=metadata)]:
            writer.write(event.SerializeToString())


def write_all(folder):
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "all_dtypes.safetensors")
    write_numbers(folder / "numbers.safetensors")
    write_torch(folder)
    write_npy(folder)
    write_indexed(folder)
    write_events(folder / EVENTS)


def show_events(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    for tag in events.Tags()["scalars"]:
        print(tag, [(event.step, event.value) for event in events.Scalars(tag)])
    for tag in events.Tags()["tensors"]:
        print(tag, [(event.step, event.tensor_proto.string_val) for event in events.Tensors(tag)])


def check(folder):
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name)
        write_all(fresh)
        for path in sorted(fresh.iterdir()):
            assert path.read_bytes() == (folder / path.name).read_bytes(), path.name
    assert len(load_file(folder / "all_dtypes.safetensors")) == len(DTYPES) + 3
    events = EventAccumulator(str(folder / EVENTS))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(5, 1.5)]
    print("all golden files are what the reference libraries write")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make the golden files anew")
    parser.add_argument("--events", type=Path, metavar="FOLDER", help="print a run's events")
    arguments = parser.parse_args()
    if arguments.events:
        show_events(arguments.events)
    elif arguments.write:
        write_all(GOLDEN)
    else:
        check(GOLDEN)
