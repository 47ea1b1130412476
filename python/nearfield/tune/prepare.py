"""What is worked out once before the first step: mined negatives, the teacher, and its scores. Recomputed, not stored, by a resumed run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from nearfield.config import TuneConfig
from nearfield.encode.models import resolve_model
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.progress import progress as show_progress
from nearfield.tune.crossencoder import train_cross_encoder
from nearfield.tune.embed import vectors_of
from nearfield.tune.negatives import BiEncoderTeacher, Teacher, mine, score_candidates
from nearfield.tune.pairs import TrainingPairs

CROSS_ENCODER = "cross-encoder"
# The offline teacher's steps at most, of a quarter of a batch's queries with four candidates each: about a pass over 6,000 pairs.
TEACHER_STEPS = 400


def prepared(
    pairs: TrainingPairs, base: Tower, fresh: Callable[[], Tower], config: TuneConfig, *, dtype: str, progress: bool
) -> TrainingPairs:
    """Returns ``pairs`` with mined negatives and a teacher's scores, as far as the config asks for either.

    Args:
        pairs: the training pairs.
        base: the base, for mining; left alone.
        fresh: loads another copy of it, for the cross-encoder.
        config: ``mined_negatives``, ``distill`` and ``teacher`` count here.
        dtype: as for ``embed``.
        progress: shows bars on stderr.

    Raises:
        InputError: distill without a teacher, or a teacher that cannot be used.
    """
    if config.distill and config.teacher is None:
        raise InputError(
            f'config: distill: {config.distill:g} given without a teacher; "teacher": "{CROSS_ENCODER}" or a model folder expected'
        )
    rows = 2 * config.chunk_rows
    if config.mined_negatives:
        with show_progress("mining negatives", 2, enabled=progress) as bar:
            queries = vectors_of(base, pairs.queries, chunk_rows=rows, dtype=dtype, bar=bar)
            bar.advance(1)
            documents = vectors_of(base, pairs.documents, chunk_rows=rows, dtype=dtype, bar=bar)
            bar.advance(1)
        mined = mine(pairs, queries, documents, config)
    if config.teacher is None:
        return mined if config.mined_negatives else pairs
    teacher = _teacher(mined if config.mined_negatives else pairs, fresh, config, dtype=dtype, progress=progress)
    if config.mined_negatives:
        mined = mine(pairs, queries, documents, config, teacher)
    known = mined if config.mined_negatives else pairs
    return dataclasses.replace(known, teacher=score_candidates(known, teacher)) if config.distill else known


def _teacher(pairs: TrainingPairs, fresh: Callable[[], Tower], config: TuneConfig, *, dtype: str, progress: bool) -> Teacher:
    tower = fresh()
    if config.teacher == CROSS_ENCODER:
        steps = min(TEACHER_STEPS, max(20, 4 * len(pairs.pairs) // config.batch_size))
        with show_progress("training the teacher", steps, enabled=progress) as bar:
            return train_cross_encoder(tower, pairs, config, dtype=dtype, steps=steps, bar=bar)
    other = Tower.load(Path(resolve_model(config.teacher)), device=tower.device)
    sample = "A text that both tokenizers cut into pieces, 123."
    if other.tokenizer([sample]).ids != tower.tokenizer([sample]).ids:
        raise InputError(f"config: teacher: {config.teacher} has another tokenizer than the base; one with the same vocabulary expected")
    return BiEncoderTeacher(other, dtype=dtype, chunk_rows=2 * config.chunk_rows)
