"""Cost of the sparse methods in float32, with transformers: an oracle that shares no code with mnemo, over quality.py's texts and for
comparison with its figures.

There is one forward pass. Positions before the scored ones are dense. From there on, in layers from --dense-layers on, each KV head's
queries see the method's selection. The scores are float32 products of queries and keys, without the error of quantised records
(token_topk:2 and the cascade of "mnemo" use 2-bit codes, in float32 otherwise). There are two variants:

  figures  The method of the attainable figures in docs/QUALITY.md. Pages of 16: the first and the two newest (the open one and the one
           before) always, and the best others up to the budget. Bounds rank by the maximum over the query group, means by the sum of
           softmaxes. Single tokens: the budget goes to those with the largest sum of softmaxes, none is kept always. cascade: 2,048 tokens
           of pages by their bounds, then tokens of these.
  mnemo    mnemo's plan (PlanPosition in server/memory): keep_first tokens in whole entries, the open page of 64, and the best entries
           in between; all attended positions count in the budget. Tokens rank by the largest score less the query's best, means by the sum
           of exponentials of that, bounds by the largest. cascade: 4 x budget tokens by their signs, then tokens of these.

Needs torch, transformers and gguf besides the tests' packages, and 3 GiB of memory for SmolLM2.

    quality_oracle.py --model M.gguf --text TEXT [--budgets 512,1024,2048] [--methods page_bound,...] [--variants figures,mnemo] [--threads 2]
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import scored_texts
import torch
import transformers

sys.path.insert(0, str(scored_texts.ROOT / "tests" / "golden"))
import make_golden  # noqa: E402

# Methods, with the variants of each.
METHODS = {
    "token_topk": ("figures", "mnemo"),
    "token_topk:2": ("mnemo",),
    "cascade": ("figures", "mnemo"),
    "page_bound": ("figures", "mnemo"),
    "block_mean": ("figures", "mnemo"),
}
ENTRY = 16  # tokens of an entry of the page methods
OPEN = 64  # tokens of mnemo's pages
KEEP_FIRST = 4
FIRST_STAGE_TOKENS = 2048  # of the figures' cascade
PREFILL_ROWS = 512
ROWS = 128  # query positions whose scores are in memory at once
NEVER = -math.inf


@dataclasses.dataclass
class Plan:
    """For each query position [rows]: [0, first_end), k of the entries in [begin, end), and [tail_begin, position]. In tokens but k."""

    first_end: torch.Tensor
    begin: torch.Tensor
    end: torch.Tensor
    tail_begin: torch.Tensor
    k: torch.Tensor


def plan_figures(position: torch.Tensor, budget: int, width: int) -> Plan:
    zero = torch.zeros_like(position)
    if width == 1:
        return Plan(zero, zero, position + 1, position + 1, zero + budget)
    tail = (position // width - 1) * width
    return Plan(zero + width, zero + width, tail, tail, zero + budget // width - 3)


def plan_mnemo(position: torch.Tensor, budget: int, width: int) -> Plan:
    tail = position // OPEN * OPEN
    first = torch.full_like(position, -(-KEEP_FIRST // width) * width)
    return Plan(first, first, tail, tail, (budget - first - (position + 1 - tail)) // width)


def highest(rank: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """[heads, rows, entries] -> mask of the k[row] highest of each row; entries of rank -inf are never among them."""
    value, at = rank.topk(min(int(k.max()), rank.shape[-1]), dim=-1)
    taken = (torch.arange(value.shape[-1]) < k[:, None]) & (value > NEVER)
    return torch.zeros(rank.shape, dtype=torch.bool).scatter_(-1, at, taken)


# Turns scores [heads, group, rows, entries], -inf for entries that do not count, into ranks [heads, rows, entries].
def by_max(score: torch.Tensor) -> torch.Tensor:
    return score.amax(1)


def by_level_max(score: torch.Tensor) -> torch.Tensor:
    return (score - score.amax(-1, keepdim=True)).amax(1)


def by_level_sum(score: torch.Tensor) -> torch.Tensor:
    return (score - score.amax(-1, keepdim=True)).logsumexp(1)


def by_softmax_sum(score: torch.Tensor) -> torch.Tensor:
    return score.log_softmax(-1).logsumexp(1)


class Keys:
    """Derived forms of a layer's keys [heads, tokens, dim], each made at its first use."""

    def __init__(self, keys: torch.Tensor):
        self.keys = keys
        self.made: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def pages(self, width: int) -> torch.Tensor:
        """[heads, pages, width, dim] of the complete pages."""
        heads, tokens, dim = self.keys.shape
        return self.keys[:, : tokens // width * width].reshape(heads, -1, width, dim)

    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        pages = self.pages(ENTRY)
        return self.get("bounds", lambda: (pages.amin(2).transpose(1, 2), pages.amax(2).transpose(1, 2)))

    def means(self) -> torch.Tensor:
        return self.get("means", lambda: self.pages(ENTRY).mean(2).transpose(1, 2))

    def codes(self, signs: bool) -> torch.Tensor:
        """[heads, dim, tokens]: the rotated keys as 2-bit codes, or their signs alone, say them. 0 in the open page."""

        def make() -> torch.Tensor:
            rotated = self.pages(OPEN) @ hadamard(self.keys.shape[-1])
            base = rotated.mean(2, keepdim=True)
            rest = rotated - base
            sign = torch.where(rest >= 0, 1.0, -1.0)
            if signs:
                said = sign * rest.abs().mean((2, 3), keepdim=True)
            else:
                size = rest.abs()
                level = torch.where(size > size.mean(-1, keepdim=True), 3.0, 1.0)
                said = sign * level * ((size * level).sum(-1, keepdim=True) / (level * level).sum(-1, keepdim=True))
            out = torch.zeros_like(self.keys)
            codes = (base + said).flatten(1, 2)
            out[:, : codes.shape[1]] = codes
            return out.transpose(1, 2)

        return self.get(f"codes{signs}", make)


def hadamard(dim: int) -> torch.Tensor:
    h = torch.ones(1, 1)
    while len(h) < dim:
        h = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), h)
    return h / math.sqrt(dim)


def score(kind: str, query: torch.Tensor, keys: Keys) -> torch.Tensor:
    """query [heads, group, rows, dim], the softmax scale in it -> [heads, group, rows, entries]."""
    if kind == "bound":
        low, high = (bound[:, None] for bound in keys.bounds())
        return query.clamp(min=0) @ high + query.clamp(max=0) @ low
    if kind == "mean":
        return query @ keys.means()[:, None]
    if kind == "exact":
        return query @ keys.keys[:, None].transpose(-1, -2)
    return query @ hadamard(query.shape[-1]) @ keys.codes(signs=kind == "signs")[:, None]


@dataclasses.dataclass
class Cell:
    """One method of one variant with one budget."""

    method: str
    variant: str
    budget: int

    def allowed(self, query: torch.Tensor, position: torch.Tensor, keys: Keys) -> torch.Tensor:
        """[heads, rows, tokens]: mask of the positions that each row attends to."""
        figures = self.variant == "figures"
        if self.method == "page_bound":
            return self._stage("bound", by_max, ENTRY, query, position, keys)
        if self.method == "block_mean":
            return self._stage("mean", by_softmax_sum if figures else by_level_sum, ENTRY, query, position, keys)
        rank = by_softmax_sum if figures else by_level_max
        kind = "exact" if figures or self.method == "token_topk" else "codes"
        passed = None
        if self.method == "cascade" and figures:
            passed = self._stage("bound", by_max, ENTRY, query, position, keys, budget=FIRST_STAGE_TOKENS)
        elif self.method == "cascade":
            passed = self._stage("signs", by_level_max, 1, query, position, keys, k=4 * self.budget)
        return self._stage(kind, rank, 1, query, position, keys, passed=passed)

    def _stage(
        self,
        kind: str,
        rank: Callable[[torch.Tensor], torch.Tensor],
        width: int,
        query: torch.Tensor,
        position: torch.Tensor,
        keys: Keys,
        budget: int | None = None,
        k: int | None = None,
        passed: torch.Tensor | None = None,
    ) -> torch.Tensor:
        figures = self.variant == "figures"
        plan = (plan_figures if figures else plan_mnemo)(position, budget or self.budget, width)
        scores = score(kind, query, keys)
        begin = torch.arange(scores.shape[-1]) * width
        selectable = (begin >= plan.begin[:, None]) & (begin + width <= plan.end[:, None])
        # The simulations' softmaxes cover all complete entries, mnemo's maxima the scanned ones.
        counts = (begin + width <= position[:, None] + 1) if figures else selectable
        if passed is not None:
            counts = (counts & passed)[:, None]
        ranks = rank(scores.masked_fill(~counts, NEVER))
        if passed is not None:
            selectable = selectable & passed
        chosen = highest(ranks.masked_fill(~selectable, NEVER), plan.k if k is None else torch.full_like(plan.k, k))
        chosen = chosen.repeat_interleave(width, -1)
        token = torch.arange(keys.keys.shape[1])
        kept = (token < plan.first_end[:, None]) | (token >= plan.tail_begin[:, None]) & (token <= position[:, None])
        out = kept.expand(len(query), -1, -1).clone()
        out[..., : chosen.shape[-1]] |= chosen
        return out


class Attention:
    """transformers' attention function, with a cache of its own: dense, or by the cell's method."""

    def __init__(self, dense_layers: int):
        self.dense_layers = dense_layers
        self.cell: Cell | None = None
        self.keeping = False
        self.kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by layer: keys and values [heads, tokens, dim]
        self.attended = self.rows = 0

    def __call__(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float, **_: Any
    ) -> tuple[torch.Tensor, None]:
        key, value = key[0], value[0]
        if module.layer_idx in self.kept:
            key, value = (torch.cat(both, dim=1) for both in zip(self.kept[module.layer_idx], (key, value)))
        if self.keeping:
            self.kept[module.layer_idx] = (key, value)
        heads, tokens, dim = key.shape
        rows = query.shape[2]
        query = query[0].reshape(heads, -1, rows, dim)
        each_key, each_value = (x[:, None].expand(-1, query.shape[1], -1, -1) for x in (key, value))
        cell = self.cell if module.layer_idx >= self.dense_layers else None
        keys = Keys(key)
        out = torch.empty_like(query)
        for first in range(0, rows, ROWS):
            part = query[:, :, first : first + ROWS]
            position = torch.arange(first, first + part.shape[2]) + tokens - rows
            if cell is None:
                allowed = (torch.arange(tokens) <= position[:, None])[None]
            else:
                allowed = cell.allowed(part * scaling, position, keys)
                self.attended += int(allowed.sum())
                self.rows += allowed.shape[0] * allowed.shape[1]
            out[:, :, first : first + ROWS] = torch.nn.functional.scaled_dot_product_attention(
                part, each_key, each_value, attn_mask=allowed[:, None], scale=scaling
            )
        return out.reshape(1, -1, rows, dim).transpose(1, 2), None


class Oracle:
    def __init__(self, model: str, dense_layers: int):
        self.attention = Attention(dense_layers)
        transformers.AttentionInterface.register("oracle", self.attention)
        golden = make_golden.Model(pathlib.Path(model))
        if golden.architecture == "gemma3":
            sys.exit("--model has layers with sliding windows, which this oracle does not know")
        self.model = golden.model
        self.model.set_attn_implementation("oracle")
        self.prefilled = 0

    def _run(self, model: Any, ids: list[int], begin: int) -> Any:
        return model(torch.tensor([ids]), position_ids=torch.arange(begin, begin + len(ids))[None], use_cache=False)

    def prefill(self, ids: list[int]) -> None:
        self.attention.cell = None
        self.attention.keeping = True
        for begin in range(0, len(ids), PREFILL_ROWS):
            self._run(self.model.model, ids[begin : begin + PREFILL_ROWS], begin)
        self.attention.keeping = False
        self.prefilled = len(ids)

    def perplexity(self, ids: list[int], cell: Cell | None) -> float:
        """Perplexity over all ids but the first; they continue after the prefilled ones."""
        self.attention.cell = cell
        self.attention.attended = self.attention.rows = 0
        logits = self._run(self.model, ids[:-1], self.prefilled).logits[0]
        return math.exp(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])))


def main() -> None:
    parser = scored_texts.options(__doc__, METHODS)
    parser.add_argument("--variants", default="figures,mnemo")
    parser.add_argument("--dense-layers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    texts = scored_texts.texts_of(arguments)
    budgets = [int(b) for b in arguments.budgets.split(",")]
    oracle = Oracle(arguments.model, arguments.dense_layers)
    # As quality.py decodes: the first scored token comes from the position before it.
    start = arguments.tokens - arguments.decoded - 1
    oracle.prefill(texts["plain"][:start])
    for name in arguments.texts.split(","):
        ids = texts[name][start:]
        dense = oracle.perplexity(ids, None)
        print(f"{name}: {arguments.tokens} tokens, the last {arguments.decoded} scored; perplexity of dense {dense:.4f}\n")
        print("| method | variant | " + " | ".join(str(b) for b in budgets) + " | mean attended |\n|---|---|" + "---|" * (len(budgets) + 1), flush=True)
        for method in arguments.methods.split(","):
            for variant in [v for v in METHODS[method] if v in arguments.variants.split(",")]:
                row, attended = [], []
                for budget in budgets:
                    change = oracle.perplexity(ids, Cell(method, variant, budget)) / dense - 1
                    row.append(f"{100 * change:+.2f} %")
                    attended.append(f"{oracle.attention.attended / oracle.attention.rows:.0f}")
                print(f"| {method} | {variant} | " + " | ".join(row) + f" | {' / '.join(attended)} |", flush=True)
        print()


if __name__ == "__main__":
    main()
