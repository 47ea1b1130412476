"""The bake-off of bases: the same queries for all, the better one found, ties to the faster, and the words of tune."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest

from nearfield.errors import InputError
from nearfield.evaluate.bakeoff import bake_off, describe, named
from test_tune_train import code_book


class Fake:
    """An encoder that finds the right document with a probability, and takes its time."""

    backend, precision, truncated = "fake", "fp32", 0

    def __init__(self, name: str, noise: float, pause: float = 0.0) -> None:
        self.fingerprint, self.noise, self.pause, self.seen = name, noise, pause, list[list[str]]()
        self.data = code_book()
        self.dim = len(self.data.doc_ids)

    def encode(self, texts, *, kind="document", progress=False):  # type: ignore[no-untyped-def]
        self.seen.append(list(texts))
        time.sleep(self.pause)
        places = {text: i for i, text in enumerate(self.data.query_texts if kind == "query" else self.data.doc_texts)}
        rows = np.eye(self.dim, dtype=np.float32)[[places[text] for text in texts]]
        noise = np.random.default_rng(len(texts)).normal(size=rows.shape).astype(np.float32)
        return rows + self.noise * noise * (kind == "query")


def test_the_better_base_is_first_and_all_were_asked_the_same() -> None:
    good, bad = Fake("good" * 8, 0.1), Fake("bad" * 8, 1.0)
    found = bake_off(code_book(), [bad, good], documents=60)
    assert good.seen == bad.seen
    assert len(good.seen[1]) == 60
    assert found[0].ndcg == 1.0 > found[1].ndcg + 0.2
    assert found[0].behind is None
    assert found[1].behind is not None
    assert found[1].behind.high < 0
    assert "of 2 candidates" in describe(found)


def test_of_equals_the_faster_is_taken_though_its_mean_is_lower() -> None:
    slow, fast = Fake("slow" * 8, 0.1, pause=0.2), Fake("fast" * 8, 0.24)
    found = bake_off(code_book(), [slow, fast], queries=25)
    assert found[1].ndcg >= found[0].ndcg > 0.8
    assert found[0].texts_per_second > found[1].texts_per_second


def test_bad_candidates_are_refused() -> None:
    with pytest.raises(InputError, match="two at least expected"):
        bake_off(code_book(), [Fake("x" * 32, 0.0)])
    with pytest.raises(InputError, match="split 'test' asked for"):
        bake_off(code_book(), [Fake("x" * 32, 0.0)] * 2, split="test")


def test_names_with_commas(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    assert named(folder) == [str(folder)]
    assert named("x, y,") == ["x", "y"]


def test_tune_takes_the_better_of_two_bases_and_says_so(tmp_path: Path, tiny_model: Path) -> None:
    """The first candidate is the second with all word vectors alike: it can tell texts apart by their length alone."""
    import json
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    from conftest import make_pairs
    from nearfield.data.dataset import Finding
    from nearfield.workflow import tune

    flat = tmp_path / "flat"
    shutil.copytree(tiny_model, flat)
    weights = load_file(flat / "model.safetensors")
    for name, tensor in weights.items():
        if "word_embeddings" in name:
            weights[name] = torch.ones_like(tensor)
    save_file(weights, flat / "model.safetensors", metadata={"format": "pt"})
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in make_pairs(400)))
    found: list[Finding] = []
    config = {"batch_size": 8, "pieces": 0, "int8": "none", "dev_documents": 20}
    tune(pairs, base=f"{flat},{tiny_model}", out=tmp_path / "bundle", config=config, progress=False, on_findings=found.extend)
    (line,) = [finding.message for finding in found if finding.kind == "bake-off"]
    assert line.startswith(f"base: {tiny_model} of 2 candidates"), line
    # Surely behind: which of the two encodes faster just now must not matter.
    low, high = re.fullmatch(r".* \[(-[0-9.]+), (-[0-9.]+)\]\)", line).groups()  # type: ignore[union-attr]
    assert float(low) < float(high) < 0
    assert json.loads((tmp_path / "bundle" / "run.json").read_text())["base"] == str(tiny_model)
