"""Attention of PyTorch with and without dropout, beside `kernels_bench --filter attention_`.

8 causal sequences of 1024 tokens, 8 heads of 64, float32: milliseconds of the forward pass and of
the backward pass, the least of some rounds in turn.
"""

import argparse
import time

import torch


def milliseconds(run):
    begin = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    q, k, v, grad = (torch.randn(8, 8, 1024, 64) for _ in range(4))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    best = {}
    for _ in range(arguments.rounds):
        for rate in (0.0, 0.1):
            result = []
            forward = milliseconds(
                lambda: result.append(
                    torch.nn.functional.scaled_dot_product_attention(
                        *inputs, dropout_p=rate, is_causal=True
                    )
                )
            )
            backward = milliseconds(lambda: torch.autograd.grad(result[0], inputs, grad))
            for name, value in (("forward", forward), ("backward", backward)):
                key = name, rate
                best[key] = min(best.get(key, value), value)
    for (name, rate), value in best.items():
        print(f"torch {torch.__version__} attention {name:8} dropout {rate}: {value:8.1f} ms")


if __name__ == "__main__":
    main()
