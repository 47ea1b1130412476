"""Scrambled texts: what stays, what is drawn, and that a step's texts depend on seed and step alone."""

from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer, models

from nearfield.tune.batches import Batch
from nearfield.tune.pairs import TrainingPairs
from nearfield.tune.scramble import DOCUMENTS, QUERIES, TOKENS, Scrambler, word_tokens

# 0 and 1 are special, 2 to 4 the common words, 5 the beginning of a rare word and 6 its end; from 10 on there are 90 more words.
VOCABULARY = {"[CLS]": 0, "[SEP]": 1, "what": 2, "is": 3, "the": 4, "lymph": 5, "##oma": 6, "a": 7, "12": 8, "x-y": 9}
VOCABULARY |= {f"word{'abcdefghijklmnopqrstuvwxyz'[i % 26] * (1 + i // 26)}": 10 + i for i in range(90)}


def scrambler(seed: int = 0) -> Scrambler:
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[CLS]"))
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    queries = [[0, 2, 3, 4, 10 + i, 1] for i in range(60)]
    documents = [[0, 4, 10 + i, 3, *range(10, 90), 1] for i in range(60)]
    return Scrambler(TrainingPairs(queries, documents[:1], np.zeros((1, 2), np.int64), [frozenset()] * 60, [()] * 60), tokenizer, seed)


def test_form_stays_and_content_is_drawn_from_the_vocabulary() -> None:
    made = scrambler().scramble([0, 2, 3, 4, 5, 6, 1], np.random.default_rng(0))
    assert made[:4] == [0, 2, 3, 4]
    assert made[-1] == 1
    assert len(made) == 6  # a rare word of two tokens became one word
    drawn = {scrambler().scramble([0, 2, 3, 4, 5, 6, 1], np.random.default_rng(i))[4] for i in range(200)}
    words, _ = word_tokens(VOCABULARY)
    assert drawn <= set(words.tolist())
    assert len(drawn) > 50


def test_a_step_has_its_own_texts_whatever_came_before() -> None:
    none = np.zeros((0, 0), np.bool_)
    batch = Batch(
        [[0, 2, 10 + i, 1] for i in range(50)], [[0, 4, *range(10, 99), 1]] * 40, np.empty(0, np.int64), np.empty(0, np.int64), none
    )
    texts = scrambler().texts(batch, 3)
    assert texts == scrambler().texts(batch, 3)
    assert texts != scrambler().texts(batch, 4)
    assert texts != scrambler(seed=1).texts(batch, 3)
    assert len(texts) == QUERIES + DOCUMENTS
    assert {len(row) for row in texts[QUERIES:]} == {TOKENS}
    assert all(row[0] == 0 and row[-1] == 1 for row in texts)


def test_tokenizers_that_mark_beginnings() -> None:
    words, continues = word_tokens({"\u0120house": 0, "ing": 1, "\u2581tree": 2, "<s>": 3, "\u0120an": 4})
    assert words.tolist() == [0, 2]
    assert continues.tolist() == [False, True, False, True, False]
