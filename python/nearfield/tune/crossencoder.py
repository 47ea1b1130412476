"""A small cross-encoder, trained from the base on the training pairs: the teacher that needs no download.

It reads query and document together, so it sees which words answer which; a bi-encoder must decide what of a document to keep before it
knows the question. What it teaches comes from the same pairs and the same base: it can order candidates better than the pairs alone say,
and it cannot know what neither of them holds. A large one trained on millions of judgements is a better teacher (``Teacher`` takes any).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from nearfield.config import TuneConfig
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.progress import Bar
from nearfield.tune.batches import length_chunks
from nearfield.tune.pairs import TokenIds, TrainingPairs
from nearfield.tune.schedule import rate_at
from nearfield.types import FloatArray

# Candidates of a query in one training step: its document, and others that are mined or drawn at random.
CANDIDATES = 4


class CrossEncoder(torch.nn.Module):
    """The base's layers over ``query [SEP] document`` and one number from their pooled output.

    Args:
        tower: taken over and trained in place; give it a copy.
        dtype: "float32", or "bfloat16" for autocast.
        max_tokens: query and document together are cut to this.
        chunk_rows: pairs padded together.
    """

    def __init__(self, tower: Tower, *, dtype: str, max_tokens: int = 192, chunk_rows: int = 32) -> None:
        super().__init__()
        self.tower, self.dtype, self.chunk_rows = tower, dtype, chunk_rows
        self.max_tokens = min(max_tokens, tower.spec.max_tokens)
        self.head = torch.nn.Linear(tower.spec.dim, 1).to(tower.device)
        torch.nn.init.zeros_(self.head.bias)

    def joined(self, query: TokenIds, document: TokenIds) -> TokenIds:
        """Both texts as one: the query as it is, the document without its first token, cut to fit, its last token kept."""
        room = max(self.max_tokens - len(query), 2)
        rest = document[1:]
        return [*query[: self.max_tokens - 2], *(rest if len(rest) <= room else [*rest[: room - 1], rest[-1]])]

    def forward(self, queries: Sequence[TokenIds], documents: Sequence[TokenIds]) -> torch.Tensor:
        """Returns float32 ``(n,)`` logits in order."""
        ids = [self.joined(q, d) for q, d in zip(queries, documents, strict=True)]
        device, parts, places = self.tower.device, [], []
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.dtype == "bfloat16"):
            for chunk in length_chunks([len(row) for row in ids], self.chunk_rows):
                tokens, mask = (torch.from_numpy(part).to(device) for part in self.tower.tokenizer.pad([ids[i] for i in chunk]))
                hidden = self.tower.model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
                weight = mask[..., None].float()
                parts.append((hidden * weight).sum(1) / weight.sum(1).clamp_min(1.0))
                places.append(chunk)
        back = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable")).to(device)
        logits: torch.Tensor = self.head(torch.cat(parts)[back])[:, 0].float()
        return logits

    def scores(self, queries: Sequence[TokenIds], documents: Sequence[TokenIds]) -> FloatArray:
        """Returns float32 ``(n,)`` logits without gradients, a window at a time."""
        out = np.empty(len(queries), np.float32)
        with torch.inference_mode():
            for start in range(0, len(queries), 1024):
                part = slice(start, start + 1024)
                out[part] = self(queries[part], documents[part]).cpu().numpy()
        return out


def train_cross_encoder(
    tower: Tower, pairs: TrainingPairs, config: TuneConfig, *, dtype: str, steps: int, bar: Bar | None = None
) -> CrossEncoder:
    """Trains a cross-encoder to find each query's document among candidates: its negatives where it has some, else random documents.

    A pure function of its arguments.

    Args:
        tower: a copy of the base, trained in place.
        pairs: the training pairs, mined negatives among them where there are any.
        config: rate, clipping, warmup, batch size (a quarter of it queries a step) and seed are the run's.
        dtype: as for ``embed``.
        steps: optimizer steps.
        bar: advanced by one for each.

    Raises:
        InputError: the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = CrossEncoder(tower, dtype=dtype, chunk_rows=config.chunk_rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    per_step = max(2, config.batch_size // CANDIDATES)
    for step in range(steps):
        rng = np.random.default_rng((config.seed, step, 3))
        rows = pairs.pairs[rng.choice(len(pairs.pairs), min(per_step, len(pairs.pairs)), replace=False)]
        queries, documents = [], []
        for query, own in rows.tolist():
            others = [
                *rng.permutation(np.array(pairs.negatives[query], np.int64)).tolist(),
                *rng.permutation(len(pairs.documents)).tolist(),
            ]
            wrong = [d for d in dict.fromkeys(others[: 8 * CANDIDATES]) if d not in pairs.relevant[query] and d != own][: CANDIDATES - 1]
            # Too few documents to choose from: the same one again carries no gradient of its own beyond its share.
            wrong += wrong[:1] * (CANDIDATES - 1 - len(wrong))
            queries += [pairs.queries[query]] * (1 + len(wrong))
            documents += [pairs.documents[d] for d in (own, *wrong)]
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, peak=config.learning_rate, warmup_fraction=config.warmup_fraction, decay=config.decay)
        logits = model(queries, documents).reshape(len(rows), -1)
        loss = functional.cross_entropy(logits, torch.zeros(len(rows), dtype=torch.int64, device=logits.device))
        if not bool(loss.isfinite()):
            raise InputError(f"cross-encoder: the loss is {loss.item()} at step {step + 1} of {steps}: lower learning_rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        if bar is not None:
            bar.advance(1, note=f"loss {loss.item():.3f}")
    return model.eval()
