"""How a model is tuned and exported: every knob in a frozen dataclass, with its default and the reason for it; JSON in and out."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from nearfield.errors import InputError
from nearfield.modelfiles import load_json

Decay = Literal["linear", "cosine"]
DType = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
EvaluationPrecision = Literal["fp32", "bf16", "auto"]
DistillLoss = Literal["kl", "margin"]
Ladder = Literal["none", "adapter", "auto"]
Int8Method = Literal["rows", "dynamic", "static", "nbits", "none"]

# Field -> lowest and highest value accepted, both included. Wide on purpose: they catch slips (a learning rate of 5), not taste.
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 1000),
    "batch_size": (2, 65536),
    "learning_rate": (1e-9, 0.1),
    "weight_decay": (0, 1),
    "max_grad_norm": (1e-6, 1e6),
    "warmup_fraction": (0, 1),
    "temperature": (1e-3, 10),
    "pieces": (0, 2),
    "hard_negatives": (0, 64),
    "mined_negatives": (0, 64),
    "mined_margin": (0, 1),
    "anchor": (0, 100),
    "distill": (0, 1),
    "frozen_layers": (-1, 1000),
    "frozen_cache": (0, 0.9),
    "lora_rank": (0, 4096),
    "teacher_temperature": (1e-3, 1e3),
    "max_tokens_train": (4, 65536),
    "max_tokens_query": (4, 65536),
    "dropout": (0, 0.9),
    "chunk_rows": (1, 65536),
    "max_pairs": (1, 2**40),
    "budget_seconds": (1, 1e8),
    "seed": (0, 2**32 - 1),
    "eval_every": (1e-3, 1),
    "patience": (0, 1000),
    "dev_queries": (1, 100_000),
    "dev_documents": (2, 1_000_000),
    "merge_trials": (0, 100),
    "guard_queries": (1, 100_000),
    "guard_documents": (2, 1_000_000),
    "guard_max_drop": (0, 1),
    "guard_margin": (0, 1),
    "checkpoint_minutes": (0, 1e6),
    "int8_queries": (1, 100_000),
    "int8_documents": (1, 1_000_000),
    "int8_max_loss": (0, 1),
    "int8_max_drop": (0, 1),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "decay": get_args(Decay),
    "ladder": get_args(Ladder),
    "distill_loss": get_args(DistillLoss),
    "dtype": get_args(DType),
    "device": get_args(Device),
    "int8": get_args(Int8Method),
    "evaluation": get_args(EvaluationPrecision),
}
# A run.json with its history is some ten kilobytes; the limit keeps a wrong file from filling memory.
MAX_OPTIONS_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class TuneConfig:
    """Everything that decides a tuning run, besides the data and the base model.

    Attributes:
        epochs: passes over the training pairs. 1: a small retriever takes most of its gain from the first pass and forgets more with each
            further one.
        batch_size: pairs per step; every other document of the step is a negative. 64: enough negatives to learn from, and 64 documents
            of 128 tokens keep a 22 M parameter model's training at about 3 GiB of memory in all.
        learning_rate: AdamW's peak rate. 5e-5: the upper end of what is usual for whole-model tuning; one pass is short, and weights are
            averaged with the base afterwards, which forgives an over-long step better than an over-short one.
        weight_decay: AdamW's decoupled decay, on matrices only (never biases or layer norms). 0.01: AdamW's own default; over one pass it
            hardly acts.
        max_grad_norm: the gradient's norm is cut to this. 1.0: the usual guard against a single odd batch.
        warmup_fraction: share of the steps over which the rate rises from 0. 0.1: Adam's second moments need some tens of steps to settle.
        decay: shape of the fall to 0 after warmup, "linear" or "cosine". linear: ends small for longer, which suits a single pass.
        temperature: cosines are divided by this before the softmax. 0.05: the value that all-MiniLM and most sentence encoders were
            trained with (a scale of 20).
        pieces: share of a second change that is added to the tuned weights against forgetting: the base learns for some steps to find its
            documents again by random pieces of them (``nearfield.tune.pieces``). 0.5: gave back what 3,000 pairs had cost on general
            questions and cost 0.1 points of the gain of 11 (docs/log.md). With a guard up to twice as much is tried, and the least that
            holds the guard is taken. About a minute; 0 switches it off.
        symmetric: also asks each document to find its query. False: on medical questions it had 0.4 points more and forgot a third less, on
            shell commands it had up to a point less and forgot more (docs/log.md). Not with query_only, whose documents stay as they are.
        hard_negatives: labelled negatives used per pair and step, rotating over the epochs. 1: each costs as much as a pair's own document.
        mined_negatives: wrong documents that the base itself puts high, added to the labelled ones of each query (see
            ``nearfield.tune.negatives``). 0: the training texts have to
            be encoded once more, and in-batch negatives alone are what the defaults were measured with.
        mined_margin: a mined document whose score comes within this share of the positive's may be an answer and is left away. 0.05: what
            NV-Retriever found best of several filters.
        anchor: weight of the distance between the vectors and the base's of the same texts, added to the loss. 0.0: the best
            anchors kept three quarters of the gain and nearly doubled the time (docs/log.md); the pieces cost less.
        matryoshka: shorter vectors (their first values alone) that the loss also asks to be good, for example [128, 64]; the whole one is
            always among them. None by default: untrained cuts of all-MiniLM lose little down to half.
        distill: share of a teacher's part in the loss, from 0 to 1: the teacher's scores of each query's own document and negatives are
            learned beside the labels. 0.0: there is no teacher by default.
        distill_loss: "kl": the teacher's distribution over these candidates; "margin": the differences to the positive (MarginMSE). kl:
            keeps to orders and needs no common scale.
        teacher: who scores: "cross-encoder" (a small one, trained from the base on the training pairs), or a model folder of a larger
            encoder with the same tokenizer. None: nobody.
        teacher_temperature: the teacher's scores are divided by it before the softmax. 1.0: a cross-encoder's logits; cosines need 0.05.
        gradcache: encodes every text twice and keeps the activations of one chunk only, for batches beyond memory; the gradient is that of
            the whole batch. False: costs a third more time.
        ladder: "auto" climbs from the base to a linear adapter, queries alone, the upper half of the layers and all of them, and
            stops where a rung is not surely better on dev than the best below it (``nearfield.ladder``); "adapter" takes the first rung
            alone; "none" trains what the other options say. none: a full run has been measured most.
        query_only: trains a second tower for queries; the documents keep the base's vectors, so that an index stays valid
            (``nearfield.tune.queryside``). False: training both sides gains more where documents may be encoded again.
        lora_rank: trains changes of this rank beside the linear layers' weights, folded into them at the end (``nearfield.tune.lora``),
            at ten times ``learning_rate``. 0: the weights themselves; a model of 22 M parameters needs no saving of memory.
        frozen_layers: the lowest layers that keep the base's weights, the embeddings with them; 0 freezes the embeddings alone. -1: nothing
            is frozen. Freezing saves the backward pass and the optimizer's state of what is frozen.
        frozen_cache: share of the machine's memory (or of its control group's) that what the frozen layers give may take at most; texts
            that are met again are read from there (``nearfield.tune.states``). 0.125: 6,000 documents of 128 tokens and 384 columns
            take 1.2 GB in float32, half in bfloat16. 0: computed anew each time.
        max_tokens_train: documents are cut to this many tokens in training and on the dev sub-corpus. 128: cost grows with length, and
            what a document is about is nearly always said by then. The finished model keeps the base's own length.
        max_tokens_query: the same for queries. 64: longer questions are rare.
        dropout: 0.0: in one pass no pair is seen twice, so there is nothing to memorize; and measured on a 2-core AVX2 machine at 128
            tokens, dropout 0.1 trains 6-9 documents a second, dropout 0 15.7.
        chunk_rows: texts of a step are sorted by length and encoded this many at a time, each chunk padded to its own longest. 16: less
            padding; the gradient is that of the whole batch.
        max_pairs: at most this many pairs, chosen by the seed; None takes all. 6000: of 12,230 medical pairs the second half raised nDCG@10
            on dev by 0.003 and doubled the time (docs/log.md).
        budget_seconds: the time that training and merging may take; the learning rate reaches 0 and sub-corpora are made smaller so that
            both fit (``nearfield.tune.budget``); epochs and max_pairs stay upper limits. None: as long as they take, and the same bits in
            every run, which no clock can promise.
        seed: order of the pairs, choice of the sub-corpora, dropout.
        eval_every: share of the run between two evaluations on the dev sub-corpus. 0.25: four of them cost a small part of the time.
        patience: evaluations without a better dev nDCG@10 before the run stops; 0 never stops early, nor does a run with a
            budget. 2: one bad evaluation may be noise.
        dev_queries: queries of the dev sub-corpus at most. 300: a paired difference of about a point shows.
        dev_documents: its documents at most, unless the positives alone are more. 1000: 15 to 20 s an evaluation on two AVX2 cores.
        merge_alphas: shares of the tuned weights tried in base + alpha * (tuned - base). 0 (the base) and 1 (the tuned model) are always
            measured.
        merge_trials: alphas between 0 and 1 that are really encoded, the most promising first (see ``nearfield.tune.merge``). 3: each
            costs one evaluation.
        guard_queries: queries of the guard's dev split that have a say in alpha, at most. 1000: half a point is what it is about, and
            the drop on 300 of 500 queries, read to 128 tokens, was nearly twice that on all of them.
        guard_documents: documents they are asked of, at most, unless the positives alone are more; these are read at the model's full
            length, as the verdict reads them. 3000: 2,067 of them take 80 s for each alpha on two AVX2 cores.
        guard_max_drop: how far nDCG@10 (0 to 1) may fall on the guard set in the final verdict. 0.01: one point.
        guard_margin: how much of that is held back when alpha is chosen on the guard's dev split, for the difference between splits. 0.005:
            half of it; with 0.002 and some hundred queries a run that held it lost 1.1 points on the test split (docs/log.md).
        checkpoint_minutes: time between checkpoints. 5: a checkpoint of a 22 M parameter model is 270 MB; 0 writes one every step.
        dtype: "bfloat16" trains in mixed precision, "float32" does not, "auto" takes bfloat16 where the hardware has matrix instructions
            for it.
        device: "auto" takes the GPU where there is one.
        int8: how the bundle's int8 graph is made, see ``ExportConfig``.
        int8_aware: where that graph fails its gate, tunes the model for 40 steps towards its own float vectors under int8's rounding and
            asks the gate again (``nearfield.int8aware``). True: it costs nothing where the gate passes.
        evaluation: the precision of the vectors that the verdict is measured on, for both models. "fp32": what ``Encoder`` gives where
            nothing else is asked for, so the verdict is about that. "bf16": the native engine's. "auto": bf16 where the CPU multiplies it
            (AMX, AVX512-BF16) and the engine computes the model, else fp32; several times as fast on a large corpus.

    Raises:
        InputError: a value of the wrong type or out of range; the message names the field.

    >>> TuneConfig(epochs=2).batch_size
    64
    >>> TuneConfig(temperature=0)
    Traceback (most recent call last):
    ...
    nearfield.errors.InputError: config: temperature: 0 given, a number from 0.001 to 10 expected
    """

    epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    warmup_fraction: float = 0.1
    decay: Decay = "linear"
    temperature: float = 0.05
    pieces: float = 0.5
    symmetric: bool = False
    hard_negatives: int = 1
    mined_negatives: int = 0
    mined_margin: float = 0.05
    anchor: float = 0.0
    matryoshka: tuple[int, ...] = ()
    distill: float = 0.0
    distill_loss: DistillLoss = "kl"
    teacher: str | None = None
    teacher_temperature: float = 1.0
    gradcache: bool = False
    ladder: Ladder = "none"
    query_only: bool = False
    lora_rank: int = 0
    frozen_layers: int = -1
    frozen_cache: float = 0.125
    max_tokens_train: int = 128
    max_tokens_query: int = 64
    dropout: float = 0.0
    chunk_rows: int = 16
    max_pairs: int | None = 6000
    budget_seconds: float | None = None
    seed: int = 0
    eval_every: float = 0.25
    patience: int = 2
    dev_queries: int = 300
    dev_documents: int = 1000
    merge_alphas: tuple[float, ...] = (0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    merge_trials: int = 3
    guard_queries: int = 1000
    guard_documents: int = 3000
    guard_max_drop: float = 0.01
    guard_margin: float = 0.005
    checkpoint_minutes: float = 5.0
    dtype: DType = "auto"
    device: Device = "auto"
    int8: Int8Method = "rows"
    int8_aware: bool = True
    evaluation: EvaluationPrecision = "fp32"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field.name, str(field.type), getattr(self, field.name), where="config"))

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values.

        >>> TuneConfig().to_dict()["merge_alphas"][:2]
        [0.0, 0.1]
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {"merge_alphas": list(self.merge_alphas), "matryoshka": list(self.matryoshka)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "config") -> TuneConfig:
        """Builds a config from field values; fields left out keep their defaults.

        Args:
            values: field name -> value.
            where: how errors name the source, for example a file.

        Raises:
            InputError: a name that is no field, a value of the wrong type or out of range.

        >>> TuneConfig.from_dict({"epoch": 2})
        Traceback (most recent call last):
        ...
        nearfield.errors.InputError: config: unknown key 'epoch'; did you mean 'epochs'?
        """
        types = {field.name: str(field.type) for field in dataclasses.fields(cls)}
        for name in values:
            if name not in types:
                near = difflib.get_close_matches(str(name), types, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(types)}"
                raise InputError(f"{where}: unknown key {name!r}; {hint}")
        return cls(**{name: _checked(name, types[name], value, where=where) for name, value in values.items()})

    @classmethod
    def load(cls, path: str | Path) -> TuneConfig:
        """Reads a JSON object of field values.

        Raises:
            InputError: no such file, not JSON, not an object, or a bad field; the message names the file and the key.
        """
        return cls.from_dict(read_options(path), where=str(path))

    def save(self, path: str | Path) -> None:
        """Writes the fields as JSON, one a line; ``TuneConfig.load`` gives an equal config back."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")


def read_options(path: str | Path) -> dict[str, Any]:
    """Reads a JSON object that names options: a config, or a run's ``run.json``.

    Raises:
        InputError: no such file, too large, not strict JSON, not an object; the message names the file.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_OPTIONS_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); a JSON file of tuning options expected") from error
    if len(data) > MAX_OPTIONS_BYTES:
        raise InputError(f"{path}: more than {MAX_OPTIONS_BYTES:,} bytes; a JSON file of tuning options expected")
    values = load_json(data, str(path))
    if not isinstance(values, dict):
        raise InputError(f'{path}: a JSON {type(values).__name__} given, an object such as {{"epochs": 2}} expected')
    return values


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """How the int8 graph of a bundle is made and what it may cost (docs/quantization.md).

    Attributes:
        int8: the method. "rows": activations take a scale and an offset per token at run time; "dynamic": onnxruntime's own, one scale
            per batch; "static": one scale per tensor, calibrated on the data; "nbits": scales per block of 32, for weights and
            activations; "none": no int8 graph. rows: no vector depends on its neighbours, the smallest loss of the methods that are faster
            than float32, and no calibration.
        int8_queries: held-out queries that the loss in nDCG@10 is measured on, at most. 300: with "rows" the standard error of the paired
            difference is 0.2 to 0.3 points.
        int8_documents: their sub-corpus, relevant documents and random others, at most. 400: about ten seconds on two AVX2 cores for each
            graph that is tried.
        int8_max_loss: largest mean loss, nDCG@10 from 0 to 1. 0.003: below what an evaluation of 1,500 queries can tell.
        int8_max_drop: how far below 0 the lower bound of the paired 95 % interval may lie. 0.01: one point, the guard's limit.

    Raises:
        InputError: a value of the wrong type or out of range; the message names the field.

    >>> ExportConfig(int8="fp4")
    Traceback (most recent call last):
    ...
    nearfield.errors.InputError: export: int8: 'fp4' given, one of rows, dynamic, static, nbits, none expected
    """

    int8: Int8Method = "rows"
    int8_queries: int = 300
    int8_documents: int = 400
    int8_max_loss: float = 0.003
    int8_max_drop: float = 0.01

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field.name, str(field.type), getattr(self, field.name), where="export"))


def _checked(name: str, type_name: str, value: Any, *, where: str) -> Any:
    if name == "merge_alphas":
        return _checked_alphas(value, where)
    if name == "matryoshka":
        return _checked_dims(value, where)
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise InputError(f"{where}: {name}: {value!r} given, one of {', '.join(_CHOICES[name])} expected")
        return value
    if type_name == "bool":
        if not isinstance(value, bool):
            raise InputError(f"{where}: {name}: {value!r} given, true or false expected")
        return value
    if value is None and type_name.endswith("None"):
        return None
    if type_name.startswith("str"):
        if not isinstance(value, str) or not value:
            raise InputError(f"{where}: {name}: {value!r} given, a text expected")
        return value
    low, high = _RANGES[name]
    whole = type_name.startswith("int")
    expected = f"a {'whole ' if whole else ''}number from {low:g} to {high:g} expected"
    if isinstance(value, bool) or not isinstance(value, (int,) if whole else (int, float)) or not low <= value <= high:
        raise InputError(f"{where}: {name}: {value!r} given, {expected}")
    return value if whole else float(value)


def _checked_alphas(value: Any, where: str) -> tuple[float, ...]:
    fine = (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(
            isinstance(alpha, (int, float)) and not isinstance(alpha, bool) and math.isfinite(alpha) and 0 <= alpha <= 1 for alpha in value
        )
    )
    if not fine:
        raise InputError(f"{where}: merge_alphas: {value!r} given, a list of at least one number from 0 to 1 expected")
    return tuple(sorted({float(alpha) for alpha in value}))


def _checked_dims(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(dim, int) and not isinstance(dim, bool) and dim >= 1 for dim in value):
        raise InputError(f"{where}: matryoshka: {value!r} given, a list of whole numbers of at least 1 expected, for example [128, 64]")
    return tuple(sorted(set(value), reverse=True))
