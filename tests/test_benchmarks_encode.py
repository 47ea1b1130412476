"""The encoder suites at a tiny size: every row is of the work that it names, and its figures are of the calls that were timed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from benchmark_samples import SAMPLE, needs_core, sample_document
from benchmarks.core import held, results, tables
from benchmarks.core.plan import Plan
from benchmarks.encoders import engines, graphs, models
from benchmarks.encoders.engines import EncodeEngine, Maker, Setup
from benchmarks.encoders.loop import HandLoop, padded
from benchmarks.encoders.models import AS_SHIPPED, DEEP, MINILM
from benchmarks.suites import encode, encode_load, encode_quality, encode_start, end_to_end, tokenize, tune
from conftest import WORDS, make_tiny_model

pytestmark = needs_core


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with as many positions as the suites' longest texts."""
    return make_tiny_model(tmp_path_factory.mktemp("encoders") / "model", max_tokens=512)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("suites")
    chance = np.random.default_rng(0)
    documents = [" ".join(chance.choice(WORDS, size=640)) for _ in range(80)]
    (folder / "documents.json").write_text(json.dumps(documents))
    (folder / "short-texts.json").write_text(json.dumps([" ".join(chance.choice(WORDS, size=9)) for _ in range(9_000)]))
    judged = folder / "judged"
    (judged / "qrels").mkdir(parents=True)
    texts = [" ".join(text.split()[:12]) for text in documents]
    for name, ids, items in (("corpus", "d", texts), ("queries", "q", [" ".join(text.split()[:4]) for text in texts[:20]])):
        (judged / f"{name}.jsonl").write_text(
            "".join(json.dumps({"_id": f"{ids}{i}", "text": text}) + "\n" for i, text in enumerate(items))
        )
    (judged / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i in range(20))]) + "\n")
    return Plan(quick=True, threads=(1,), only=("onnxruntime",), ceilings=SAMPLE, cache=folder, out=folder, judged=(judged,))


@pytest.fixture(autouse=True)
def small(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearfield.encode.models.resolve_model", lambda path=None: source)
    monkeypatch.setattr(encode, "QUICK", ((MINILM, 16, 1), (MINILM, 16, 8)))
    for module, values in {
        encode: {"CALLS": 2, "CHECKED": 8}, encode_load: {"QUICK_CALLS": 10, "CALLS_OF_ONE": 3, "IDLE_S": 0.05, "TRIAL": 2_000},
        engines: {"TRIAL_S": 0.0}, encode_start: {"QUICK_TEXTS": 4}, end_to_end: {"QUICK_ROWS": 256, "QUICK_CALLS": 8, "CHOSEN_ON": 32},
    }.items():  # fmt: skip
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setenv("NEARFIELD_THREADS", "1")  # the suites change it: its old value comes back with the fixture's end


# --- what runs ---------------------------------------------------------------------------------------------------------


def test_the_full_grid_has_every_cell_and_the_short_one_those_of_the_readme() -> None:
    full = encode.grid(Plan(full=True, threads=(1, 2)))
    assert len(full) == len(set(full)) == 2 * 2 * 4 * 4
    short = encode.grid(Plan(threads=(2,)))
    assert set(short) < set(full)
    assert {cell[1:] for cell in short} >= set(encode.SHOWN)
    assert {cell[2] for cell in short} == set(encode.LENGTHS)


def test_the_deep_model_holds_every_layer_twice(plan: Plan, source: Path) -> None:
    from safetensors.numpy import load_file

    folder = models.bundle(plan, DEEP) / "model"
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 4
    once, twice = load_file(source / "model.safetensors"), load_file(folder / "model.safetensors")
    for name, values in once.items():
        assert np.array_equal(twice[name], values)
        if name.startswith("encoder.layer.1."):
            assert np.array_equal(twice[name.replace("layer.1.", "layer.3.")], values)
    layered = [name for name in once if name.startswith("encoder.layer.")]
    assert len(twice) == len(once) + len(layered)


def test_texts_of_the_full_length_fill_it_and_shorter_ones_vary(plan: Plan) -> None:
    maker = Maker(plan, MINILM, 1, [])
    assert set(maker.token_counts(encode.texts_for(plan, 512, 8))) == {512}
    counts = maker.token_counts(encode.texts_for(plan, 64, 32))
    assert 48 <= min(counts) < max(counts) <= 80


@pytest.mark.parametrize(("rows", "streams"), [(1, 1), (3, 1), (8, 2), (32, 2)])
def test_the_hand_written_loop_keeps_the_order(source: Path, rows: int, streams: int) -> None:
    seen: list[tuple[int, ...]] = []

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        seen.append(ids.shape)
        assert ids[mask == 0].sum() == 0
        return np.stack([ids.sum(axis=1), mask.sum(axis=1)], axis=1).astype(np.float32)

    texts = [" ".join(WORDS[i : i + 1 + i % 7]) for i in range(20)]
    loop = HandLoop(source, 6, [forward] * streams, rows)
    expected = [[sum(line), len(line)] for line in loop.tokenize(texts)]
    assert loop(texts).tolist() == expected
    assert max(len(line) for line in loop.tokenize(texts)) == 6
    assert max(shape[0] for shape in seen) == min(rows, -(-20 // streams))
    loop.close()


def test_padding() -> None:
    ids, mask = padded([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_an_engine_runs_at_its_fastest_setting(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float] = []

    def make(setup: Setup, wait: float) -> encode.Encode:
        made.append(wait)

        def work(texts: Sequence[str]) -> np.ndarray:
            time.sleep(wait)
            return np.ones((len(texts), 2), np.float32)

        return work

    engine = EncodeEngine("nearfield x", make, settings=lambda threads, texts: [{"wait": 0.05}, {"wait": 0.0}, {"wait": 0.02}])
    maker = Maker(plan, MINILM, 1, [engine])
    for _ in range(2):
        _, setting, seconds = maker.fastest(engine, ["a"])
        assert setting == {"wait": 0.0}
        assert seconds < 0.02
    assert made == [0.05, 0.0, 0.02], "each setting is made once"


def test_settings_differ_in_what_pays() -> None:
    assert engines._rows(2, 1) == [{}]
    assert engines._rows(2, 8) == [{"rows": 8}]
    assert engines._rows(2, 256) == [{"rows": 8}, {"rows": 32}]
    assert len(engines._rows_and_streams(2, 32)) == 6
    assert engines._rows_and_streams(1, 1) == [{"rows": 1}]


def test_a_held_run_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(held.OURS, "avx512vnni")
    assert "does not multiply bf16" in str(engines.no_bf16())
    assert {one["others"] for one in engines._with_others(2, 32)} == {"f32"}


# --- the suites --------------------------------------------------------------------------------------------------------


def test_a_tiny_encode_suite(plan: Plan) -> None:
    handed: list[int] = []
    rows = encode.run(replace(plan, so_far=lambda part: handed.append(len(part))))
    assert handed == [len(rows) // 2, len(rows)], "after each of two cells"
    results.validate(sample_document(*rows))
    groups = {row.group for row in rows}
    assert groups == {f"all-MiniLM-L6-v2, {what}, 1 thread" for what in ("one text of 16 tokens", "8 texts of 16 tokens")}
    peers = [row for row in rows if not row.ours]
    assert {row.engine for row in peers} == {"onnxruntime f32", "onnxruntime int8"}
    for row in rows:
        assert row.quality is not None
        assert row.quality > (0.99999 if row.engine.endswith(("f32", "fp32")) else 0.9)
        assert row.share is None or row.share > 0
        single = row.params["batch"] == 1
        assert (row.unit, row.p99 is not None) == (("ms / text", True) if single else ("texts / s", False))
        assert row.params["texts_per_s"] == pytest.approx(1000 / row.value if single else row.value)
    for row in (row for row in peers if row.params["batch"] == 8):
        assert "8 rows" in row.params["shown"] or "1 rows" in row.params["shown"]
    assert "nearfield onnx int8" in {row.engine for row in rows}


def test_an_engine_whose_call_takes_too_long_gets_a_part_of_it(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "LONGEST_CALL_S", 1e-9)
    monkeypatch.setattr(encode, "PART", 2)
    monkeypatch.setattr(encode, "QUICK", ((MINILM, 16, 8),))
    for row in encode.run(plan):
        assert row.params["asked"] == 2
        assert row.params["shown"].endswith("2 of 8")
        assert row.value == pytest.approx(2 * row.params["texts_per_s"] / 2)
        seconds = float(np.median([one["seconds"] for one in row.rounds]))
        assert row.value == pytest.approx(2 * len(row.rounds) / len(row.rounds) * row.rounds[0]["calls"] / seconds)


def test_a_tiny_load_suite(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    real = encode_load._check
    monkeypatch.setattr(encode_load, "_check", lambda name, *rest: (checked.append(name), real(name, *rest)))
    rows = encode_load.run(plan)
    results.validate(sample_document(*rows))
    alone = [row for row in rows if "at a time" in row.group]
    together = [row for row in rows if "at once" in row.group]
    assert {row.engine for row in alone} == {row.engine for row in together} >= {"nearfield onnx int8", "onnxruntime int8"}
    assert set(checked) == {row.engine for row in together}
    for row in alone:
        assert row.params["calls"] == 3 * 10
        assert row.params["tail"] == pytest.approx(row.p99 / row.p50)
        assert row.params["bare_tail"] >= 1
        assert row.params["idle"] >= 0
    for row in together:
        assert row.params["calls"] == 3 * 8 * 3
        assert row.unit == "queries / s"
    assert "of a bare loop" in [column.header for column in tables.table(alone).columns]


def test_the_bare_loop_is_as_long_as_asked() -> None:
    loop = encode_load.bare_loop(0.002)
    taken = []
    for _ in range(20):
        start = time.perf_counter()
        loop(None)
        taken.append(time.perf_counter() - start)
    assert 0.0005 < min(taken) < 0.008  # of a machine with other work


def test_idle_cpu_sees_a_thread_that_spins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_load, "IDLE_S", 0.3)
    quiet = encode_load.idle_share(lambda texts: np.zeros((1, 1)), ["a"])
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    spinner = threading.Thread(target=spin)
    spinner.start()
    try:
        spinning = encode_load.idle_share(lambda texts: np.zeros((1, 1)), ["a"])
    finally:
        stop.set()
        spinner.join()
    assert quiet < 0.1 < spinning


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_caller_that_fails_is_not_timed() -> None:
    def encode_one(texts: Sequence[str]) -> np.ndarray:
        if texts == ["bad"]:
            raise ValueError("no")
        return np.zeros((1, 1))

    with pytest.raises(RuntimeError, match="a caller stopped early"):
        encode_load._together(encode_one, [["good"], ["bad"]])
    spent, taken = encode_load._together(encode_one, [["good"], ["good", "good"]])
    assert len(taken) == 3
    assert max(taken) <= spent


def test_callers_who_spoil_each_others_rows_are_found() -> None:
    shared = np.zeros((1, 4), np.float32)
    both = threading.Barrier(2)
    alone = [True]

    def encode_one(texts: Sequence[str]) -> np.ndarray:
        shared[:] = len(texts[0])
        if not alone[0]:
            both.wait()  # the other's row is in the same place by now
        elif texts == ["last"]:
            alone[0] = False
        return shared.copy()

    with pytest.raises(RuntimeError, match="spoiler: 1 of 2 rows are not what one caller gets when 2 call at once"):
        encode_load._check("spoiler", encode_one, [["a"], ["last"]])
    encode_load._check("honest", lambda texts: np.full((1, 4), len(texts[0]), np.float32), [["a", "b"], ["last", "c"]])


def test_no_two_calls_share_a_request_of_openvino() -> None:
    """Requests are lent: as many as calls run at once, each to one of them, and used again."""
    both, made = threading.Barrier(2, timeout=30), []

    class Request:
        def __init__(self) -> None:
            self.busy = False
            made.append(self)

        def infer(self, inputs: Sequence[np.ndarray], share_inputs: bool) -> None:
            assert not self.busy
            self.busy, self.rows = True, inputs[0]
            if len(self.rows) == 2:
                both.wait()  # until the other is inside its call too

        def get_output_tensor(self, place: int) -> SimpleNamespace:
            self.busy = False
            return SimpleNamespace(data=self.rows)

    forward = engines._requests(SimpleNamespace(create_infer_request=Request))
    for value in range(3):
        assert forward(np.full((1, 1), value), np.ones((1, 1))).item() == value
    assert len(made) == 1
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(forward, np.full((2, 1), value), np.ones((2, 1))) for value in (7, 8)]
        assert [call.result()[0, 0] for call in calls] == [7, 8]
    assert len(made) == 2


def test_a_tiny_quality_suite(plan: Plan) -> None:
    rows = encode_quality.run(plan)
    results.validate(sample_document(*rows))
    losses = {row.engine: row for row in rows if row.group == "loss on judged"}
    assert set(losses) >= {"nearfield onnx int8", "onnxruntime int8"}
    for row in losses.values():
        low, high = row.params["interval"]
        assert low <= row.params["points_lost"] <= high
        assert 0.9 < row.params["min_cosine"] <= row.params["mean_cosine"] == row.quality
    if "nearfield native fp32" in losses:
        assert losses["nearfield native fp32"].params["interval"] == [0.0, 0.0]
        assert losses["nearfield native fp32"].quality == pytest.approx(1, abs=1e-6)
    assert all(row.params["min_cosine"] <= row.value for row in rows if row.group == "cosine to float32")


def test_a_loss_is_paired() -> None:
    before, after = np.array([0.5, 0.9, 0.1, 0.7]), np.array([0.4, 0.9, 0.1, 0.7])
    found = encode_quality.paired(before, after)
    half = 1.96 * np.std([10.0, 0, 0, 0], ddof=1) / 2
    assert found["points_lost"] == pytest.approx(2.5)
    assert found["interval"] == pytest.approx([2.5 - half, 2.5 + half])


def test_data_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_quality, "ROOT", tmp_path / "repository")
    (tmp_path / "shared" / "data" / "nl2bash").mkdir(parents=True)
    plan = Plan()
    assert [path.name for path in encode_quality.judged(plan)] == ["nl2bash"]
    assert [line.split(" (")[0] for line in plan.skipped] == [f"skipped: nDCG@10 on {name}" for name in ("medquad", "squad_general")]


def test_a_fresh_process_gives_its_first_vector_and_its_peak(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    models.bundle(plan, MINILM)  # the child must find all that it needs: there resolve_model is the real one
    seconds, peak = encode_start._start(plan, "nearfield onnx int8", MINILM, 1, ["a b", "c"])
    assert 0.05 < seconds < 60
    assert 20e6 < peak < 2e9
    with pytest.raises(RuntimeError, match="a fresh process ended with 1"):
        encode_start._start(plan, "nobody", MINILM, 1, ["a"])


def test_a_tiny_end_to_end_finds_the_rows_of_its_texts(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hnswlib")
    rows = end_to_end.run(plan)
    results.validate(sample_document(*rows))
    assert {row.engine for row in rows} >= {"nearfield Searcher, onnx int8 + FrozenIndex", "onnxruntime int8 + hnswlib"}
    for row in rows:
        assert row.quality is not None
        assert row.quality > 0.8, row.engine
        assert row.params["ef"] in end_to_end.WIDTHS
        assert row.p50 == row.value


def test_the_smallest_width_that_reaches_the_target() -> None:
    assert end_to_end.smallest_width(lambda ef: 1 - 1 / ef) == 20
    assert end_to_end.smallest_width(lambda ef: 0.0) == end_to_end.WIDTHS[-1]


@pytest.mark.slow
def test_openvino_computes_the_same_model(plan: Plan) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    texts = encode.texts_for(plan, 16, 8)
    maker = Maker(plan, AS_SHIPPED, 1, [])
    truth = maker.truth(texts)
    assert truth is not None
    for precision, least in (("bf16", 0.999), ("int8", 0.98)):
        found = engines.openvino(precision)(maker.setup, rows=4, others="f32")(texts)  # type: ignore[arg-type]
        assert encode_quality.row_cosines(found, truth).min() > least
    assert graphs.openvino_int8(plan, AS_SHIPPED).with_suffix(".bin").is_file()


def test_a_tiny_tokenize_suite(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize, "QUICK_CELLS", ((16, 1, 3), (64, 4, 1)))
    rows = tokenize.run(replace(plan, only=("tokenizers",)))
    results.validate(sample_document(*rows))
    assert [row.engine for row in rows] == ["nearfield", "tokenizers"] * 2
    for row in rows:
        assert row.quality == 1.0
        assert row.value > 0
        assert (row.p50 is not None) == (row.params["batch"] == 1)
    assert {row.engine for row in tokenize.run(replace(plan, peers=False))} == {"nearfield"}


def test_a_tiny_tune_suite(plan: Plan, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "QUICK_PAIRS", 8)
    rows = tune.run(replace(plan, only=("sentence",)), model=source)
    results.validate(sample_document(*rows))
    assert next(row.engine for row in rows if row.ours) == "nearfield f32"
    assert ("sentence-transformers f32" in {row.engine for row in rows}) == all(map(find_spec, tune.NEEDS))
    for row in rows:
        assert row.value == pytest.approx(8 / row.rounds[0]["seconds"])
        assert row.params == {"pairs": 8, "batch": 8, "tokens": tune.TOKENS}
    pairs = tune.pairs_of(plan, 20)
    assert len({query for query, _ in pairs}) == 20
    assert all(len(query.split()) == tune.QUERY_WORDS and text for query, text in pairs)
    with pytest.raises(RuntimeError, match="documents of 48 words found, 9999 expected"):
        tune.pairs_of(plan, 9_999)
