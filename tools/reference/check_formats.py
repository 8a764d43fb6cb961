"""Golden files of foreign formats, made by the libraries that own them.

    python tools/reference/check_formats.py            # checks tests/golden/formats
    python tools/reference/check_formats.py --write    # makes them anew
    python tools/reference/check_formats.py --events FOLDER   # prints the scalars and texts of a run

The C++ tests read these files and write safetensors, .npy, events and GGUF again byte for byte; so
what Qianli writes is what the libraries write. qianli.pt is the other way round: made by the C++
tests, read here by torch. Needs torch, transformers, safetensors, gguf, numpy, tensorboard.
"""
import argparse
import collections
import enum
import io
import os
import pickle
import shutil
import struct
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "formats"
EVENTS = "events.out.tfevents.0000000001.golden"
DTYPES = ["bool", "uint8", "int8", "float8_e5m2", "float8_e4m3fn", "float8_e8m0fnu",
          "float8_e4m3fnuz", "float8_e5m2fnuz", "int16", "uint16", "float16", "bfloat16", "int32",
          "uint32", "float32", "complex64", "float64", "int64", "uint64"]
ONE_BYTE = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
            "F8_E8M0": torch.float8_e8m0fnu, "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
            "F8_E5M2FNUZ": torch.float8_e5m2fnuz}
GGML_BLOCKS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
               "MXFP4"]
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


def write_packed_rows(path):
    """Experts as DeepSeek-V4 stores them: rows of two e2m1 numbers a byte, a power of two for each 32."""
    generator = torch.Generator().manual_seed(2)
    codes = torch.arange(256).to(torch.uint8).repeat(2)[torch.randperm(512, generator=generator)].reshape(8, 64)
    exponents = torch.randint(110, 140, (8, 4), generator=generator).to(torch.uint8).view(torch.float8_e8m0fnu)
    tensors = {"w1.weight": codes.view(torch.int8), "w1.scale": exponents}
    tensors["expected"] = Fp8Dequantize(hf_quantizer=None)._dequantize_one(tensors["w1.weight"], exponents, torch.float32)
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


def write_gguf(path):
    """Small, and every kind of metadata; the C++ tests write it again byte for byte."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_uint64("large", 2**40)
    writer.add_int64("negative", -7)
    writer.add_float32("llama.rope.freq_base", 10000.5)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_string("general.name", "千 li")
    writer.add_array("tokenizer.ggml.tokens", ["a", "", "千"])
    writer.add_array("tokenizer.ggml.token_type", [1, -3, 6])
    writer.add_array("tokenizer.ggml.scores", [0.5, -1.0])
    values = np.arange(192, dtype=np.float32).reshape(3, 64) - 50.5
    writer.add_tensor("f32", values)
    writer.add_tensor("f16", values[:, :5].astype(np.float16))
    for kind in [gguf.GGMLQuantizationType.BF16, gguf.GGMLQuantizationType.Q8_0]:
        writer.add_tensor(kind.name.lower(), gguf.quantize(values, kind), raw_dtype=kind)
    writer.add_tensor("vector", np.arange(7, dtype=np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf_blocks(file, expected):
    """Blocks of every kind, random bit for bit, and what gguf-py makes of them."""
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(file, "llama")
    floats = {}
    for name in GGML_BLOCKS:
        kind = gguf.GGMLQuantizationType[name]
        size, num_bytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (3, 512 // size * num_bytes), dtype=np.uint8)
        writer.add_tensor(name, blocks, raw_dtype=kind)
        with np.errstate(all="ignore"):
            floats[name] = torch.from_numpy(gguf.dequantize(blocks, kind).copy())
    rows = (random.standard_normal((8, 64)) * 10.0 ** np.arange(-6, 2)[:, None]).astype(np.float32)
    rows[0, :32] = 0
    rows[1, :32] = np.linspace(-127, 127, 32) / 2  # ties
    floats["q8_input"] = torch.from_numpy(rows)
    floats["q8_blocks"] = torch.from_numpy(gguf.quantize(rows, gguf.GGMLQuantizationType.Q8_0))
    floats["q4_blocks"] = torch.from_numpy(gguf.quantize(rows, gguf.GGMLQuantizationType.Q4_0))
    writer.add_tensor("IQ4_NL", np.zeros((1, 18), np.uint8),
                      raw_dtype=gguf.GGMLQuantizationType.IQ4_NL)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(floats, expected, metadata={"format": "pt"})


def dcp_rank(rank, folder):
    """One of four ranks: matrices cut along one axis, along both, and not at all."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29637"}
    dist.init_process_group("gloo", rank=rank, world_size=4)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("x", "y"))
    full = torch.arange(35, dtype=torch.float32).reshape(5, 7)
    dcp.save({
        "model": {"rows": distribute_tensor(full, mesh, [Shard(0), Replicate()]),
                  "columns": distribute_tensor(full.bfloat16(), mesh, [Shard(1), Replicate()]),
                  "both": distribute_tensor(full, mesh, [Shard(0), Shard(1)]),
                  "vector": distribute_tensor(full[:, 0], mesh, [Shard(0), Shard(0)])},
        "plain": full[:2], "scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3),
        "step": 7, "args": argparse.Namespace(lr=0.5)}, checkpoint_id=folder, no_dist=False)
    dist.destroy_process_group()


def write_dcp(folder):
    """A checkpoint of four ranks; Megatron's addition to the metadata is put in by hand."""
    if folder.exists():
        shutil.rmtree(folder)
    torch.multiprocessing.spawn(dcp_rank, (str(folder),), nprocs=4)
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    metadata.mcore_data = {"plain": {"nd_reformulated_orig_global_shape": (1, 2, 7)}}
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def check_written(path):
    """The C++ tests write this file byte for byte; torch must read it, mapped and restricted."""
    torch.serialization.add_safe_globals([argparse.Namespace])
    for options in [{"weights_only": True}, {"weights_only": False, "mmap": True}]:
        saved = torch.load(path, **options)
        model = saved["model"]
        assert model["tied"].data_ptr() == model["w"].data_ptr()
        for name, dtype, shape in [("w", torch.float32, (2, 3)), ("b", torch.bfloat16, (4,)),
                                   ("f8", torch.float8_e4m3fn, (3,)), ("empty", torch.float32, (0,)),
                                   ("scalar", torch.int64, ())]:
            tensor = model[name]
            assert tensor.dtype == dtype and tensor.shape == shape, name
            flat = tensor.reshape(-1).view(torch.uint8)
            assert (flat == torch.arange(len(flat))).all(), name
        assert saved["args"] == argparse.Namespace(lr=0.25)
        assert saved["more"] == [None, True, 2**40, ("千",), b"\x00\xff", torch.bfloat16]


def check_dcp(folder):
    state = {"model.both": torch.zeros(5, 7), "plain": torch.zeros(2, 7)}
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    assert (state["model.both"] == torch.arange(35.0).reshape(5, 7)).all()


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
    write_packed_rows(folder / "packed_rows.safetensors")
    write_torch(folder)
    write_gguf(folder / "small.gguf")
    write_gguf_blocks(folder / "blocks.gguf", folder / "blocks.safetensors")
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
    check_dcp(folder / "dcp")
    check_written(folder / "qianli.pt")
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
        write_dcp(GOLDEN / "dcp")
    else:
        check(GOLDEN)
