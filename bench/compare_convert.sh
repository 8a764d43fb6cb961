#!/usr/bin/env bash
# Conversions beside `cp` of the same bytes, in one run on one machine: the sides in turn, several rounds, the best of
# each. Speed is in bytes of weights; memory is the most anonymous memory (mapped files are the page cache's).
#
#   bench/compare_convert.sh [ROUNDS] [FOLDER]        default 3 and a temporary folder; needs 15 GB there
#
# Needs scripts/build.sh and python3. The model is random: 2.3 GB in bf16, 16 layers of width 2048.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${QIANLI_BUILD:-$root/build}/bin/qianli
[ -x "$program" ] || { echo "[bench] expected $program. Hint: scripts/build.sh." >&2; exit 2; }
work=$(mktemp -d "${2:-${TMPDIR:-/tmp}}/convert-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
python3 - "$program" "$work" "${1:-3}" <<'PYTHON'
import json, os, pathlib, shutil, struct, subprocess, sys, threading, time

program, work, rounds = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
H, F, L, V, A, G, D = 2048, 8192, 16, 32000, 16, 8, 128


def make_model(folder):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": H, "intermediate_size": F,
        "num_hidden_layers": L, "num_attention_heads": A, "num_key_value_heads": G, "head_dim": D, "vocab_size": V,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "silu",
        "torch_dtype": "bfloat16"}))
    shapes = {"lm_head.weight": (V, H), "model.embed_tokens.weight": (V, H), "model.norm.weight": (H,)}
    for l in range(L):
        p = f"model.layers.{l}."
        shapes |= {p + "input_layernorm.weight": (H,), p + "post_attention_layernorm.weight": (H,),
                   p + "self_attn.q_proj.weight": (A * D, H), p + "self_attn.k_proj.weight": (G * D, H),
                   p + "self_attn.v_proj.weight": (G * D, H), p + "self_attn.o_proj.weight": (H, A * D),
                   p + "mlp.gate_proj.weight": (F, H), p + "mlp.up_proj.weight": (F, H), p + "mlp.down_proj.weight": (H, F)}
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2
        for n in shape:
            size *= n
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        left = offset
        while left > 0:
            left -= file.write(os.urandom(min(left, 64 << 20)))
    return offset


def anonymous_bytes(pid):
    try:
        for line in open(f"/proc/{pid}/status"):
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def run(command, target):
    """Seconds until the bytes are on disk, and the most anonymous memory."""
    shutil.rmtree(target, ignore_errors=True)
    target.unlink(missing_ok=True)
    os.sync()
    begin = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.005)
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}")
    files = [target] if target.is_file() else [f for f in target.rglob("*") if f.is_file()]
    for file in files:
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    return time.monotonic() - begin, peak


size = make_model(work / "hf")
cut = ["--to", "mcore", "--tensor", "2", "--pipeline", "2"]
run([program, "convert", work / "hf", work / "source", *cut], work / "source")
sides = {
    "cp": (["cp", work / "hf/model.safetensors", work / "copy"], work / "copy"),
    "hf -> hf": ([program, "convert", work / "hf", work / "a", "--to", "hf"], work / "a"),
    "hf -> mcore, 2 x 2": ([program, "convert", work / "hf", work / "b", *cut], work / "b"),
    "mcore, 2 x 2 -> hf": ([program, "convert", work / "source", work / "c", "--to", "hf"], work / "c"),
    "hf -> hf in fp32": ([program, "convert", work / "hf", work / "d", "--to", "hf", "--dtype", "fp32"], work / "d"),
}
best = {}
for _ in range(rounds):
    for side, (command, target) in sides.items():
        seconds, peak = run(command, target)
        known = best.get(side, (float("inf"), 0))
        best[side] = (min(seconds, known[0]), max(peak, known[1]))
        shutil.rmtree(target, ignore_errors=True)
        target.unlink(missing_ok=True)
print(f"{'side':<22}{'GB/s':>7}{'of cp':>8}{'memory':>10}")
for side, (seconds, peak) in best.items():
    print(f"{side:<22}{size / seconds / 1e9:>7.2f}{best['cp'][0] / seconds:>8.2f}{peak / 1e6:>7.0f} MB")
PYTHON
