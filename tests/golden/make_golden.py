"""Makes the golden files of this folder with transformers (torch, float32) as the oracle.

    make_golden.py [tiny=build/release/tests/write_tiny_model] [smollm2=FILE.gguf] [gemma3=FILE.gguf]

Needs torch, transformers, tokenizers and gguf; the tests themselves need none of them. The weights are the file's own, dequantised
by the gguf package, in a model whose configuration is built here: no other GGUF loader is involved.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import gguf
import numpy as np
import tokenizers
import torch
import transformers

FOLDER = pathlib.Path(__file__).resolve().parent

# Small random models: every architecture, with the formats of weights spread over them. The fields are those of
# TinyModelOptions.
TINY = [
    {"architecture": "llama", "matrix_type": "F32", "seed": 11},
    {"architecture": "llama", "matrix_type": "Q8_0", "rope_factors": True, "tied_output": False, "seed": 12},
    {"architecture": "llama", "matrix_type": "Q4_K", "dim": 256, "ffn_dim": 512, "heads": 4, "kv_heads": 1, "head_dim": 64, "seed": 13},
    {"architecture": "qwen2", "matrix_type": "Q5_1", "layers": 3, "seed": 14},
    {"architecture": "qwen2", "matrix_type": "Q5_K", "dim": 256, "ffn_dim": 256, "head_dim": 64, "seed": 15},
    {"architecture": "qwen3", "matrix_type": "Q4_0", "head_dim": 32, "seed": 16},
    {"architecture": "qwen3", "matrix_type": "BF16", "tied_output": False, "seed": 17},
    {"architecture": "gemma3", "matrix_type": "Q5_0", "layers": 7, "sliding_window": 16, "seed": 18},
    {"architecture": "gemma3", "matrix_type": "Q6_K", "dim": 256, "ffn_dim": 256, "heads": 2, "kv_heads": 1, "head_dim": 128, "layers": 6, "sliding_window": 70, "seed": 19},
    {"architecture": "gemma3", "matrix_type": "F16", "layers": 2, "sliding_window": 100, "seed": 20},
]
TINY_TOKENS = 150
TINY_POSITIONS = [0, 1, 63, 64, 149]

SMOLLM2_PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    ",
    "Water boils at 100 degrees Celsius because",
    "The three laws of thermodynamics are",
    "import numpy as np\n\n# Compute the mean of each row\n",
    "My favourite recipe for bread starts with",
    "In 1969, astronauts",
    "Dear Sir or Madam,\n\nI am writing to",
    "The difference between a virus and a bacterium is",
    "Q: What is 17 + 25?\nA:",
    "SELECT name, age FROM users WHERE",
    "El perro de mi vecino",
    "Photosynthesis is the process by which",
    "1, 1, 2, 3, 5, 8, 13,",
    "The quick brown fox jumps over the lazy dog. " * 12,
]
SMOLLM2_CHATS = [
    "Write a haiku about autumn.",
    "Explain what a hash table is, in two sentences.",
    "List five European rivers.",
    "What is the tallest mountain on Earth?",
    "Translate 'good morning' to German.",
    "Give me a short plan for learning the piano.",
    "Why is the sky blue?",
    "Write a Python function that reverses a string.",
]
SMOLLM2_TOKENS = 64
GEMMA3_PROMPTS = [
    "The capital of Italy is",
    "Roses are red, violets are",
    "The theory of relativity was",
    "for i in range(10):\n",
    "Die Hauptstadt von Deutschland ist",
    "In a shocking finding, scientists discovered",
    "A recipe for tomato soup: first,",
    "Ships sail the seas and the wind fills the sails. " * 60,  # beyond the sliding window of 512 tokens
]
GEMMA3_TOKENS = 32


class Model:
    """One GGUF file as a transformers model in float32."""

    def __init__(self, path: pathlib.Path):
        self.reader = gguf.GGUFReader(str(path))
        self.architecture: str = self.reader.fields["general.architecture"].contents()
        self.weights = {
            tensor.name: torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
            for tensor in self.reader.tensors
        }
        self.model = self._build()

    def key(self, name: str, fallback: Any = None) -> Any:
        field = self.reader.fields.get(f"{self.architecture}.{name}")
        if field is None:
            assert fallback is not None, name
            return fallback
        return field.contents()

    def _config(self) -> dict[str, Any]:
        heads = self.key("attention.head_count")
        config = {
            "vocab_size": self.weights["token_embd.weight"].shape[0],
            "hidden_size": self.key("embedding_length"),
            "intermediate_size": self.key("feed_forward_length"),
            "num_hidden_layers": self.key("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self.key("attention.head_count_kv"),
            "head_dim": self.key("attention.key_length", self.key("embedding_length") // heads),
            "max_position_embeddings": self.key("context_length"),
            "rms_norm_eps": self.key("attention.layer_norm_rms_epsilon"),
            "tie_word_embeddings": "output.weight" not in self.weights,
            "attn_implementation": "eager",
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        }
        theta = float(self.key("rope.freq_base"))
        if self.architecture == "gemma3":
            config["sliding_window"] = self.key("attention.sliding_window")
            config["query_pre_attn_scalar"] = config["head_dim"]
            config["layer_types"] = [
                "full_attention" if (layer + 1) % 6 == 0 else "sliding_attention" for layer in range(config["num_hidden_layers"])
            ]
            config["rope_parameters"] = {
                "full_attention": {"rope_type": "default", "rope_theta": theta},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            }
        else:
            config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
        return config

    def _build(self) -> Any:
        config_class, model_class = {
            "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
            "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
            "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
            "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
        }[self.architecture]
        model = model_class(config_class(**self._config())).float().eval()
        state = {self._name(name): self._weight(name, weight) for name, weight in self.weights.items() if name != "rope_freqs.weight"}
        if "output.weight" not in self.weights:
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
        model.load_state_dict(state, strict=True)
        if "rope_freqs.weight" in self.weights:
            model.model.rotary_emb.inv_freq /= self.weights["rope_freqs.weight"]
        return model

    def _name(self, name: str) -> str:
        fixed = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
        if name in fixed:
            return fixed[name]
        _, layer, part, kind = name.split(".")
        gemma3 = self.architecture == "gemma3"
        parts = {
            "attn_norm": "input_layernorm",
            "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj",
            "attn_q_norm": "self_attn.q_norm",
            "attn_k_norm": "self_attn.k_norm",
            "attn_output": "self_attn.o_proj",
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm" if gemma3 else "post_attention_layernorm",
            "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj",
            "post_ffw_norm": "post_feedforward_layernorm",
        }
        return f"model.layers.{layer}.{parts[part]}.{kind}"

    def _weight(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        if self.architecture == "llama" and name.endswith((".attn_q.weight", ".attn_k.weight")):
            # The converter moved the halves of a head's rows together in pairs; move them back.
            heads = self.key("attention.head_count" if ".attn_q." in name else "attention.head_count_kv")
            rows, cols = weight.shape
            return weight.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)
        if self.architecture == "gemma3" and name.endswith("norm.weight"):
            return weight - 1.0  # transformers adds the 1 that the file has in it
        return weight

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> np.ndarray:
        return self.model(torch.tensor([ids])).logits[0].numpy()

    @torch.inference_mode()
    def guess(self, prompts: list[list[int]], count: int) -> list[list[int]]:
        """Greedy tokens of all prompts in one padded batch: fast, but padding changes the order of sums."""
        longest = max(len(ids) for ids in prompts)
        padded = torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts])
        mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
        out = self.model.generate(padded, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)
        return [row[longest:].tolist() for row in out]

    def greedy(self, ids: list[int], guess: list[int]) -> tuple[list[int], list[float]]:
        """The tokens of highest logit, and the margin of each over the second highest.

        Every token is the best after the prompt and the tokens before it, without padding or a cache. One pass confirms a
        guess that is right throughout; a wrong guess is corrected from its first wrong token on.
        """
        tokens = guess
        while True:
            logits = self.logits(ids + tokens[:-1])[len(ids) - 1 :]
            best = [int(token) for token in logits.argmax(axis=1)]
            if best == tokens:
                top = np.sort(logits, axis=1)[:, -2:]
                return tokens, [round(float(best_two[1] - best_two[0]), 5) for best_two in top]
            tokens = best


def byte_level_tokenizer(model: Model) -> tokenizers.Tokenizer:
    fields = model.reader.fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    pre = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds) if kind == 3])
    return tokenizer


def sentencepiece_ids(model: Model, texts: list[str]) -> list[list[int]]:
    """Begin-of-text, then the pieces: the best-scored neighbours are joined first (for text whose characters are all pieces)."""
    fields = model.reader.fields
    index = {token: i for i, token in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    scores = fields["tokenizer.ggml.scores"].contents()
    begin = fields["tokenizer.ggml.bos_token_id"].contents()

    def encode(text: str) -> list[int]:
        pieces = list(text.replace(" ", "\u2581"))
        while True:
            pairs = [(-scores[index[a + b]], i) for i, (a, b) in enumerate(zip(pieces, pieces[1:])) if a + b in index]
            if not pairs:
                return [begin] + [index[piece] for piece in pieces]
            at = min(pairs)[1]
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]

    return [encode(text) for text in texts]


def write(name: str, value: dict[str, Any]) -> None:
    value = {"made_by": f"tests/golden/make_golden.py, transformers {transformers.__version__}, torch {torch.__version__}, float32", **value}
    # One line a case: a change shows in a diff as the cases that changed.
    cases = ",\n".join(json.dumps(case) for case in value.pop("cases"))
    (FOLDER / name).write_text(json.dumps(value)[:-1] + ', "cases": [\n' + cases + "\n]}\n")


def make_tiny(program: str) -> None:
    cases = []
    for options in TINY:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "tiny.gguf"
            subprocess.run([program, str(path)], input=json.dumps(options), text=True, check=True)
            model = Model(path)
        ids = [int(i) for i in np.random.default_rng(options["seed"]).integers(0, 259, TINY_TOKENS)]
        logits = model.logits(ids)
        rows = [[float(f"{x:.7g}") for x in logits[position]] for position in TINY_POSITIONS]
        cases.append({"options": options, "ids": ids, "positions": TINY_POSITIONS, "logits": rows})
    write("tiny.json", {"cases": cases})


def make_greedy(name: str, model: Model, prompts: list[tuple[str, list[int]]], count: int) -> None:
    cases = []
    # Long prompts by themselves: the others would be padded to their length.
    short = [ids for _, ids in prompts if len(ids) <= 64]
    guesses = iter(model.guess(short, count))
    for text, ids in prompts:
        tokens, margins = model.greedy(ids, next(guesses) if len(ids) <= 64 else model.guess([ids], count)[0])
        cases.append({"text": text, "prompt": ids, "tokens": tokens, "smallest_margin": min(margins), "margins": margins})
        print(name, repr(text[:40]), len(ids), f"smallest margin {min(margins):.5f}", flush=True)
    write(name, {"cases": cases})


def main(*files: str) -> None:
    paths = dict(file.split("=", 1) for file in files)
    if "tiny" in paths:
        make_tiny(paths["tiny"])
    if "smollm2" in paths:
        model = Model(pathlib.Path(paths["smollm2"]))
        tokenizer = byte_level_tokenizer(model)
        system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        texts = SMOLLM2_PROMPTS + [f"{system}<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in SMOLLM2_CHATS]
        make_greedy("smollm2.json", model, [(text, tokenizer.encode(text).ids) for text in texts], SMOLLM2_TOKENS)
    if "gemma3" in paths:
        model = Model(pathlib.Path(paths["gemma3"]))
        make_greedy("gemma3.json", model, list(zip(GEMMA3_PROMPTS, sentencepiece_ids(model, GEMMA3_PROMPTS))), GEMMA3_TOKENS)


if __name__ == "__main__":
    main(*sys.argv[1:])
