"""Fine-tuning speed of PEFT and transformers on the CPU in float32: the peer of `qianli sft` with adapters.

usage: bench_sft.py MODEL_FOLDER ROWS.json [--program build/bin/qianli] [--batch 4] [--length 512] [--threads 2]

ROWS.json is a list of Alpaca rows. Each becomes the prompt of the Alpaca template, which is not learnt, and its answer; batches
are padded to their longest sample. A step is forward with sdpa attention, the model's loss, backward, clipping to norm 1 and
fused AdamW; adapters of rank 16 beside every linear layer but the output. One pass over the rows; the two first steps do not
count. With --program that one does the same with the same rows. Prints JSON: tokens (without padding) per second, processor seconds
per thousand of them (of the program those of the whole process), and the peak of memory.
"""

import argparse
import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench_train import WARMUP_STEPS, with_adapters

IGNORED = -100
RATE = 2e-4
PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n### Response:\n"
)


def sample_of(row, tokenizer, length):
    question = row["instruction"] + (f"\n{row['input']}" if row.get("input") else "")
    prompt = tokenizer(PROMPT.format(question), add_special_tokens=False)["input_ids"]
    answer = tokenizer(row["output"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return (prompt + answer)[:length], ([IGNORED] * len(prompt) + answer)[:length]


def padded(samples):
    longest = max(len(ids) for ids, _ in samples)
    rows = lambda k, filler: torch.tensor([s[k] + [filler] * (longest - len(s[k])) for s in samples])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in samples])
    return {"input_ids": rows(0, 0), "labels": rows(1, IGNORED), "attention_mask": mask}


def of_peft(arguments):
    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, attn_implementation="sdpa", dtype=torch.float32)
    model = with_adapters(model.train())
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    samples = [sample_of(row, tokenizer, arguments.length) for row in json.loads(arguments.rows.read_text())]
    tokens = seconds = processor = 0.0
    losses = []
    for step in range(len(samples) // arguments.batch):
        batch = samples[step * arguments.batch : (step + 1) * arguments.batch]
        begin, busy = time.perf_counter(), time.process_time()
        loss = model(**padded(batch), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step < WARMUP_STEPS:
            continue
        tokens += sum(len(ids) for ids, _ in batch)
        seconds += time.perf_counter() - begin
        processor += time.process_time() - busy
    return tokens, seconds, processor / tokens, losses, resource.RUSAGE_SELF


def of_program(arguments):
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "sft.yaml"
        config.write_text("precision: fp32\n")
        command = [arguments.program, "sft", config, f"model={arguments.model}", f"data.path={arguments.rows}",
                   "data.template=alpaca", f"data.sequence_length={arguments.length}", "data.truncation=two-sided", "train.epochs=1",
                   f"train.micro_batch_size={arguments.batch}", f"train.global_batch_size={arguments.batch}", "tune.method=lora",
                   "tune.r=16", "tune.alpha=32", f"optim.lr={RATE}", "optim.warmup_steps=0", "optim.lr_schedule=constant",
                   "optim.weight_decay=0", "device=cpu", f"run.dir={folder}/run"]  # fmt: skip
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        steps = [json.loads(line) for line in (Path(folder) / "run/metrics.jsonl").read_text().splitlines()]
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    counted = steps[WARMUP_STEPS:]
    tokens, seconds = (sum(step[key] for step in counted) for key in ("tokens", "step_seconds"))
    processor = (usage.ru_utime + usage.ru_stime) / sum(step["tokens"] for step in steps)
    return tokens, seconds, processor, [step["loss"] for step in steps], resource.RUSAGE_CHILDREN


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--program", type=Path)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    measure = of_program if arguments.program else of_peft
    tokens, seconds, processor, losses, of_whom = measure(arguments)
    result = {
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "processor_seconds_per_1000_tokens": 1000 * processor,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "peak_rss_bytes": resource.getrusage(of_whom).ru_maxrss * 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
