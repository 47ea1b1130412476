"""A model and texts for a machine that has only the working tree: no package with a model, no installed documentation, no network.

The model has the true shape of all-MiniLM-L6-v2 with random weights: the same time, vectors that mean nothing. ``NEARFIELD_BENCH_MODEL``
names a folder with real weights to be taken instead; the packaged model is, where it is installed.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.core.plan import ROOT, Plan

VARIABLE = "NEARFIELD_BENCH_MODEL"
MAX_TOKENS = 512
SEED = 20_261_127
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
SIZES = {
    "vocab_size": 30_522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1_536,
    "max_position_embeddings": 512,
}  # fmt: skip


def model(plan: Plan) -> tuple[Path, str]:
    """A folder in the sentence-transformers layout that reads up to 512 tokens, made once into the cache, and what it is."""
    named = os.environ.get(VARIABLE)
    source: Path | None = Path(named) if named else None
    if source is None:
        from nearfield.encode.models import resolve_model
        from nearfield.errors import MissingExtraError

        try:
            source = resolve_model(None)
        except MissingExtraError:
            source = None
    folder = plan.cache / ("shaped-real" if source else "shaped-random")
    if not (folder / "modules.json").is_file():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        if source is not None:
            shutil.copytree(source, part)
            _change(part / "sentence_bert_config.json", max_seq_length=MAX_TOKENS)
        else:
            _write_random(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    return folder, "all-MiniLM-L6-v2" if source else "random weights in the shape of all-MiniLM-L6-v2"


def words() -> list[str]:
    """The words of this project's own documentation, in their order."""
    files = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    return re.findall(r"[a-z]+(?:-[a-z]+)*|\d+|[.,:;()]", " ".join(path.read_text(encoding="utf-8") for path in files).lower())


def texts_of(folder: Path, tokens: int, count: int, ragged: float = 0.25) -> list[str]:
    """``count`` different runs of these words of about ``tokens`` tokens each (within ``ragged``, uniformly; [CLS] and [SEP] included)."""
    from nearfield.encode.tokenize import TextTokenizer

    every = words()
    tokenizer = TextTokenizer(folder / "tokenizer.json", MAX_TOKENS)
    distinct = sorted(set(every))
    size_of = {word: len(ids) - 2 for word, ids in zip(distinct, tokenizer(distinct).ids, strict=True)}
    sizes = [size_of[word] for word in every]
    draw = random.Random(SEED + tokens)
    # In order, each once: short runs of a few numbers stand in the documents more than once.
    out: dict[str, None] = {}
    while len(out) < count:
        left = round(draw.uniform(1 - ragged, 1 + ragged) * tokens) - 2
        start = at = draw.randrange(len(every) - 2 * tokens)
        while at < len(every) and left >= sizes[at]:
            left -= sizes[at]
            at += 1
        out[" ".join(every[start:at])] = None
    return list(out)


def _change(path: Path, **values: object) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(known | values, indent=2) + "\n", encoding="utf-8")


def _write_random(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        # 0.05: with BERT's own 0.02 every text has nearly the same vector, and a cosine would say nothing.
        BertModel(BertConfig(**SIZES, initializer_range=0.05), add_pooling_layer=False).save_pretrained(folder)
    _write_tokenizer(folder, vocabulary(SIZES["vocab_size"]))
    _change(folder / "tokenizer_config.json", **SPECIAL, do_lower_case=True, model_max_length=MAX_TOKENS, tokenizer_class="BertTokenizer")
    _change(folder / "special_tokens_map.json", **SPECIAL)
    _change(folder / "sentence_bert_config.json", max_seq_length=MAX_TOKENS, do_lower_case=False)
    (folder / "1_Pooling").mkdir()
    _change(folder / "1_Pooling" / "config.json", word_embedding_dimension=SIZES["hidden_size"], pooling_mode_mean_tokens=True)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(kinds)
    ]
    (folder / "2_Normalize").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")


def vocabulary(size: int) -> list[str]:
    """Word pieces: special tokens, characters, the most frequent words of the documentation, whole and as endings, then unused ones."""
    characters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    counted = Counter(words())
    # A word in five is left out, so that words have 1.3 pieces, as English has in BERT's vocabulary.
    frequent = [word for number, (word, _) in enumerate(counted.most_common()) if number % 5]
    endings = [f"##{word[cut:]}" for word in frequent for cut in (3, 5) if len(word) > cut + 1]
    pieces = dict.fromkeys([*SPECIAL.values(), *characters, *(f"##{c}" for c in characters), *frequent, *endings])
    return [*pieces, *(f"[unused{i}]" for i in range(size))][:size]


def _write_tokenizer(folder: Path, pieces: Sequence[str]) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    table = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(table, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[(name, table[name]) for name in ("[CLS]", "[SEP]")]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
