"""Trains small tokenizers of every kind with the original libraries and writes each into a folder of its own.

usage: small_tokenizers.py OUT CORPUS... [--vocab-size N] [--full-charsmap]

CORPUS are text files. OUT/NAME then holds what a model folder would hold: tokenizer.json (by `tokenizers`),
tokenizer.model (by `sentencepiece`) or a *.tiktoken rank file. `check_tokenizers.py` compares them with Qianli,
`golden_tokenizer_files.py` keeps a few of them as golden files. --full-charsmap trains with SentencePiece's whole
nmt_nfkc map (240 KB) in place of a small one of the same shape.
"""

import argparse
import base64
import io
import json
import tempfile
import unicodedata
from pathlib import Path

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.pre_tokenizers import ByteLevel

SPACE = "\u2581"
GPT4_SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)


def small_charsmap_rules():
    """Lines of a normalization_rule_tsv: some of NFKC, of white space and of control characters."""
    singles = [chr(c) for c in [*range(0xA0, 0x180), *range(0x2000, 0x2030), *range(0x2460, 0x2480), *range(0xFB00, 0xFB07)]]
    singles += [chr(c) for c in [*range(0xFF01, 0xFF5F), *range(0x3041, 0x3060), 0x212B, 0x1E9B, 0x3000, 0x1D400]]
    rules = {c: unicodedata.normalize("NFKC", c) for c in singles}
    for base in "aeiouAEIOUsn":
        for mark in "\u0301\u0308\u0323":
            rules[base + mark] = unicodedata.normalize("NFKC", base + mark)
    rules |= {base + "\u3099": unicodedata.normalize("NFKC", base + "\u3099") for base in "\u304b\u3053\u30ab\u30b3"}
    rules |= {c: " " for c in "\t\n\r\u200b\u2028\ufeff"} | {c: "" for c in "\x01\x02\x7f\u00ad"}
    rules |= {"\r\n": " ", "\u1100\u1161": "\uac00", "\u1100\u1161\u11a8": "\uac01"}
    lines = []
    for source, target in sorted(rules.items()):
        if source != target:
            lines.append(" ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target))
    return "\n".join(lines) + "\n"


class Trainer:
    def __init__(self, corpus, vocab_size, full_charsmap):
        self.lines = [line for path in corpus for line in Path(path).read_text().split("\n")]
        self.vocab_size, self.full_charsmap = vocab_size, full_charsmap

    def sentencepiece(self, **options):
        model = io.BytesIO()
        with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
            rules.write(small_charsmap_rules())
            rules.flush()
            if "normalization_rule_name" not in options and not self.full_charsmap:
                options["normalization_rule_tsv"] = rules.name
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(self.lines),
                model_writer=model,
                vocab_size=self.vocab_size,
                hard_vocab_limit=False,
                character_coverage=0.997,
                minloglevel=2,
                num_threads=1,
                **options,
            )
        return model.getvalue()

    def tokenizer(self, model, trainer, normalizer=None, pre_tokenizer=None, decoder=None, post_processor=None):
        tokenizer = Tokenizer(model)
        if normalizer:
            tokenizer.normalizer = normalizer
        if pre_tokenizer:
            tokenizer.pre_tokenizer = pre_tokenizer
        if decoder:
            tokenizer.decoder = decoder
        tokenizer.train_from_iterator(self.lines, trainer)
        if post_processor:
            tokenizer.post_processor = post_processor(tokenizer)
        return {"tokenizer.json": tokenizer.to_str().encode()}

    def byte_ranks(self, split):
        """Token bytes in the order of their ranks: a byte-level BPE over pieces of `split`."""
        step = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), ByteLevel(False, use_regex=False)])
        trainer = trainers.BpeTrainer(vocab_size=self.vocab_size, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
        made = json.loads(self.tokenizer(models.BPE(), trainer, pre_tokenizer=step)["tokenizer.json"])["model"]
        byte_of = alphabet_bytes()
        singles = [bytes([i]) for i in range(256)]
        merged = [bytes(byte_of[c] for c in left + right) for left, right in made["merges"]]
        return list(dict.fromkeys(singles + merged))


def alphabet_bytes():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


def rank_file(ranks):
    return b"".join(base64.b64encode(token) + b" " + str(i).encode() + b"\n" for i, token in enumerate(ranks))


def around(cls, sep):
    def make(tokenizer):
        pair = [(name, tokenizer.token_to_id(name)) for name in (cls, sep)]
        return processors.TemplateProcessing(single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B {sep}", special_tokens=pair)

    return make


def word_pieces(trainer):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    learn = trainers.WordPieceTrainer(vocab_size=trainer.vocab_size, special_tokens=special, show_progress=False)
    for name, options in {
        "bert": dict(lowercase=True),
        "bert_cased": dict(lowercase=False),
        "bert_plain": dict(lowercase=True, strip_accents=False, clean_text=False, handle_chinese_chars=False),
    }.items():
        yield name, trainer.tokenizer(
            models.WordPiece(unk_token="[UNK]"),
            learn,
            normalizers.BertNormalizer(**options),
            pre_tokenizers.BertPreTokenizer(),
            decoders.WordPiece(cleanup=name == "bert"),
            around("[CLS]", "[SEP]"),
        )


def charsmap(model):
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2.ModelProto.FromString(model).normalizer_spec.precompiled_charsmap


def unigrams(trainer):
    # Published files come from SentencePiece models: their map, but the library's own steps around it.
    rules = normalizers.Precompiled(charsmap(trainer.sentencepiece(model_type="unigram")))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    accents = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    metaspace = pre_tokenizers.Metaspace()
    kinds = {
        "t5": (normalizers.Sequence([rules, spaces]), metaspace),
        "albert": (normalizers.Sequence([*quotes, *accents, rules, spaces]), metaspace),
        "xlm_roberta": (rules, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])),
        "unigram_whole": (normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()]), None),
    }
    for name, (normalizer, pre_tokenizer) in kinds.items():
        learn = trainers.UnigramTrainer(
            vocab_size=trainer.vocab_size,
            special_tokens=["<pad>", "</s>", "<unk>"],
            unk_token="<unk>",
            show_progress=False,
        )
        decoder = decoders.Metaspace() if pre_tokenizer else decoders.Fuse()
        yield name, trainer.tokenizer(models.Unigram(), learn, normalizer, pre_tokenizer, decoder, around("<pad>", "</s>"))
    made = json.loads(trainer.tokenizer(models.Unigram(), learn, kinds["t5"][0], metaspace, decoder)["tokenizer.json"])
    made["model"]["vocab"] += [[f"<0x{i:02X}>", -20.0] for i in range(256)]
    made["model"]["byte_fallback"] = True
    steps = [decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()]
    made["decoder"] = json.loads(decoders.Sequence(steps).__getstate__())
    yield "unigram_bytes", {"tokenizer.json": json.dumps(made).encode()}


def other_bpes(trainer):
    learn = trainers.BpeTrainer(
        vocab_size=trainer.vocab_size, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    lower = normalizers.BertNormalizer(lowercase=True)
    words = pre_tokenizers.BertPreTokenizer()
    model = models.BPE(unk_token="<unk>", end_of_word_suffix="</w>")
    yield "openai_gpt", trainer.tokenizer(model, learn, lower, words, decoders.BPEDecoder("</w>"))
    learn = trainers.BpeTrainer(
        vocab_size=trainer.vocab_size, special_tokens=["<unk>"], continuing_subword_prefix="##", show_progress=False
    )
    model = models.BPE(unk_token="<unk>", continuing_subword_prefix="##")
    yield "bpe_prefix", trainer.tokenizer(model, learn, None, pre_tokenizers.Whitespace(), decoders.WordPiece())
    alphabet = ByteLevel.alphabet()
    learn = trainers.BpeTrainer(vocab_size=trainer.vocab_size, initial_alphabet=alphabet, show_progress=False)
    falcon = [
        pre_tokenizers.Punctuation("contiguous"),
        ByteLevel(False),
        pre_tokenizers.Digits(),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
    ]
    yield "falcon", trainer.tokenizer(models.BPE(), learn, None, pre_tokenizers.Sequence(falcon), decoders.ByteLevel())
    split = pre_tokenizers.Split(Regex(r"\u0120?[^\u0120]+"), "isolated")
    yield "byte_normalizer", trainer.tokenizer(models.BPE(), learn, normalizers.ByteLevel(), split, decoders.ByteLevel())
    clip = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    steps = [pre_tokenizers.Split(Regex(clip), "removed", invert=True), ByteLevel(False, use_regex=False)]
    clean = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    learn = trainers.BpeTrainer(
        vocab_size=trainer.vocab_size + 256,
        initial_alphabet=alphabet,
        special_tokens=["<unk>"],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    model = models.BPE(unk_token="<unk>", end_of_word_suffix="</w>")
    yield "clip", trainer.tokenizer(
        model, learn, normalizers.Sequence(clean), pre_tokenizers.Sequence(steps), decoders.ByteLevel()
    )


def word_level(trainer):
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        learn = trainers.WordLevelTrainer(vocab_size=trainer.vocab_size, special_tokens=["[UNK]"], show_progress=False)
        steps = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(behavior)]
        yield (
            f"words_{behavior}",
            trainer.tokenizer(models.WordLevel(unk_token="[UNK]"), learn, None, pre_tokenizers.Sequence(steps)),
        )


def sentencepieces(trainer):
    defined = dict(user_defined_symbols=["<sep>", "abc", "th\u2581e", "\u4f60"], control_symbols=["<ctl>"])
    plain = dict(normalization_rule_name="identity")
    llama = dict(add_dummy_prefix=True, remove_extra_whitespaces=False, byte_fallback=True, split_digits=True, **plain)
    gemma = dict(llama, add_dummy_prefix=False, allow_whitespace_only_pieces=True)
    kinds = {
        "sp_llama": dict(model_type="bpe", **llama),
        "sp_gemma": dict(model_type="bpe", **gemma, **defined),
        "sp_bpe": dict(model_type="bpe", **defined),
        "sp_bpe_suffix": dict(model_type="bpe", treat_whitespace_as_suffix=True),
        "sp_unigram": dict(model_type="unigram", **defined),
        "sp_unigram_bytes": dict(model_type="unigram", **llama),
        "sp_unigram_suffix": dict(model_type="unigram", treat_whitespace_as_suffix=True, **plain),
        "sp_unigram_ids": dict(model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, unk_surface=" <?> "),
        "sp_char": dict(model_type="char"),
    }
    for name, options in kinds.items():
        yield name, {"tokenizer.model": trainer.sentencepiece(**options)}
    unused = unused_pieces(trainer.sentencepiece(model_type="bpe", **llama))
    yield "sp_bpe_unused", {"tokenizer.model": unused}
    yield "sp_unigram_unused", {"tokenizer.model": unused_pieces(trainer.sentencepiece(model_type="unigram", **llama))}


def unused_pieces(model):
    """Every fifth piece of more than one character becomes one that is not to be used."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    for number, piece in enumerate(proto.pieces):
        if piece.type == piece.NORMAL and len(piece.piece) > 1 and number % 5 == 0:
            piece.type = piece.UNUSED
    return proto.SerializeToString()


def tiktokens(trainer):
    ranks = rank_file(trainer.byte_ranks(GPT4_SPLIT))
    for name in ("r50k_base", "cl100k_base", "o200k_base", "qwen"):
        yield f"tiktoken_{name}", {f"{name}.tiktoken": ranks}


def all_kinds(trainer):
    for kind in (word_pieces, unigrams, other_bpes, word_level, sentencepieces, tiktokens):
        yield from kind(trainer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("corpus", nargs="+")
    parser.add_argument("--vocab-size", type=int, default=2000)
    parser.add_argument("--full-charsmap", action="store_true")
    arguments = parser.parse_args()
    trainer = Trainer(arguments.corpus, arguments.vocab_size, arguments.full_charsmap)
    for name, files in all_kinds(trainer):
        folder = Path(arguments.out) / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        print(name, {file: len(content) for file, content in files.items()}, flush=True)


if __name__ == "__main__":
    main()
