#!/usr/bin/env python3
"""Writes tokenizer_strings.json and tokenizer_golden.json: 2,400 strings and the reference tokenizers' ids of them.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 protobuf gguf==0.19.0
    python3 make_tokenizer_golden.py --smollm2 FILE.gguf --gemma3 FILE.gguf
    python3 make_tokenizer_golden.py --differ PROGRAM FILE.gguf COUNT SEED      # other strings, see below
    python3 make_tokenizer_golden.py --explain NAME NUMBER                      # ids of one string (small vocabularies)

Vocabularies: those of the two models that the tests download, and small ones, which are stored in full. The small ones are
trained here on licence texts of Debian and on the words below, one for each pre-tokenizer and for three settings of
SentencePiece. The references are two libraries. tokenizers.Tokenizer with encode_special_tokens is built from the vocabulary
and merges, sentencepiece from tokens, scores and types. Ids are stored as a hash per string (FNV-1a, 32 bits, over the ids as little-endian int32).

--differ compares PROGRAM (`mnemo`, called as `PROGRAM tokenize --gguf FILE`, once a string) with the reference for FILE.
"""

import argparse
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

import sentencepiece
from gguf import GGUFReader
from sentencepiece import sentencepiece_model_pb2 as sentencepiece_model
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
CORPUS = ["/usr/share/common-licenses/GPL-2", "/usr/share/common-licenses/Apache-2.0", "/usr/share/perl5/Debconf/Db.pm"]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BLANK = "\u2581"

# The regular expressions in the families' tokenizer files.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")

WORDS = (
    "the of and hello world function return int main import std vector it's I'll we've DON'T can't 'S 'Re 'lL x'\u017f "
    "naïve café Straße Москва привет Ελληνικά שלום עולם مرحبا بالعالم 你好 世界 こんにちは 日本語 한국어 안녕 ไทย ภาษาไทย "
    "हिन्दी नमस्ते বাংলা தமிழ் ﬁ ﬂ ﬃ ﬆ ǆ ŉ é e\u0301 a\u0308\u0323 a\u0323\u0308 Å A\u030a \u1100\u1161\u11a8 각 "
    "👩\u200d👩\u200d👧\u200d👦 🇩🇪 👍🏽 🤷\u200d♂️ 😀 ½ ² Ⅳ ٣٤٥ १२३ ４５ 𝟘𝟙 ㊙ ① 𓀀 𠀀 1234567890 3.14159 0x1F 1e-9 "
    "1,000,000 <|im_start|> <|im_end|> <|endoftext|> <|eot_id|> <|begin_of_text|> <s> </s> <unk> <bos> <eos> "
    "<start_of_turn> <end_of_turn> <0x0A> <table> <h1> </h1> [INST] [/INST] <<SYS>> [multimodal] #include <stdio.h> {} "
    "[] () => -> :: != == && || // /* */ \"quoted\" `code` $x @user #tag % ^ & * _under_score_ CamelCase kebab-case "
    "http://example.com/a?b=c&d=%20 e-mail@x.org ... --- ___ *** \ufffd \u200b \u200d \ufeff \u00ad \u2581 "
    "\u2581\u2581 \u00a0 \u3000 \u2028 \u2029 \u0085 \x00 \x01 \x04 \x06 \x1b \x7f"
).split(" ")
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", "\t\t", " \n", " \n ", "\n \n", "    ", "\u00a0", "\u3000"]
SPACES += ["        ", " \t ", "\n\n\n\n", "\u2028", "\x0b", "\x0c", "\u0085", " " * 40, "\n" * 35, "\t" * 33]
# Characters that compose, decompose, reorder or do neither under normalization form C.
COMPOSING = [0x61, 0x65, 0x41, 0x1100, 0x1112, 0x1161, 0x1175, 0x11A8, 0x11C2, 0x11A7, 0xAC00, 0xAC01, 0x300, 0x301]
COMPOSING += [0x308, 0x323, 0x327, 0x345, 0x334, 0x9C7, 0x9BE, 0x344, 0x958, 0x915, 0x93C, 0xFB1D, 0x5B4, 0x212B]
COMPOSING += [0x2126, 0xF900, 0x1D15E, 0x105C9, 0x897, 0x11938, 0x1F71, 0x3B1, 0x342, 0x20]


def random_text(rng):
    mode = rng.randrange(8)
    if mode < 4:
        text = rng.choice(SPACES) if rng.random() < 0.3 else ""
        for _ in range(rng.randrange(1, 12)):
            text += rng.choice(WORDS) + (" " if rng.random() < 0.6 else rng.choice(SPACES) if rng.random() < 0.5 else "")
        return text
    if mode == 4:
        limits = [0x80, 0x250, 0x370, 0x3000, 0x10000, 0x110000]
        points = [rng.randrange(rng.choice(limits)) for _ in range(rng.randrange(1, 24))]
    elif mode == 5:
        return "".join(rng.choice(" \n\r\t'sSdDmMtTlLrReEvV1a!.\u017f") for _ in range(rng.randrange(1, 40)))
    elif mode == 6:
        return "".join(rng.choice(SPACES + ["a", "1", "!", "é", "字"]) for _ in range(rng.randrange(1, 12)))
    else:
        points = [
            rng.choice(COMPOSING) if rng.random() < 0.8 else rng.randrange(0x250, 0x1200) for _ in range(rng.randrange(1, 16))
        ]
    return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)


def random_texts(count, seed):
    rng = random.Random(seed)
    texts = []
    while len(texts) < count:
        text = random_text(rng)
        if text:
            texts.append(text)
    return texts


def test_strings():
    """Returns every word and white space by itself and beside others, lines of the corpus, then random strings."""
    texts = list(dict.fromkeys(WORDS + SPACES))
    texts += ["a" * n for n in (1, 15, 16, 17, 48, 49, 50, 300)] + ["ab" * 100, "あ" * 60, "é" * 70, "x y " * 40]
    for path in CORPUS:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        texts += [line for line in lines[:120] if line]
    return texts + random_texts(2400 - len(texts), 2024)


def bpe_reference(vocabulary):
    tokens, kinds, pre = vocabulary["tokens"], vocabulary["kinds"], vocabulary["pre"]
    merges = [tuple(merge.split(" ")) for merge in vocabulary["merges"]]
    model = models.BPE(
        vocab={token: i for i, token in enumerate(tokens)}, merges=merges, ignore_merges=pre == "llama-bpe"
    )
    tokenizer = Tokenizer(model)
    configure(tokenizer, pre)
    special = [AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, kinds) if kind == CONTROL]
    own = [AddedToken(t, special=False, normalized=False) for t, kind in zip(tokens, kinds) if kind == USER_DEFINED]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(own)
    tokenizer.encode_special_tokens = True
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def configure(tokenizer, pre):
    def byte_level(use_regex):
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)

    if pre == "gpt-2":
        tokenizer.pre_tokenizer = byte_level(True)
    elif pre == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level(True)])
    elif pre in ("llama-bpe", "qwen2"):
        split = pre_tokenizers.Split(Regex(LLAMA3 if pre == "llama-bpe" else QWEN2), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level(False)])
        if pre == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
    else:
        raise ValueError(pre)


def sentencepiece_reference(vocabulary):
    model = sentencepiece_model.ModelProto()
    for i, token in enumerate(vocabulary["tokens"]):
        kind = vocabulary["kinds"][i]
        piece = model.pieces.add()
        piece.piece = token if kind == CONTROL else token.replace(" ", BLANK)
        piece.score = vocabulary["scores"][i]
        piece.type = UNKNOWN if i == vocabulary["unknown"] else CONTROL if kind == UNKNOWN else kind
    trainer = model.trainer_spec
    trainer.model_type = trainer.BPE
    trainer.byte_fallback = True
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = vocabulary["unknown"], -1, -1, -1
    trainer.unk_piece = vocabulary["tokens"][vocabulary["unknown"]]
    normalizer = model.normalizer_spec
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = vocabulary["add_space_prefix"]
    normalizer.remove_extra_whitespaces = False
    normalizer.escape_whitespaces = True
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    return processor.EncodeAsIds


def reference(vocabulary):
    return bpe_reference(vocabulary) if "merges" in vocabulary else sentencepiece_reference(vocabulary)


def read_gguf(path):
    fields = GGUFReader(path).fields

    def get(key, absent=None):
        return fields["tokenizer.ggml." + key].contents() if "tokenizer.ggml." + key in fields else absent

    vocabulary = {"tokens": get("tokens"), "kinds": get("token_type")}
    if get("model") == "gpt2":
        return {**vocabulary, "pre": get("pre"), "merges": get("merges")}
    return {
        **vocabulary,
        "scores": get("scores"),
        "unknown": get("unknown_token_id", 0),
        "add_space_prefix": bool(get("add_space_prefix", True)),
    }


def train_bpe(pre):
    tokenizer = Tokenizer(models.BPE())
    configure(tokenizer, pre)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus_lines(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [" ".join(merge) for merge in model["merges"]]
    # Tokens that no merge leads to: a family that takes whole pieces first uses them, others do not.
    merges = [merge for i, merge in enumerate(merges) if i % 9 != 8]
    kinds = [NORMAL] * len(tokens)
    for token, kind in (("<|endoftext|>", CONTROL), ("<|im_end|>", CONTROL), ("<table>", USER_DEFINED), ("  ", USER_DEFINED)):
        tokens.append(token)
        kinds.append(kind)
    return {"pre": pre, "tokens": tokens, "kinds": kinds, "merges": merges}


def train_sentencepiece(add_space_prefix, user_defined, unused):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "corpus.txt")
        pathlib.Path(path).write_text("\n".join(corpus_lines()), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.Train(
            input=path,
            model_prefix=os.path.join(folder, "small"),
            vocab_size=1000,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=0.99,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=add_space_prefix,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=user_defined,
            minloglevel=2,
        )
        model = sentencepiece_model.ModelProto()
        model.ParseFromString(pathlib.Path(folder, "small.model").read_bytes())
    kinds = [piece.type for piece in model.pieces]
    if unused:
        for i in range(len(kinds)):
            if kinds[i] == NORMAL and i % 5 == 0:
                kinds[i] = UNUSED
    return {
        "tokens": [piece.piece for piece in model.pieces],
        "kinds": kinds,
        "scores": [piece.score for piece in model.pieces],
        "unknown": 0,
        "add_space_prefix": add_space_prefix,
    }


def corpus_lines():
    lines = []
    for path in CORPUS:
        lines += pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    words = [word for word in WORDS if "\x00" not in word]
    return lines + [" ".join(words)] * 20


def fnv1a(ids):
    value = 0x811C9DC5
    for byte in struct.pack(f"<{len(ids)}i", *ids):
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{value:08x}"


def differ(program, path, count, seed):
    encode = reference(read_gguf(path))
    differing = 0
    for text in random_texts(count, seed):
        command = [program, "tokenize", "--gguf", path]
        output = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
        ids = [int(number) for number in output.split()]
        if ids != encode(text):
            differing += 1
            print(f"{text!r}\n  reference {encode(text)}\n  program   {ids}")
    print(f"{path}: {differing} of {count} differ")
    return 1 if differing else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2")
    parser.add_argument("--gemma3")
    parser.add_argument("--differ", nargs=4, metavar=("PROGRAM", "FILE", "COUNT", "SEED"))
    parser.add_argument("--explain", nargs=2, metavar=("NAME", "NUMBER"))
    options = parser.parse_args()
    if options.differ:
        program, path, count, seed = options.differ
        return differ(program, path, int(count), int(seed))
    if options.explain:
        golden = json.loads((HERE / "tokenizer_golden.json").read_text(encoding="utf-8"))
        strings = json.loads((HERE / "tokenizer_strings.json").read_text(encoding="utf-8"))
        text = strings[int(options.explain[1])]
        print(repr(text), reference(golden["vocabularies"][options.explain[0]])(text))
        return 0
    strings = test_strings()
    vocabularies = {pre: train_bpe(pre) for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2")}
    vocabularies["spm"] = train_sentencepiece(True, [], False)
    vocabularies["spm-no-prefix"] = train_sentencepiece(False, ["<table>", BLANK * 2, BLANK * 3, "\n", "\n\n"], False)
    vocabularies["spm-unused"] = train_sentencepiece(True, ["</h1>"], True)
    hashes = {}
    models_read = {"smollm2": read_gguf(options.smollm2), "gemma3": read_gguf(options.gemma3)}
    for name, vocabulary in {**vocabularies, **models_read}.items():
        encode = reference(vocabulary)
        hashes[name] = "".join(fnv1a(encode(text)) for text in strings)
    rows = ",\n".join(json.dumps(text, ensure_ascii=False) for text in strings)
    (HERE / "tokenizer_strings.json").write_text(f"[{rows}]\n", encoding="utf-8")
    stored = ",\n".join(f"{json.dumps(name)}: {json.dumps(v, ensure_ascii=False)}" for name, v in vocabularies.items())
    text = f'{{"vocabularies": {{\n{stored}\n}},\n"hashes": {json.dumps(hashes, indent=0)}}}\n'
    (HERE / "tokenizer_golden.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
