"""Makes tests/golden/quantized.safetensors: codes and numbers of bitsandbytes.

usage: golden_quantized.py OUT_FILE

Needs bitsandbytes beside torch. Two matrices of normal numbers, [6, 100] (the last block of 64 is not full) and
[132, 128] (more than one nested block of 256), a row of zeros in each:
  X.values                                       float32
  X.nf4.codes, .absmax, .numbers                 blocks of 64
  X.nested.absmax, .nested_absmax, .offset, .numbers     double quantisation
  X.int8.codes, .absmax, .numbers                of each row
  dynamic_map [256], nf4 [16]
"""

import sys

import torch
from bitsandbytes import functional
from safetensors.torch import save_file


def matrix(rows, columns, seed):
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    values[2] = 0
    return values * torch.logspace(-3, 0, rows).unsqueeze(1)


def main():
    golden = {"dynamic_map": functional.create_dynamic_map(), "nf4": functional.get_4bit_type("nf4", device="cpu")}
    for name, values in (("small", matrix(6, 100, 1)), ("large", matrix(132, 128, 2))):
        codes, state = functional.quantize_4bit(values, blocksize=64, quant_type="nf4")
        golden |= {f"{name}.values": values, f"{name}.nf4.codes": codes.view(-1), f"{name}.nf4.absmax": state.absmax}
        golden[f"{name}.nf4.numbers"] = functional.dequantize_4bit(codes, state)
        codes, state = functional.quantize_4bit(values, blocksize=64, quant_type="nf4", compress_statistics=True)
        golden |= {f"{name}.nested.absmax": state.absmax, f"{name}.nested.nested_absmax": state.state2.absmax}
        golden[f"{name}.nested.offset"] = state.offset.view(1)
        golden[f"{name}.nested.numbers"] = functional.dequantize_4bit(codes, state)
        codes, absmax, _ = functional.int8_vectorwise_quant(values.clone())
        golden |= {f"{name}.int8.codes": codes, f"{name}.int8.absmax": absmax}
        golden[f"{name}.int8.numbers"] = functional.int8_vectorwise_dequant(codes, absmax)
    save_file({key: value.contiguous().clone() for key, value in golden.items()}, sys.argv[1])


if __name__ == "__main__":
    main()
