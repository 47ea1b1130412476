"""What is compared: ways to tune one base model on one set of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["base", "nearfield", "sentence-transformers", "adapter"]


@dataclass(frozen=True)
class Recipe:
    """One way to tune.

    Attributes:
        name: its name in tables and on the command line.
        kind: who trains; "base" trains nothing.
        options: adapter: arguments of ``fit_adapter``; nearfield: fields of ``TuneConfig``;
            sentence-transformers: ``learning_rate``, ``batch_size``, ``max_tokens``.
        about: one line for people.
        source: what it learns from: the training pairs, or the documents alone, which ask their own questions.
    """

    name: str
    kind: Kind
    options: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    source: Literal["pairs", "documents"] = "pairs"


def _ours(name: str, about: str, **options: Any) -> Recipe:
    return Recipe(name, "nearfield", options, about)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("base", "base", about="the base model as it is"),
        _ours("ours", "nearfield's defaults"),
        Recipe(
            "theirs",
            "sentence-transformers",
            {"learning_rate": 5e-5, "batch_size": 64, "max_tokens": 128},
            "sentence-transformers' trainer: MultipleNegativesRankingLoss, bf16, batch 64, lr 5e-5, no-duplicates sampler, 128 tokens",
        ),
        Recipe("adapter", "adapter", about="a linear adapter of the queries over the base's vectors; no budget, 20 passes"),
        Recipe("adapter-guarded", "adapter", {"guarded": True}, "the same, as much of it as the guard allows"),
        _ours("ours-no-pieces", "without the pieces of documents", pieces=0.0),
        _ours("ours-no-merge", "all of the tuned weights, whatever the guard says", pieces=0.0, merge_alphas=[1.0], merge_trials=0),
        _ours("ours-symmetric", "documents also look for their queries", symmetric=True),
        _ours("ours-mined", "4 mined negatives, one a step", mined_negatives=4),
        _ours(
            "ours-kl",
            "and a cross-encoder's distribution over 4 of them",
            mined_negatives=4,
            hard_negatives=4,
            distill=0.5,
            teacher="cross-encoder",
        ),
        _ours(
            "ours-margin",
            "the same by MarginMSE",
            mined_negatives=4,
            hard_negatives=4,
            distill=0.5,
            distill_loss="margin",
            teacher="cross-encoder",
        ),
        _ours("ours-matryoshka", "128 and 64 values alone as well", matryoshka=[128, 64]),
        _ours(
            "ours-mined-unfiltered",
            "4 mined negatives without the filter of false ones",
            mined_negatives=4,
            mined_margin=0.0,
        ),
        _ours("ours-hard", "mined negatives, 4 a step", mined_negatives=4, hard_negatives=4),
        _ours("ours-lora", "changes of rank 16 beside the linear layers", lora_rank=16),
        _ours("ours-anchor", "anchored to the base's vectors, no pieces", anchor=3.0, pieces=0.0),
        Recipe("ours-documents", "nearfield", {}, "from the documents alone: questions made of their structure, for dev too", "documents"),
        _ours("ours-query-only", "queries alone; the documents keep the base's vectors", query_only=True),
        _ours("ours-frozen-3", "the lower half and the embeddings frozen", frozen_layers=3),
        _ours("ours-frozen-embeddings", "the embeddings frozen", frozen_layers=0),
        _ours("ours-batch-256", "256 pairs a step by GradCache", batch_size=256, gradcache=True),
        _ours("ours-batch-128", "128 pairs a step", batch_size=128),
        _ours("ours-rate-1e-4", "twice the rate", learning_rate=1e-4),
        _ours("ours-dropout", "dropout 0.1", dropout=0.1),
        _ours("ours-cosine", "cosine decay", decay="cosine"),
    )
}

# Name -> the recipes of one question; the commands stand in docs/benchmarks.md.
SETS: dict[str, tuple[str, ...]] = {
    "main": ("base", "ours", "theirs"),
    "ways": ("base", "adapter", "adapter-guarded", "ours-query-only", "ours-lora", "ours-frozen-3", "ours-documents", "ours"),
    # Each differs from "ours", or from the one named, in one thing: hard against kl and margin shows the teacher, mined against
    # mined-unfiltered the filter. anchor and no-merge have no pieces: they are read against no-pieces.
    "ablation": (
        "base", "ours", "ours-no-pieces", "ours-no-merge", "ours-anchor", "ours-symmetric", "ours-matryoshka", "ours-mined",
        "ours-mined-unfiltered", "ours-hard", "ours-kl", "ours-margin",
    ),
}  # fmt: skip


def named(names: str) -> list[Recipe]:
    """Returns the recipes of a comma-separated list, in which a name of ``SETS`` stands for all of its recipes.

    Raises:
        ValueError: a name that is no recipe; the message lists them.

    >>> [recipe.kind for recipe in named("ours,theirs")]
    ['nearfield', 'sentence-transformers']
    """
    given = [name.strip() for name in names.split(",") if name.strip()]
    wanted = [recipe for name in given for recipe in SETS.get(name, (name,))]
    unknown = [name for name in wanted if name not in RECIPES]
    if unknown or not wanted:
        raise ValueError(f"recipes: {names!r} given, some of {', '.join([*RECIPES, *SETS])} expected")
    return [RECIPES[name] for name in dict.fromkeys(wanted)]
