"""Generation speed of llama.cpp (the one in the package xllamacpp) on the CPU: the peer of our `generate`.

usage: bench_llamacpp.py FILE.gguf [--prompt TEXT] [--new-tokens N] [--threads N] [--repeat N] [--json]
       bench_llamacpp.py FILE.gguf --quantize-to OUT.gguf

Decoding is greedy and ignores the end token; speeds are llama.cpp's own, of the median repetition. The second form
writes a file whose layers' matrices are in Q4_0 and the others in Q8_0, by gguf-py, from one in F16, BF16 or F32.
"""

import argparse
import json
import statistics

import gguf
import numpy as np


def quantize(source, target):
    reader = gguf.GGUFReader(source)
    arch = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, arch)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        writer.add_key_value(name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    for tensor in reader.tensors:
        matrix = len(tensor.shape) > 1 and tensor.tensor_type != gguf.GGMLQuantizationType.F32
        if not matrix:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        kind = gguf.GGMLQuantizationType.Q4_0 if tensor.name.startswith("blk.") else gguf.GGMLQuantizationType.Q8_0
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, gguf.quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(arguments):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = arguments.model
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 2048, 1, True, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = arguments.threads
    params.fit_params = False
    server = xllamacpp.Server(params)
    request = {"prompt": arguments.prompt, "max_tokens": arguments.new_tokens, "temperature": 0, "ignore_eos": True,
               "cache_prompt": False}
    server.handle_completions(request)
    timings = [server.handle_completions(request)["timings"] for _ in range(arguments.repeat)]
    return {
        "peer": "llama.cpp",
        "version": xllamacpp.__version__,
        "model": arguments.model,
        "threads": arguments.threads,
        "prompt_tokens": timings[0]["prompt_n"],
        "new_tokens": timings[0]["predicted_n"],
        "prompt_tokens_per_second": statistics.median(t["prompt_per_second"] for t in timings),
        "tokens_per_second_decode": statistics.median(t["predicted_per_second"] for t in timings),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quantize-to")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.quantize_to:
        quantize(arguments.model, arguments.quantize_to)
        return
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result))
    else:
        print("{peer} {version}: prompt {prompt_tokens_per_second:.0f} tokens/s, decode {tokens_per_second_decode:.1f} "
              "tokens/s, {threads} threads".format(**result))


if __name__ == "__main__":
    main()
