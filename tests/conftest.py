"""Shared fixtures: tiny models of every shape, made here, so that no test needs the network or a large download."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nearfield.kernels.choice import backend_name

if TYPE_CHECKING:
    from tuned_runs import Inputs

# Tests of small models are slower with more threads than with one; the tests of threading set their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Packed weights of models that live for one test do not belong into the home of whoever runs the tests.
if "NEARFIELD_CACHE" not in os.environ:
    os.environ["NEARFIELD_CACHE"] = tempfile.mkdtemp(prefix="nearfield-tests-")
    atexit.register(shutil.rmtree, os.environ["NEARFIELD_CACHE"], ignore_errors=True)

# For tests of what the native scan leaves out: its twin (NEARFIELD_BACKEND=numba) scores every row.
of_native_scorer = pytest.mark.skipif(backend_name() == "numba", reason="a property of the native scorer")

WORDS = """
the a of to in is are what how why when which returns raises value values array arrays file files index search find list vector vectors
query queries document documents model models train test data set sort read write open close path name number string text word words
key item map tree graph node edge score rank top nearest neighbour distance metric cosine
""".split()  # noqa: SIM905 (sixty quoted words read worse)


@pytest.fixture(autouse=True)
def settings_left_as_found() -> Iterator[None]:
    """No test may leave a setting of ours behind: with threads capped, a later test of threads fails for no reason of its own."""
    before = {name: value for name, value in os.environ.items() if name.startswith("NEARFIELD_")}
    yield
    after = {name: value for name, value in os.environ.items() if name.startswith("NEARFIELD_")}
    for name in after.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    assert after == before, "settings left behind"


def make_tiny_model(
    folder: Path,
    *,
    pooling: str = "mean",
    normalize: bool = True,
    max_tokens: int = 64,
    seed: int = 0,
    hidden: int = 32,
    prompts: dict[str, str] | None = None,
    **config: object,
) -> Path:
    """Writes a random two-layer BERT in the sentence-transformers layout and returns its folder; ``config`` changes the BertConfig."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789.,?!-_()")
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), *sorted(set(WORDS) - set(letters))]
    table = {token: i for i, token in enumerate(vocab)}
    tokenizer = Tokenizer(models.WordPiece(table, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", table["[CLS]"]), ("[SEP]", table["[SEP]"])]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**special, "do_lower_case": True, "model_max_length": max_tokens, "tokenizer_class": "BertTokenizer"})
    )
    torch.manual_seed(seed)
    sizes: dict[str, object] = {
        "vocab_size": len(vocab), "hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 2 * hidden,
        "max_position_embeddings": max(64, max_tokens),
    }  # fmt: skip
    BertModel(BertConfig(**(sizes | config)), add_pooling_layer=False).save_pretrained(folder, safe_serialization=True)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    if normalize:
        modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}
    flags = {name: mode == pooling for mode, name in modes.items()} | {
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": hidden, **flags}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_tokens, "do_lower_case": False}))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": prompts or {}, "default_prompt_name": None, "similarity_fn_name": "cosine"})
    )
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mean-pooled, normalized two-layer BERT with 32 dimensions and 64 tokens."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes further tiny models: ``tiny_model_of(pooling="cls", normalize=False)``."""

    def make(**options: object) -> Path:
        return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def tiny_bundle(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny model."""
    from nearfield.export.export import export_bundle

    out = tmp_path_factory.mktemp("bundle") / "bundle"
    export_bundle(tiny_model, out, progress=False)
    return out


@pytest.fixture(scope="session")
def run_inputs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Data, guard and options of a small tuning run."""
    from tuned_runs import make_inputs

    return make_inputs(tmp_path_factory.mktemp("inputs"), tiny_model)


@pytest.fixture(scope="session")
def whole_run(run_inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of that run, made by the command line in a fresh process that nothing interrupted."""
    from tuned_runs import nearfield

    out = tmp_path_factory.mktemp("whole") / "bundle"
    # Relative paths, which mean something else in another folder.
    words = ["pairs.jsonl", "--base", run_inputs.base, "--guard", "guard", "--config", "config.json", "--out", out, "--quiet"]
    done = nearfield("tune", *words, cwd=run_inputs.pairs.parent, PYTHONHASHSEED="1")
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    return out


def make_pairs(count: int = 60, seed: int = 0) -> list[dict[str, str]]:
    """Query-positive pairs that can be learnt: both sides share their rarest words, in clusters that no split cuts."""
    import random

    rng = random.Random(seed)
    rows = []
    for number in range(count):
        topic = " ".join(rng.sample(WORDS, 3))
        rows.append({"query": f"what is {topic} {number}", "positive": f"{topic} {number} returns the {' '.join(rng.sample(WORDS, 8))}"})
    return rows


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """60 pairs as JSON lines."""
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in make_pairs()), encoding="utf-8")
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread for the test: two share a small model's step at the price of waiting for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
