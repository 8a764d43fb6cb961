"""An independent renderer of instruction data: rows to ids and labels by the tables of the named templates and the rules of
MindSpeed-LLM, tokenized with `tokenizers`. Used by check_instruction.py."""

import json
import re
from bisect import bisect
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

IGNORE = -100


class Words:
    """A tokenizer folder as the templates need it."""

    def __init__(self, folder):
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "tokenizer_config.json").read_text())
        name = lambda key: (config.get(key) or {}).get("content") if isinstance(config.get(key), dict) else config.get(key)
        ident = lambda token: self.tokenizer.token_to_id(token) if token else None
        self.bos, self.eos, self.pad = (ident(name(key)) for key in ("bos_token", "eos_token", "pad_token"))
        self.encode = lru_cache(maxsize=400000)(lambda text: tuple(self.tokenizer.encode(text, add_special_tokens=False).ids))

    def with_specials(self, text):
        """As a tokenizer of transformers is called by default."""
        return self.tokenizer.encode(text).ids


def deepseek4(messages, system, thinking, one_turn):
    """[(source, target)] as texts: the part of DeepSeek-V4's layout that rows of ShareGPT and Alpaca can reach."""
    bos, eos, user, assistant = "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"
    entries = [("system", system)] if system else []
    collects = False
    for message in messages:
        role, content = message["role"], message["content"]
        if role in ("function", "observation"):
            content = f"<tool_result>{content}</tool_result>"
            if collects:
                entries[-1] = ("user", entries[-1][1] + "\n\n" + content)
            else:
                entries.append(("user", content))
            collects = True
        elif role == "user" and collects:
            entries[-1] = ("user", entries[-1][1] + "\n\n" + content)
        else:
            entries.append((role, content))
            collects = False
    last_question = max(i for i, (role, _) in enumerate(entries) if role == "user")
    pairs, source = [], bos
    for i, (role, content) in enumerate(entries):
        keeps = thinking and i >= last_question
        if role == "assistant":
            thought = ""
            if content.startswith("<think>") and "</think>" in content:
                thought, content = content[len("<think>"):].split("</think>", 1)
            content = (thought + "</think>" if keeps else "") + content + eos
            if one_turn and any(r == "assistant" for r, _ in entries[i + 1:]):
                source += content
            else:
                pairs.append((source, content))
                source = ""
            continue
        source += (user if role == "user" else "") + content
        if role == "user" and (i + 1 == len(entries) or entries[i + 1][0] == "assistant"):
            source += assistant + ("<think>" if keeps else "</think>")
    return pairs


class Template:
    def __init__(self, table, words, thinking=None, default_system=None):
        self.table, self.words, self.thinking = table, words, thinking
        self.default_system = table["default_system"] if default_system is None else default_system
        self.efficient = table["efficient_eos"]
        self.eos = words.tokenizer.token_to_id(table["stop_words"][0]) if table.get("replace_eos") else words.eos
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
        if self.table["tool_format"] in ("qwen3", "qwen", "ling"):
            ling = self.table["tool_format"] == "ling"
            lines = "".join("\n" + json.dumps(t if t.get("type") == "function" else {"type": "function", "function": t},
                                              ensure_ascii=False) for t in tools)
            return (("" if ling else "\n\n") + "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with "
                    "function signatures within <tools></tools> XML tags:\n<tools>" + lines + "\n</tools>\n\nFor each function "
                    "call, return a json object with function name and arguments within <tool_call></tool_call> XML "
                    "tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>" + ("\ndetailed thinking off" if ling else ""))
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
        if kind == "DeepSeek4Template":
            return [(list(self.words.encode(s)), list(self.words.encode(t)))
                    for s, t in deepseek4(messages, system or self.default_system, self.thinking, one_turn)]
        messages = [dict(m) for m in messages]
        if kind == "ReasoningTemplate":
            for i in range(1, len(messages), 2):
                last = i == len(messages) - 1
                if self.thinking is False or (one_turn and not last):
                    messages[i]["content"] = self.without_thought(messages[i]["content"])
        system = (system or self.default_system) + self.tools(tools)
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
    if options.get("cut"):
        rule = {"two-sided": two_sided, "proportional": proportional, "drop": lambda s, t, c: (s, t)}[options["cut"]]
        left = length - 1 - template.efficient - bool(options.get("append_eod"))
    cut = []
    for source, target in reversed(pairs) if back else pairs:
        if left <= 0 and options.get("cut") != "drop":
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
        elif template.efficient and k > 0 and not back and source:  # a source that was cut away has no place for it
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


# MindSpeed-LLM's handlers of its first generation: {name: (row made of alpaca rows, (ids, labels) of a row)}.

FRAME = ("\nBelow is an instruction that describes a task, paired with an input that provides further context. Write a response "
         "that appropriately completes the request. Please note that you need to think through your response logically and step "
         "by step.\n")


def framed(words, turns):
    text = FRAME + "".join(f"### {'Response' if k % 2 else 'Instruction'}:\n{turn}\n" for k, turn in enumerate(turns))
    ids = words.with_specials(text)
    before = words.with_specials(text.rsplit("### Response:", 1)[0] + "### Response:\n")
    return ids, [IGNORE] * min(len(before), len(ids)) + ids[len(before):]


def marked(words, turns):
    ids, labels = [], []
    for k, turn in enumerate(turns):
        tokens = words.with_specials(turn)
        ids += [196 if k % 2 else 195] + tokens
        labels += [IGNORE] + tokens if k % 2 else [words.eos] + [IGNORE] * len(tokens)
    return ids + [words.eos], labels + [words.eos]


def moss_row(a, b):
    turn = lambda r: {"Human": f"<|Human|>: {question(r)}<eoh>\n", "MOSS": f"<|MOSS|>: {r['output']}<eom>\n"}
    return {"chat": {"turn_1": turn(a), "turn_2": {}, "turn_3": turn(b)}}


def question(row):
    return "\n".join(text for text in (row["instruction"], row["input"]) if text)


def moss_turns(row):
    turns = [turn for turn in row["chat"].values() if turn]
    return [text for turn in turns for text in (turn["Human"].replace("<eoh>", "").replace("<|Human|>: ", "").strip(),
                                                turn["MOSS"].replace("<|MOSS|>:", "").replace("<eom>", "").strip())]


LEGACY = {
    "GeneralInstructionHandler": (
        lambda a, b: a,
        lambda words, row: [framed(words, [row["instruction"] + "\n" + row["input"], row["output"]])]),
    "BelleMultiTurnInstructionHandler": (
        lambda a, b: {"instruction": f"Human: {question(a)}\nAssistant: {a['output']}\nHuman: {question(b)}\nAssistant:\n",
                      "output": b["output"], "turns": [question(a), a["output"], question(b), b["output"]]},
        lambda words, row: [framed(words, [turn.strip() for turn in row["turns"]])]),
    "LeetcodePythonInstructionHandler": (
        lambda a, b: {"code_with_problem": question(a) + "\n```python\npass\n```", "code_only": a["output"],
                      "explanation_only": b["output"]},
        lambda words, row: [framed(words, [row["code_with_problem"].split("```")[0].strip(),
                                           row["code_only"] + "\n" + row["explanation_only"]])]),
    "MOSSInstructionHandler": (
        moss_row,
        lambda words, row: [framed(words, moss_turns(row)[:k]) for k in range(2, len(moss_turns(row)) + 1, 2)]),
    "MOSSMultiTurnHandler": (moss_row, lambda words, row: [marked(words, moss_turns(row))]),
}

# Its handlers of text for pretraining: {name: text of an alpaca row as it stands in the corpus, given the row made of it}.

PRETRAIN = {
    "GeneralPretrainHandler": (lambda a: {"text": a["output"]}, lambda row: row["text"]),
    "AlpacaPretrainHandler": (
        lambda a: a,
        lambda row: "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
                    "and polite answers to the user's questions.USER: Below is an instruction that describes a task. Write a "
                    f"response that appropriately completes the request.\n\n### Instruction:\n{row['instruction']}\n\n"
                    + (f"### Input:\n{row['input']}\n\n" if row["input"] else "") + f"### Response: ASSISTANT: {row['output']}"),
    "SharegptPretrainHandler": (
        lambda a: {"conversations": [{"from": "human", "value": a["instruction"]}, {"from": "gpt", "value": a["output"]}]},
        lambda row: "".join(m["value"] for m in row["conversations"])),
    "StackOverflowPythonPretrainHandler": (
        lambda a: {"title": a["instruction"], "question_body": a["input"], "answer_body": a["output"]},
        lambda row: f"In python, {row['title']}\n### Question:\n{row['question_body']}\n### Response:\n{row['answer_body']}\n"),
}
