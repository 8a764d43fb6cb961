"""Compares the samples of `qianli data prepare` with those of an independent renderer, to the last id and label.

    check_instruction.py build/bin/qianli TEMPLATES.json DATA TOKENIZERS [--write GOLDEN.json] [--quick] [--jobs N] [--only NAME…]

TEMPLATES.json: the slot tables of the named templates. DATA: a folder with sft/ and preference/. TOKENIZERS: a folder of
folders llama2, llama3, qwen3, deepseek_v3. Every named template renders, masks, cuts and packs all rows of every file under
many sets of options (instruction_reference.py); the tokenizers' own templates are rendered by transformers; the handlers of
old, those of pretraining data and mixed data sets follow. Templates with tokens that no tokenizer has get a copy of qwen3's
to which they are added. Prints a table: samples compared and equal, by template and file. --write keeps the ids and labels
of a few rows for the tests."""

import argparse
import concurrent.futures
import gzip
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from instruction_reference import IGNORE, LEGACY, PRETRAIN, Template, Words, expected, load, pairwise

FILES = ("sft/alpaca_en_demo.json", "sft/identity.json", "sft/glaive_toolcall_en_demo.json", "preference/dpo_en_demo.json")
SFT, PAIR = ["input_ids", "attention_mask", "labels"], ["chosen_input_ids", "chosen_labels", "rejected_input_ids", "rejected_labels"]
# The tokenizers that templates belong to.
OWN = {"qwen": "qwen3", "qwen3": "qwen3", "llama2": "llama2", "llama3": "llama3", "deepseek3": "deepseek_v3",
       "deepseek4": "deepseek_v3"}
RUNS = [({}, []), ({"seq": 200}, []), ({"mask_history": True}, ["--mask-history"]),
        ({"mask_history": True, "seq": 300}, ["--mask-history"]), ({"append_eod": True}, ["--append-eod"]),
        ({"train_on_prompt": True}, ["--train-on-prompt"]), ({"train_on_prompt": True, "seq": 250}, ["--train-on-prompt"]),
        ({"seq": 700, "pack": True}, ["--pack"]), ({"seq": 500, "pack": True, "neat": True}, ["--pack", "--neat-pack"]),
        ({"seq": 150, "cut": "two-sided"}, ["--truncation", "two-sided"]),
        ({"seq": 150, "cut": "proportional", "append_eod": True}, ["--truncation", "proportional", "--append-eod"]),
        ({"seq": 150, "cut": "drop"}, ["--truncation", "drop"]),
        ({"seq": 180, "cut": "two-sided", "mask_history": True}, ["--truncation", "two-sided", "--mask-history"]),
        ({"system": ""}, ["--default-system", ""]), ({"system": "Be brief."}, ["--default-system", "Be brief."])]


def read_pair(prefix):
    """All sequences of a .bin/.idx pair."""
    idx, data = Path(f"{prefix}.idx").read_bytes(), Path(f"{prefix}.bin").read_bytes()
    assert idx[:9] == b"MMIDIDX\0\0" and struct.unpack_from("<Q", idx, 9) == (1,)
    code, size = {4: ("i", 4), 8: ("H", 2)}[idx[17]]
    count, documents = struct.unpack_from("<QQ", idx, 18)
    lengths = struct.unpack_from(f"<{count}i", idx, 34)
    offsets = struct.unpack_from(f"<{count}q", idx, 34 + 4 * count)
    assert struct.unpack_from(f"<{documents}q", idx, 34 + 12 * count) == tuple(range(count + 1))
    assert not count or offsets[-1] + size * lengths[-1] == len(data)
    return [list(struct.unpack_from(f"<{n}{code}", data, at)) for n, at in zip(lengths, offsets)]


class Check:
    def __init__(self, qianli, work):
        self.qianli, self.work, self.bad = qianli, Path(work), 0
        self.counts = defaultdict(lambda: [0, 0])  # (row of the table, file): compared, equal

    def run(self, inputs, folder, flags, fails=False):
        """The object that the program prints."""
        command = [self.qianli, "data", "prepare", *map(str, inputs), "--tokenizer", str(folder), "--output",
                   str(self.work / "out"), "--overwrite", "--bad-rows", "skip" if fails else "fail", "--json", *flags]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            if fails and result.returncode == 3:
                return None
            raise SystemExit(f"{' '.join(command)}\n{result.stderr}")
        return json.loads(result.stdout.splitlines()[-1])

    def samples(self, inputs, folder, flags, fields=SFT):
        self.run(inputs, folder, flags)
        return list(zip(*(read_pair(f"{self.work}/out_packed_{field}_document") for field in fields)))

    def compare(self, row, file, options, actual, wanted):
        wanted = [tuple(map(list, sample)) for sample in wanted]
        wrong = [i for i, (a, w) in enumerate(zip(actual, wanted)) if tuple(map(list, a)) != w]
        count = self.counts[row, file]
        count[0] += max(len(wanted), len(actual))
        count[1] += min(len(wanted), len(actual)) - len(wrong)
        if wrong or len(actual) != len(wanted):
            self.bad += 1
            print(f"DIFFERENT {row} {file} {options}: {len(actual)} sequences for {len(wanted)}, wrong {wrong[:5]}", flush=True)

    def take(self, other):
        """What another process compared."""
        counts, bad = other
        self.bad += bad
        for place, (compared, equal) in counts:
            self.counts[place][0] += compared
            self.counts[place][1] += equal

    def table(self):
        rows = list(dict.fromkeys(row for row, _ in self.counts))
        files = list(dict.fromkeys(file for _, file in self.counts))
        print(f"\n{'equal / compared':36}" + "".join(f"{Path(file).stem[:15]:>18}" for file in files))
        for row in rows:
            cells = ["{1} / {0}".format(*self.counts[row, file]) if (row, file) in self.counts else "" for file in files]
            print(f"{row:36}" + "".join(f"{cell:>18}" for cell in cells))
        total = [sum(count[k] for count in self.counts.values()) for k in (0, 1)]
        print(f"{total[1]} of {total[0]} samples equal")


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


class Everything:
    def __init__(self, args, work):
        self.tables = json.loads(Path(args.templates).read_text())["templates"]
        self.check, self.work, self.data, self.quick = Check(args.qianli, work), Path(work), Path(args.data), args.quick
        source = Path(args.tokenizers)
        self.folders = {name: folder_of(source / name, self.work / name, [])
                        for name in ("qwen3", "llama2", "llama3", "deepseek_v3")}
        plain = [table for table in self.tables if table["class"] != "DeepSeek4Template"]
        self.folders["all"] = folder_of(source / "qwen3", self.work / "all", tokens_of(plain))
        self.words = {name: Words(folder) for name, folder in self.folders.items()}
        self.files = {name: load(self.data / name) for name in FILES}
        self.golden = []

    def named(self, table):
        name, place = table["name"], OWN.get(table["name"], "all")
        thinkings = (None, True, False) if table["class"] in ("ReasoningTemplate", "DeepSeek4Template") else (None,)
        knows_tools = table.get("tool_format") in ("default", "qwen3", "qwen", "ling")
        for file, rows in self.files.items():
            flags = ["--template", name]
            if file.startswith("sft/glaive") and not knows_tools:
                self.refused_tools(name, file, rows, place)
                rows, flags = [(messages, system, "") for messages, system, _ in rows], flags + ["--map-keys", '{"tools": ""}']
            for thinking in thinkings:
                more = flags + ["--enable-thinking", {None: "none", True: "true", False: "false"}[thinking]]
                if file.startswith("preference"):
                    template = Template(table, self.words[place], thinking)
                    actual = self.check.samples([self.data / file], self.folders[place], more, PAIR)
                    self.check.compare(name, file, {"thinking": thinking}, actual, pairwise(template, rows))
                    continue
                small = file == FILES[1] and name not in OWN
                runs = [RUNS[i] for i in (0, 3, 6, 8, 9)] if self.quick else RUNS
                for options, extra in runs[:1] if small else runs if thinking is None else runs[:2 if self.quick else 6]:
                    self.sft(table, place, file, rows, thinking, options, more + extra)

    def sft(self, table, place, file, rows, thinking, options, flags):
        template = Template(table, self.words[place], thinking, options.get("system"))
        wanted = expected(template, rows, options)
        if not wanted:
            return  # all are too long, which is an error
        if "seq" in options:
            flags = flags + ["--seq-length", str(options["seq"])]
        actual = self.check.samples([self.data / file], self.folders[place], flags)
        self.check.compare(table["name"], file, {"thinking": thinking, **options}, actual, wanted)
        if table["name"] in OWN and not options and thinking is None and file in FILES[1:3] and table["name"] != "deepseek4":
            self.golden.append({"template": table["name"], "tokenizer": place, "file": file, "rows": len(rows),
                                "tokens": sum(len(a[0]) for a in actual), "first": [actual[0][0], actual[0][2]]})

    def refused_tools(self, name, file, rows, place):
        """Formats of tools that no program defines, and tools in another layout: the rows are left out, not guessed at."""
        with_tools = sum(bool(json.loads(tools or "[]")) for _, _, tools in rows)
        counts = self.check.run([self.data / file], self.folders[place], ["--template", name], fails=True)
        if (counts or {"bad_rows": len(rows)})["bad_rows"] != with_tools:
            self.check.bad += 1
            print(f"DIFFERENT {name} {file}: {with_tools} rows with tools, {counts} refused")

    def own(self, name):
        """The template in a tokenizer's folder, on one question and one answer: learnt from where the answer is asked for to
        the first special token behind it."""
        from transformers import AutoTokenizer
        folder, words = self.folders[name], self.words[name]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        specials = sorted(map(str, tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        mark = re.compile("|".join(map(re.escape, specials)))
        for file in FILES[:2]:
            wanted = []
            for messages, _, _ in self.files[file]:
                text = tokenizer.apply_chat_template(messages, tokenize=False)
                begin = len(tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True))
                answer = messages[1]["content"].strip()
                end = mark.search(text, text.index(answer, begin) + len(answer)).end()
                encoding = words.tokenizer.encode(text[:end], add_special_tokens=False)
                wanted.append((encoding.ids, [1] * len(encoding.ids),
                               [i if last > begin else IGNORE for i, (_, last) in zip(encoding.ids, encoding.offsets)]))
            actual = self.check.samples([self.data / file], folder, ["--template", "model"])
            self.check.compare(f"model ({name})", file, {}, actual, wanted)

    def rows_file(self, rows):
        path = self.work / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def legacy(self, name, make, render):
        alpaca = [row for row in json.loads((self.data / FILES[0]).read_text())
                  if not re.search(r"Human:|Assistant:|### Response:|```", json.dumps(row))]
        rows = [make(a, b) for a, b in zip(alpaca[::2], alpaca[1::2])]
        for place in ("qwen3", "llama2", "llama3"):
            words = self.words[place]
            samples = [sample for row in rows for sample in render(words, row)]
            for eod in [[]] if name.startswith("MOSS") else [[], ["--append-eod"]]:
                end = [words.eos] if eod else []
                wanted = [(ids + end, [1] * len(ids + end), labels + end) for ids, labels in samples]
                actual = self.check.samples([self.rows_file(rows)], self.folders[place], ["--handler-name", name, *eod])
                self.check.compare(name, FILES[0], place, actual, wanted)

    def pretrain(self, name, make, text):
        rows = [make(row) for row in json.loads((self.data / FILES[0]).read_text())]
        for place in ("qwen3", "llama2", "llama3"):
            words = self.words[place]
            for eod in ([], ["--append-eod"]):
                wanted = [[words.with_specials(text(row)) + ([words.eos] if eod else [])] for row in rows if text(row)]
                self.check.run([self.rows_file(rows)], self.folders[place], ["--handler-name", name, *eod])
                actual = [[ids] for ids in read_pair(self.work / "out_text_document")]
                self.check.compare(name, FILES[0], place, actual, wanted)

    def mixed(self):
        """Data sets of a dataset_info.json by turns; cut into groups, packed one by one."""
        info = {"a": {"file_name": str((self.data / FILES[0]).resolve())},
                "g": {"file_name": str((self.data / FILES[2]).resolve()), "formatting": "sharegpt"}}
        (self.work / "dataset_info.json").write_text(json.dumps(info))
        table = next(table for table in self.tables if table["name"] == "qwen")
        template, sets = Template(table, self.words["qwen3"]), [self.files[FILES[0]], self.files[FILES[2]]]
        flags = ["--handler-name", "LlamaFactoryInstructionHandler", "--dataset-dir", str(self.work), "--template", "qwen"]
        under, over = "interleave_under", "interleave_over"
        for strategy, most, groups, pack in (("concat", 50, 1, False), ("concat", None, 4, False), ("concat", None, 4, True),
                                             (under, None, 1, False), (over, 70, 1, False), (over, None, 3, True)):
            some = [rows[:most] for rows in sets]
            count = {under: min, over: max}.get(strategy)
            rows = some[0] + some[1]
            if count:
                rows = [one[i % len(one)] for i in range(count(map(len, some))) for one in some]
            options = {"seq": 900, "pack": True, "neat": True} if pack else {}
            size = len(rows) // groups
            parts = [rows[i:i + size] for i in range(0, len(rows), size)] if pack else [rows]
            wanted = [sample for part in parts for sample in expected(template, part, options)]
            more = ["--mix-strategy", strategy, "--n-subs", str(groups)] + (["--max-samples", str(most)] if most else [])
            more += ["--pack", "--neat-pack", "--seq-length", "900"] if pack else []
            actual = self.check.samples(["a,g"], self.folders["qwen3"], flags + more)
            self.check.compare("mixed sets", "two files", (strategy, most, groups, pack), actual, wanted)

    def run(self, name):
        if name in LEGACY:
            self.legacy(name, *LEGACY[name])
        elif name in PRETRAIN:
            self.pretrain(name, *PRETRAIN[name])
        elif name == "mixed":
            self.mixed()
        elif name.startswith("model "):
            self.own(name.split()[1])
        else:
            self.named(next(table for table in self.tables if table["name"] == name))


# Each process has an Everything of its own.


def begin(args, work):
    begin.everything = Everything(args, tempfile.mkdtemp(dir=work))


def work_on(name):
    everything = begin.everything
    everything.check.counts.clear()
    everything.check.bad, everything.golden = 0, []
    everything.run(name)
    return (list(everything.check.counts.items()), everything.check.bad), everything.golden


def names_of(args):
    templates = [table["name"] for table in json.loads(Path(args.templates).read_text())["templates"]]
    names = templates + [f"model {name}" for name in ("qwen3", "llama3", "deepseek_v3")] + [*LEGACY, *PRETRAIN, "mixed"]
    return [name for name in names if not args.only or name.split()[0] in args.only]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("qianli", "templates", "data", "tokenizers"):
        parser.add_argument(name)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="a template, `model`, a handler, or `mixed`")
    parser.add_argument("--quick", action="store_true", help="five sets of options instead of fifteen")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--write")
    args = parser.parse_args()
    golden = []
    with tempfile.TemporaryDirectory() as work:
        check = Check(args.qianli, work)
        with concurrent.futures.ProcessPoolExecutor(args.jobs, initializer=begin, initargs=(args, work)) as pool:
            names = names_of(args)
            for name, (counts, samples) in zip(names, pool.map(work_on, names)):
                check.take(counts)
                golden += samples
                compared, equal = (sum(count[k] for _, count in counts[0]) for k in (0, 1))
                print(f"{name}: {equal} of {compared} equal", file=sys.stderr, flush=True)
    check.table()
    if args.write:
        lines = ",\n".join(json.dumps(one) for one in golden)
        Path(args.write).write_text(f"[{lines}]\n")
    sys.exit(1 if check.bad else 0)


if __name__ == "__main__":
    main()
