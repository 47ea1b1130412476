"""Texts that are about nothing: training texts whose rare tokens are replaced by random words of the vocabulary.

Tuning on one domain bends the model elsewhere too, and no text from elsewhere is at hand to hold it. What all texts share are the common
words, the questions' forms, the build of a sentence: these are kept, and the content is drawn from everywhere. The base's vectors of such
texts, held while the model learns, keep more of its general knowledge than those of plain random words do (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from nearfield.tune.batches import Batch
from nearfield.tune.pairs import TokenIds, TrainingPairs
from nearfield.types import BoolArray, IntArray

# A token in more than this share of the training queries, or of the documents, is form and not content.
COMMON = 0.02
# The share is counted on this many texts at most: a few hundredths are told apart by far fewer.
COUNTED = 5000
# Texts made for each step, and how much of a document is used: a quarter more tokens per step for 64 pairs of 128 tokens.
QUERIES, DOCUMENTS, TOKENS = 32, 24, 64
# How tokenizers mark that a token begins a word (byte-level BPE, SentencePiece), or that it goes on with one (WordPiece).
BEGINS, CONTINUES = ("\u0120", "\u2581"), "##"
SHORTEST_WORD = 3


class Scrambler:
    """Makes the texts of a step: a pure function of seed and step, so that a resumed run sees what an uninterrupted one would.

    Args:
        pairs: the training pairs; their tokens say what is common.
        tokenizer: whose vocabulary the words are drawn from.
        seed: of the choice of texts and words.
    """

    def __init__(self, pairs: TrainingPairs, tokenizer: Tokenizer, seed: int) -> None:
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        size = max(vocabulary.values()) + 1
        self.words, self.continues = word_tokens(vocabulary)
        self.common = _common(pairs.queries, size) | _common(pairs.documents, size)
        self.common[[i for i, added in tokenizer.get_added_tokens_decoder().items() if added.special]] = True
        self.seed = seed

    def texts(self, batch: Batch, step: int) -> list[TokenIds]:
        """The scrambled texts of a step, made of some of its own queries and documents."""
        rng = np.random.default_rng((self.seed, step, 1))
        queries = rng.choice(len(batch.queries), min(QUERIES, len(batch.queries)), replace=False)
        documents = rng.choice(len(batch.documents), min(DOCUMENTS, len(batch.documents)), replace=False)
        made = [self.scramble(batch.queries[i], rng) for i in queries]
        # The last token ends the text for most tokenizers: a shortened document keeps it.
        return made + [self.scramble([*ids[: TOKENS - 1], *ids[TOKENS - 1 :][-1:]], rng) for ids in (batch.documents[i] for i in documents)]

    def scramble(self, ids: Sequence[int], rng: np.random.Generator) -> TokenIds:
        """Replaces each rare word by a random one; the first and the last token stay."""
        row = np.asarray(ids, np.int64).copy()
        rare = ~self.common[row]
        rare[[0, -1]] = False
        drop = rare & self.continues[row]
        row[rare] = rng.choice(self.words, int(rare.sum()))
        kept: list[int] = row[~drop].tolist()
        return kept


def word_tokens(vocabulary: dict[str, int]) -> tuple[IntArray, BoolArray]:
    """Returns the ids of tokens that are whole words of letters, and for every id whether it goes on with a word.

    >>> words, continues = word_tokens({"house": 0, "##ing": 1, "[CLS]": 2, "an": 3})
    >>> words.tolist(), continues.tolist()
    ([0], [False, True, False, False])
    """
    marked = any(token.startswith(BEGINS) for token in vocabulary)
    continues = np.zeros(max(vocabulary.values()) + 1, np.bool_)
    words = []
    for token, i in vocabulary.items():
        begins = token.startswith(BEGINS)
        continues[i] = token.startswith(CONTINUES) if not marked else not begins
        word = token[1:] if begins else token
        if begins == marked and word.isalpha() and len(word) >= SHORTEST_WORD:
            words.append(i)
    return np.sort(np.array(words or sorted(vocabulary.values()), np.int64)), continues


def _common(texts: Sequence[TokenIds], size: int) -> BoolArray:
    counted = texts[:COUNTED]
    seen = np.zeros(size, np.int64)
    for ids in counted:
        seen[np.unique(np.asarray(ids, np.int64))] += 1
    common: BoolArray = seen > COMMON * len(counted)
    return common
