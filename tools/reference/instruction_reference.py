"""Differences between the samples of `qianli data prepare` and those of an independent renderer.

    instruction_reference.py build/bin/qianli TEMPLATES.json DATA TOKENIZERS [--write GOLDEN.json] [--only NAME]

TEMPLATES.json: the slot tables of the named templates. DATA: a folder with sft/ and preference/. TOKENIZERS: a folder of
folders llama2, llama3, qwen3, deepseek_v3. Every template renders, masks, cuts and packs all rows here, from the tables
and the rules of MindSpeed-LLM, tokenizes with `tokenizers`, and compares ids, masks and labels to the last token. Templates
with tokens that no tokenizer has get a copy of qwen3's to which they are added. --write keeps the ids and labels of a few
rows for the tests."""

import argparse
import gzip
import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from bisect import bisect
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

IGNORE = -100


def read_pair(prefix):
    """All sequences of a .bin/.idx pair of int32."""
    idx, data = Path(f"{prefix}.idx").read_bytes(), Path(f"{prefix}.bin").read_bytes()
    assert idx[:9] == b"MMIDIDX\0\0" and struct.unpack_from("<QB", idx, 9) == (1, 4)
    count, documents = struct.unpack_from("<QQ", idx, 18)
    lengths = struct.unpack_from(f"<{count}i", idx, 34)
    offsets = struct.unpack_from(f"<{count}q", idx, 34 + 4 * count)
    assert struct.unpack_from(f"<{documents}q", idx, 34 + 12 * count) == tuple(range(count + 1))
    return [list(struct.unpack_from(f"<{n}i", data, at)) for n, at in zip(lengths, offsets)]


class Words:
    """A tokenizer folder as the templates need it."""

    def __init__(self, folder):
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "tokenizer_config.json").read_text())
        name = lambda key: (config.get(key) or {}).get("content") if isinstance(config.get(key), dict) else config.get(key)
        ident = lambda token: self.tokenizer.token_to_id(token) if token else None
        self.bos, self.eos, self.pad = (ident(name(key)) for key in ("bos_token", "eos_token", "pad_token"))
        self.encode = lru_cache(maxsize=400000)(lambda text: tuple(self.tokenizer.encode(text, add_special_tokens=False).ids))


class Template:
    def __init__(self, table, words, thinking=None):
        self.table, self.words, self.thinking = table, words, thinking
        self.efficient = table["efficient_eos"]
        self.eos = words.tokenizer.token_to_id(table["stop_words"][0]) if table["replace_eos"] else words.eos
        self.pad = self.eos if words.pad is None else words.pad
        self.thoughts = table.get("thought_words") or ["<think>\n", "\n</think>\n\n"]

    def slot(self, name, /, **values):
        parts = []
        for part in self.table[name]:
            if "text" in part:
                text = part["text"]
                for key, value in values.items():
                    text = text.replace("{{" + key + "}}", value, 1) if key != "idx" or "{{idx}}" in part["text"] else text
                parts.append(text)
            else:
                parts.append(part)
        return parts

    def ids(self, parts):
        out = []
        for part in parts:
            if isinstance(part, str):
                out += self.words.encode(part) if part else ()
            elif "token" in part:
                out.append(self.words.tokenizer.token_to_id(part["token"]))
            else:
                ident = self.words.bos if part["special"] == "bos" else self.eos
                out += [] if ident is None else [ident]
        return out

    def tools(self, text):
        tools = json.loads(text) if text else []
        if not tools:
            return ""
        if self.table["tool_format"] in ("qwen3", "qwen"):
            lines = "".join("\n" + json.dumps(t if t.get("type") == "function" else {"type": "function", "function": t},
                                              ensure_ascii=False) for t in tools)
            return ("\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with "
                    "function signatures within <tools></tools> XML tags:\n<tools>" + lines + "\n</tools>\n\nFor each function "
                    "call, return a json object with function name and arguments within <tool_call></tool_call> XML "
                    "tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>")
        assert self.table["tool_format"] == "default", self.table["tool_format"]
        text = ""
        for tool in tools:
            args = ""
            for name, param in tool["parameters"]["properties"].items():
                required = ", required" if name in tool["parameters"].get("required", []) else ""
                enum = f", should be one of [{', '.join(param['enum'])}]" if param.get("enum") else ""
                items = f", where each item should be {param['items'].get('type', '')}" if param.get("items") else ""
                args += f"  - {name} ({param.get('type', '')}{required}): {param.get('description', '')}{enum}{items}\n"
            text += f"> Tool Name: {tool['name']}\nTool Description: {tool.get('description', '')}\nTool Args:\n{args}\n"
        names = ", ".join(tool["name"] for tool in tools)
        return (f"You have access to the following tools:\n{text}Use the following format if using a tool:\n```\nAction: tool "
                f"name (one of [{names}]).\nAction Input: the input to the tool, in a JSON format representing the kwargs (e.g. "
                "```{\"input\": \"hello world\", \"num_beams\": 5}```).\n```\n")

    def function(self, content):
        if self.table["function_kind"] == "json_tool_call":
            calls = json.loads(content)
            calls = calls if isinstance(calls, list) else [calls]
            text = "\n".join("<tool_call>\n" + json.dumps({"name": c["name"], "arguments": c["arguments"]}, ensure_ascii=False)
                             + "\n</tool_call>" for c in calls)
            return self.slot("function", content=text)
        call = json.loads(content)
        return self.slot("function", name=call["name"], arguments=json.dumps(call["arguments"], ensure_ascii=False))

    def without_thought(self, text):
        first, last = (re.escape(word.strip()) for word in self.thoughts)
        return re.sub(f"{first}.*?{last}", "", text, flags=re.DOTALL).lstrip("\n")

    def pairs(self, messages, system, tools, one_turn=False):
        """[(source, target)] in ids, uncut."""
        kind, table = self.table["class"], self.table
        messages = [dict(m) for m in messages]
        if kind == "ReasoningTemplate":
            for i in range(1, len(messages), 2):
                last = i == len(messages) - 1
                if self.thinking is False or (one_turn and not last):
                    messages[i]["content"] = self.without_thought(messages[i]["content"])
        system = (system or table["default_system"]) + self.tools(tools)
        sides = []
        for i, message in enumerate(messages):
            parts, content = [], message["content"]
            if i == 0:
                parts += self.slot("prefix")
                if system and kind == "Llama2Template":
                    content = "".join(self.slot("system", content=system)) + content
                elif system:
                    parts += self.slot("system", content=system)
            elif i % 2 == 0 and kind != "LFDefaultTemplate":
                parts += self.slot("separator")
            if message["role"] == "function":
                parts += self.function(content)
            else:
                values = {"content": content}
                if message["role"] in ("user", "observation") and kind != "Llama2Template":
                    # idx comes first in the slots; filling it in first keeps a user's "{{idx}}" as it is
                    values = {"idx": str(i // 2), "content": content}
                parts += self.slot(message["role"], **values)
            sides.append(self.ids(parts))
        if kind == "ReasoningTemplate":
            empty = list(self.words.encode("".join(self.thoughts)))
            for i in range(1, len(sides), 2):
                if any(word.strip() in messages[i]["content"] for word in self.thoughts) or (one_turn and i + 1 < len(sides)):
                    continue
                if self.thinking:
                    sides[i] = empty + sides[i]
                else:
                    sides[i - 1] = sides[i - 1] + empty
        return [(sides[i], sides[i + 1]) for i in range(0, len(sides), 2)]


def proportional(s, t, c):
    most = max(int(c * (t / (s + t))), 1)
    return min(c - min(most, t), s), min(most, t)


def two_sided(s, t, c):
    most = c if 2 * t < c else c - s if 2 * s < c else int(c * (t / (s + t)))
    t = min(most, t)
    return min(max(c - t, 0), s), t


def sft(template, row, options):
    messages, system, tools = row
    pairs = template.pairs(messages, system, tools)
    length, back = options.get("seq"), options.get("mask_history")
    rule = proportional if template.table["class"] in ("Template", "Llama2Template") else two_sided
    left = (length or 100000) - (rule is two_sided)
    cut = []
    for source, target in reversed(pairs) if back else pairs:
        if left <= 0:
            break
        s, t = rule(len(source), len(target), left)
        left -= s + t
        cut.append((source[:s], target[:t]))
    cut = cut[::-1] if back else cut
    ids, labels = [], []
    for k, (source, target) in enumerate(cut):
        if options.get("neat"):
            s, t = two_sided(len(source), len(target), length - 1)
            source, target = source[:s], target[:t]
        mask = [IGNORE] * len(source)
        if options.get("train_on_prompt"):
            mask = source
        elif template.efficient and k > 0 and not back:
            mask = [template.eos] + mask[1:]
        ids += source + target
        labels += mask + ([IGNORE] * len(target) if back and k + 1 < len(cut) else target)
    for _ in range(int(template.efficient) + bool(options.get("append_eod"))):
        ids, labels = ids + [template.eos], labels + [template.eos]
    if options.get("neat"):
        ids, labels = ids[:length - 1], labels[:length - 1]
    return ids, labels


def knapsack(lengths, capacity):
    by_length = defaultdict(list)
    for i, n in enumerate(lengths):
        by_length[n].append(i)
    numbers, bins = sorted(lengths), []
    while numbers:
        one, room = [], capacity
        while (at := bisect(numbers, room)) > 0:
            number = numbers.pop(at - 1)
            room -= number
            one.append(by_length[number].pop())
        bins.append(one)
    return bins


def expected(template, rows, options):
    """(ids, mask, labels) of every written sequence."""
    length = options.get("seq")
    samples = [sft(template, row, options) for row in rows]
    samples = [s for s in samples if not length or len(s[0]) < length]
    if not options.get("pack"):
        return [(ids, [1] * len(ids), labels) for ids, labels in samples]
    packed = []
    for one in knapsack([len(ids) for ids, _ in samples], length - 1):
        ids, mask, labels = [], [], []
        for k, i in enumerate(one):
            ids, labels = ids + samples[i][0], labels + samples[i][1]
            mask += [k + 1 if options.get("neat") else 1] * len(samples[i][0])
        fill = length - len(ids)
        packed.append((ids + [template.pad] * fill, mask + [0 if options.get("neat") else 1] * fill, labels + [IGNORE] * fill))
    return packed


def pairwise(template, rows):
    out = []
    for messages, chosen, rejected, system in rows:
        sides = [template.pairs(messages + [answer], system, "", one_turn=True) for answer in (chosen, rejected)]
        prompt = [i for s, t in sides[0][:-1] for i in s + t] + sides[0][-1][0]
        end = [template.eos] if template.efficient else []
        answers = [side[-1][1] + end for side in sides]
        out.append(tuple(x for a in answers for x in (prompt + a, [IGNORE] * len(prompt) + a)))
    return out


ROLES = {"human": "user", "gpt": "assistant", "observation": "observation", "function_call": "function", "system": "system"}


def load(path):
    rows = []
    for row in json.loads(Path(path).read_text()):
        if "instruction" in row:
            question = "\n".join(text for text in (row["instruction"], row["input"]) if text)
            rows.append(([{"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}], "", ""))
            continue
        read = lambda m: {"role": ROLES[m["from"]], "content": m["value"]}
        messages, system = [read(m) for m in row["conversations"]], ""
        if messages[0]["role"] == "system":
            system = messages.pop(0)["content"]
        if "chosen" in row:
            rows.append((messages, read(row["chosen"]), read(row["rejected"]), system))
        else:
            rows.append((messages, system, row.get("tools", "")))
    return rows


RUNS = [({}, []), ({"seq": 200}, []), ({"mask_history": True, "seq": 300}, ["--mask-history"]),
        ({"append_eod": True}, ["--append-eod"]), ({"train_on_prompt": True}, ["--train-on-prompt"]),
        ({"seq": 700, "pack": True}, ["--pack"]), ({"seq": 500, "pack": True, "neat": True}, ["--pack", "--neat-pack"])]


class Check:
    def __init__(self, qianli, work):
        self.qianli, self.work, self.bad, self.samples = qianli, Path(work), 0, 0

    def prepare(self, file, folder, name, flags, fields):
        command = [self.qianli, "data", "prepare", str(file), "--tokenizer", str(folder), "--template", name, "--output",
                   str(self.work / "out"), "--overwrite", "--bad-rows", "fail", "--json", *flags]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{result.stderr}")
        return list(zip(*(read_pair(f"{self.work}/out_packed_{field}_document") for field in fields)))

    def compare(self, what, actual, wanted):
        self.samples += len(wanted)
        wrong = [i for i, (a, w) in enumerate(zip(actual, wanted)) if tuple(map(list, a)) != tuple(map(list, w))]
        if wrong or len(actual) != len(wanted):
            self.bad += 1
            print(f"DIFFERENT {what}: {len(actual)} sequences for {len(wanted)}, wrong {wrong[:5]}")


def folder_of(source, target, tokens):
    """A tokenizer folder, unpacked; with more tokens."""
    shutil.copytree(source, target)
    packed = target / "tokenizer.json.gz"
    if packed.exists():
        (target / "tokenizer.json").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    if tokens:
        tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
        tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in tokens])
        tokenizer.save(str(target / "tokenizer.json"))
    return target


def tokens_of(tables):
    found = []
    for table in tables:
        for slot in ("prefix", "system", "user", "assistant", "observation", "function", "separator"):
            found += [part["token"] for part in table.get(slot, []) if "token" in part]
        found += table["stop_words"]
    return list(dict.fromkeys(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("qianli", "templates", "data", "tokenizers"):
        parser.add_argument(name)
    parser.add_argument("--only")
    parser.add_argument("--write")
    args = parser.parse_args()
    tables = [t for t in json.loads(Path(args.templates).read_text())["templates"] if t["class"] != "DeepSeek4Template"]
    data, golden = Path(args.data), []
    with tempfile.TemporaryDirectory() as work:
        check, source = Check(args.qianli, work), Path(args.tokenizers)
        folders = {name: folder_of(source / name, Path(work) / name, [])
                   for name in ("qwen3", "llama2", "llama3", "deepseek_v3")}
        folders["all"] = folder_of(source / "qwen3", Path(work) / "all", tokens_of(tables))
        words = {name: Words(folder) for name, folder in folders.items()}
        own = {"qwen": "qwen3", "qwen3": "qwen3", "llama2": "llama2", "llama3": "llama3", "deepseek3": "deepseek_v3"}
        files = {name: load(data / name) for name in ("sft/alpaca_en_demo.json", "sft/identity.json",
                                                      "sft/glaive_toolcall_en_demo.json", "preference/dpo_en_demo.json")}
        for table in tables:
            name = table["name"]
            if args.only and name != args.only:
                continue
            place = own.get(name, "all")
            thinkings = (None, True, False) if table["class"] == "ReasoningTemplate" else (None,)
            for file, rows in files.items():
                if file.startswith("sft/glaive") and not table["tool_format"] in ("default", "qwen3", "qwen"):
                    continue  # formats of tools that no program defines are refused
                for thinking in thinkings:
                    template = Template(table, words[place], thinking)
                    flags = ["--enable-thinking", {None: "none", True: "true", False: "false"}[thinking]]
                    if file.startswith("preference"):
                        fields = ["chosen_input_ids", "chosen_labels", "rejected_input_ids", "rejected_labels"]
                        actual = check.prepare(data / file, folders[place], name, flags, fields)
                        check.compare(f"{name} {file} {thinking}", actual, pairwise(template, rows))
                        continue
                    for options, more in RUNS if name in own or thinking is None and file != "sft/identity.json" else RUNS[:1]:
                        more = more + (["--seq-length", str(options["seq"])] if "seq" in options else [])
                        wanted = expected(template, rows, options)
                        if not wanted:
                            continue  # all are too long, which is an error
                        actual = check.prepare(data / file, folders[place], name, flags + more,
                                               ["input_ids", "attention_mask", "labels"])
                        check.compare(f"{name} {file} {thinking} {options}", actual, wanted)
                        if args.write and name in own and not options and thinking is None and file != "sft/alpaca_en_demo.json":
                            golden.append({"template": name, "tokenizer": place, "file": file, "rows": len(rows),
                                           "tokens": sum(len(a[0]) for a in actual), "first": [actual[0][0], actual[0][2]]})
            print(f"{name}: {check.samples} sequences compared so far, {check.bad} runs differ", flush=True)
    if args.write:
        Path(args.write).write_text("[" + ",\n".join(json.dumps(one) for one in golden) + "]\n")
    sys.exit(1 if check.bad else 0)


if __name__ == "__main__":
    main()
