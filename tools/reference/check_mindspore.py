"""Golden checkpoints of MindSpore, and a check that MindSpore reads what Qianli writes.

    python -m venv VENV && VENV/bin/pip install mindspore==2.10.0     # an environment of its own
    VENV/bin/python tools/reference/check_mindspore.py                # reads tests/golden/formats
    VENV/bin/python tools/reference/check_mindspore.py --write        # makes the golden files anew
    VENV/bin/python tools/reference/check_mindspore.py --large FILE   # 600 MiB in two pieces, not kept
    VENV/bin/python tools/reference/check_mindspore.py --show FILE    # what MindSpore reads in it
    VENV/bin/python tools/reference/check_mindspore.py --model HF QIANLI
        # HF: a Llama-like folder; compares every tensor of HF with what MindSpore reads in
        # QIANLI/model.ckpt, written from HF with `qianli convert HF QIANLI --to mindspore`
    VENV/bin/python tools/reference/check_mindspore.py --make HF FILE.ckpt
        # saves HF with MindSpore, as MindSpore Transformers' convert_weight.py names it, for
        # `qianli convert FILE.ckpt BACK --to hf --config HF`

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


# MindSpore Transformers 1.3, mindformers/models/llama/convert_weight.py.
RENAMES = [("embed_tokens.weight", "tok_embeddings.embedding_weight"),
           (".self_attn.q_proj.", ".attention.wq."), (".self_attn.k_proj.", ".attention.wk."),
           (".self_attn.v_proj.", ".attention.wv."), (".self_attn.o_proj.", ".attention.wo."),
           (".mlp.gate_proj.", ".feed_forward.w1."), (".mlp.down_proj.", ".feed_forward.w2."),
           (".mlp.up_proj.", ".feed_forward.w3."), (".input_layernorm.", ".attention_norm."),
           (".post_attention_layernorm.", ".ffn_norm."), ("model.norm.", "model.norm_out.")]


def renamed_model(folder):
    from safetensors.numpy import load_file  # of float32 models
    model = load_file(str(folder / "model.safetensors"))
    for theirs, ours in RENAMES:
        model = {name.replace(theirs, ours): value for name, value in model.items()}
    return model


def check_model(folder, written):
    found = ms.load_checkpoint(str(written / "model.ckpt"))
    expected = renamed_model(folder)
    assert set(found) == set(expected), set(found) ^ set(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert found[name].asnumpy().tobytes() == value.tobytes(), name
    print("MindSpore", ms.__version__, "reads all", len(expected), "tensors of", written)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make the golden files anew")
    parser.add_argument("--large", type=Path, metavar="FILE", help="write 600 MiB")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print what is in a file")
    parser.add_argument("--model", type=Path, nargs=2, metavar=("HF", "QIANLI"),
                        help="compare what Qianli wrote")
    parser.add_argument("--make", type=Path, nargs=2, metavar=("HF", "FILE"),
                        help="write a model for Qianli to read")
    arguments = parser.parse_args()
    if arguments.model:
        check_model(*arguments.model)
    elif arguments.make:
        save({name: Tensor(value) for name, value in renamed_model(arguments.make[0]).items()},
             arguments.make[1])
    elif arguments.large:
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
