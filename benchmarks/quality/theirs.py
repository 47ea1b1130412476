"""Training one cell with sentence-transformers: its trainer where its extra packages are there, else its loss in a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.trained import CLOCKS, ENDLESS, Trained
from nearfield.data.dataset import Dataset
from nearfield.tune.budget import Budget, expected_steps, place
from nearfield.tune.schedule import rate_at

# The trainer's usual shape: a tenth of warmup, then linear to 0. Under a budget the end is the budget's, by the rule that ours follows.
WARMUP = 0.1


def train_theirs(
    data: Dataset, base: Path, work: Path, options: Mapping[str, Any], *, seed: int, seconds: float | None, clock: str, device: str,
    epochs: int | None,
) -> Trained:  # fmt: skip
    """Trains with MultipleNegativesRankingLoss; loading the model is inside the budget, as it is for ours."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import is_training_available

    timer = _Timer(seconds, CLOCKS[clock])
    torch.manual_seed(seed)
    # Weights in float32 under autocast, as for ours, whatever format they lie on disk in.
    model = SentenceTransformer(str(base), device=device, model_kwargs={"dtype": torch.float32})
    model.max_seq_length = options["max_tokens"]
    queries, documents = dict(zip(data.query_ids, data.query_texts, strict=True)), dict(zip(data.doc_ids, data.doc_texts, strict=True))
    pairs = [(queries[query], documents[doc]) for query, judged in data.qrels["train"].items() for doc in judged]
    timer.total = -(-len(pairs) // options["batch_size"]) * (epochs or (ENDLESS if seconds is not None else 1))
    trainer: Callable[..., str] = _by_trainer if is_training_available() else _by_loop
    how = trainer(model, pairs, work, options, seed=seed, device=device, timer=timer, epochs=epochs or (ENDLESS if seconds else 1))
    model.max_seq_length = SentenceTransformer(str(base), device="cpu").max_seq_length
    folder = work / "model"
    model.save(str(folder))
    spent = max(timer.ended - timer.started, 1e-9)
    return Trained(folder, timer.pairs, timer.step, timer.pairs / spent, how)


class _Timer:
    """Steps, pairs and time of a run, and the learning rate that ends with its budget."""

    def __init__(self, seconds: float | None, clock: Callable[[], float]) -> None:
        self.budget = None if seconds is None else Budget(seconds, clock)
        self.clock, self.began = clock, clock()
        self.started = self.ended = 0.0
        self.step = self.pairs = 0
        self.total = 1

    def start(self) -> None:
        self.started = self.ended = self.clock()

    def place(self) -> float:
        limit = None if self.budget is None or not self.step else self.budget.seconds
        return place(self.step, self.total, self.clock() - self.began, limit)

    def done(self, pairs: int) -> bool:
        """Counts one finished step and says whether the run is over."""
        self.step += 1
        self.pairs += pairs
        self.ended = self.clock()
        return self.place() >= 1

    def rate(self) -> float:
        """The share of the peak rate for the next step."""
        steps = expected_steps(self.step, self.total, self.place())
        return rate_at(min(self.step, steps - 1), steps, peak=1.0, warmup_fraction=WARMUP, decay="linear")


def _by_trainer(
    model: Any, pairs: Sequence[tuple[str, str]], work: Path, options: Mapping[str, Any], *, seed: int, device: str, timer: _Timer,
    epochs: int,
) -> str:  # fmt: skip
    import torch
    from datasets import Dataset as Table
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    class Timed(SentenceTransformerTrainer):
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, lambda _: timer.rate())
            return self.lr_scheduler

    class Stop(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            timer.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if timer.done(args.per_device_train_batch_size):
                control.should_training_stop = True

    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(work / "trainer"), num_train_epochs=epochs, per_device_train_batch_size=options["batch_size"],
        learning_rate=options["learning_rate"], bf16=True, batch_sampler="no_duplicates", save_strategy="no", report_to="none",
        logging_strategy="no", disable_tqdm=True, seed=seed, use_cpu=device == "cpu",
    )  # fmt: skip
    table = Table.from_dict({"anchor": [query for query, _ in pairs], "positive": [doc for _, doc in pairs]})
    Timed(
        model=model, args=arguments, train_dataset=table, loss=MultipleNegativesRankingLoss(model), callbacks=[Stop()]
    ).train()  # fmt: skip
    timer.pairs = min(timer.pairs, len(pairs) * epochs)
    return "trainer"


def _by_loop(
    model: Any, pairs: Sequence[tuple[str, str]], work: Path, options: Mapping[str, Any], *, seed: int, device: str, timer: _Timer,
    epochs: int,
) -> str:  # fmt: skip
    """What the trainer does, without it: for machines where its packages (accelerate, datasets) are missing."""
    import torch
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    loss_of = MultipleNegativesRankingLoss(model)
    model.train()
    named = list(model.named_parameters())
    plain = [p for name, p in named if "bias" in name or "LayerNorm" in name]
    others = [p for name, p in named if not ("bias" in name or "LayerNorm" in name)]
    # The trainer's defaults: no weight decay, fused where the device has it, norm cut to 1.
    optimizer = torch.optim.AdamW(plain + others, lr=0.0, weight_decay=0.0, fused=device == "cuda")
    timer.start()
    for epoch in range(epochs):
        for rows in batches_without_duplicates(pairs, options["batch_size"], seed=(seed, epoch)):
            for group in optimizer.param_groups:
                group["lr"] = options["learning_rate"] * timer.rate()
            columns = [[pairs[row][side] for row in rows] for side in (0, 1)]
            features = [
                {name: value.to(device) for name, value in model.preprocess(texts).items() if hasattr(value, "to")} for texts in columns
            ]
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = loss_of(features, None)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if timer.done(len(rows)):
                break
        else:
            continue
        break
    if device == "cuda":
        torch.cuda.synchronize()
        timer.ended = timer.clock()
    return "plain loop (accelerate or datasets is not installed)"


def batches_without_duplicates(pairs: Sequence[tuple[str, str]], size: int, *, seed: Any) -> Iterator[list[int]]:
    """Yields rows in random order, ``size`` at a time, no text twice among them; what does not fit waits for a later batch.

    >>> pairs = [("a", "x"), ("b", "x"), ("c", "y")]
    >>> sorted(sorted(batch) for batch in batches_without_duplicates(pairs, 2, seed=0)) in ([[0, 2], [1]], [[0], [1, 2]])
    True
    """
    waiting = np.random.default_rng(seed).permutation(len(pairs)).tolist()
    while waiting:
        texts: set[str] = set()
        batch: list[int] = []
        later: list[int] = []
        for place_of, row in enumerate(waiting):
            if len(batch) == size:
                later += waiting[place_of:]
                break
            if texts.isdisjoint(pairs[row]):
                batch.append(row)
                texts.update(pairs[row])
            else:
                later.append(row)
        waiting = later
        yield batch
