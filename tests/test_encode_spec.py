"""Model folders: what is read from them, and what is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from encode_models import edit_json
from nearfield.encode.models import resolve_model
from nearfield.encode.spec import ModelSpec, read_spec
from nearfield.errors import FormatError, InputError

EMPTY = {"query": "", "document": ""}


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("normalize", [True, False])
def test_old_layout(tiny_model_of: Callable[..., Path], pooling: str, normalize: bool) -> None:
    assert read_spec(tiny_model_of(pooling=pooling, normalize=normalize)) == ModelSpec(32, 64, pooling, normalize, EMPTY)  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "expected"), [("mean", "mean"), ("cls", "cls"), ("lasttoken", "last"), (["mean"], "mean")])
def test_new_layout(model: Path, mode: object, expected: str) -> None:
    (model / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 32, "pooling_mode": mode, "include_prompt": True}))
    (model / "sentence_bert_config.json").write_text(json.dumps({"transformer_task": "feature-extraction"}))
    edit_json(model / "tokenizer_config.json", model_max_length=48)
    spec = read_spec(model)
    assert (spec.pooling, spec.max_tokens) == (expected, 48)


def test_plain_folder_is_mean_and_normalized(model: Path) -> None:
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json"):
        (model / name).unlink()
    assert read_spec(model) == ModelSpec(32, 64, "mean", True, EMPTY)


@pytest.mark.parametrize(("stated", "positions", "expected"), [(1_000_000, 64, 64), (10, 64, 10), (1e30, 64, 64), (None, 64, 64)])
def test_length_never_passes_the_position_table(model: Path, stated: float | None, positions: int, expected: int) -> None:
    edit_json(model / "sentence_bert_config.json", max_seq_length=stated)
    edit_json(model / "tokenizer_config.json", model_max_length=None)
    edit_json(model / "config.json", max_position_embeddings=positions)
    assert read_spec(model).max_tokens == expected


def test_roberta_positions_start_behind_the_padding_id(model: Path) -> None:
    edit_json(model / "config.json", model_type="roberta", pad_token_id=1, max_position_embeddings=66)
    edit_json(model / "sentence_bert_config.json", max_seq_length=66)
    assert read_spec(model).max_tokens == 64


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({"query": "q: ", "document": "d: "}, {"query": "q: ", "document": "d: "}),
        ({"query": "q: ", "passage": "p: "}, {"query": "q: ", "document": "p: "}),
        ({"query": None, "other": "x"}, EMPTY),
    ],
)
def test_prompts(model: Path, prompts: dict[str, str], expected: dict[str, str]) -> None:
    edit_json(model / "config_sentence_transformers.json", prompts=prompts)
    assert read_spec(model).prompts == expected


def add_module(model: Path, kind: str) -> None:
    modules = json.loads((model / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": f"2_{kind}", "type": f"sentence_transformers.models.{kind}"})
    (model / "modules.json").write_text(json.dumps(modules))


def test_unknown_module_is_named(model: Path) -> None:
    add_module(model, "Dense")
    with pytest.raises(InputError, match="Dense"):
        read_spec(model)


@pytest.mark.parametrize("changes", [{"pooling_mode": "max"}, {"pooling_mode": ["mean", "max"]}, {"pooling_mode_max_tokens": True}])
def test_unknown_pooling_is_named(model: Path, changes: dict[str, object]) -> None:
    edit_json(model / "1_Pooling" / "config.json", **changes)
    with pytest.raises(InputError, match="max"):
        read_spec(model)


@pytest.mark.parametrize("mode", [["mean", ["cls"]], [["mean"]], {"mean": True}, 3, [None]])
def test_pooling_that_is_no_name_is_refused(model: Path, mode: object) -> None:
    edit_json(model / "1_Pooling" / "config.json", pooling_mode=mode)
    with pytest.raises(InputError, match="is not supported"):
        read_spec(model)


@pytest.mark.parametrize("kind", [["roberta"], {"roberta": 1}, 7, None])
def test_a_model_type_that_is_no_name_has_no_offset(model: Path, kind: object) -> None:
    edit_json(model / "config.json", model_type=kind, pad_token_id=1, max_position_embeddings=20)
    assert read_spec(model).max_tokens == 20


@pytest.mark.parametrize("padding", [[1], "one", -1, 19, 1.5])
def test_a_padding_id_outside_the_position_table_is_refused(model: Path, padding: object) -> None:
    edit_json(model / "config.json", model_type="roberta", pad_token_id=padding, max_position_embeddings=20)
    with pytest.raises(InputError, match="pad_token_id"):
        read_spec(model)


def test_an_infinite_length_is_no_limit(model: Path) -> None:
    edit_json(model / "sentence_bert_config.json", max_seq_length=float("inf"))
    edit_json(model / "config.json", max_position_embeddings=48)
    assert read_spec(model).max_tokens == 48


def test_prompt_left_out_of_pooling_is_refused(model: Path) -> None:
    edit_json(model / "1_Pooling" / "config.json", include_prompt=False)
    assert read_spec(model).prompts == EMPTY
    edit_json(model / "config_sentence_transformers.json", prompts={"query": "q: "})
    with pytest.raises(InputError, match="include_prompt"):
        read_spec(model)


def test_lowercasing_outside_the_tokenizer_is_refused(model: Path) -> None:
    edit_json(model / "sentence_bert_config.json", do_lower_case=True)
    assert read_spec(model).dim == 32  # the tokenizer lowercases itself
    edit_json(model / "tokenizer.json", normalizer={"type": "NFC"})
    with pytest.raises(InputError, match="do_lower_case"):
        read_spec(model)


def test_folders_that_cannot_be_read(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_spec(tmp_path / "nowhere")
    edit_json(model / "1_Pooling" / "config.json", word_embedding_dimension=33)
    with pytest.raises(InputError, match="33 columns"):
        read_spec(model)
    modules = (model / "modules.json").read_text()
    (model / "modules.json").write_text(modules.replace("1_Pooling", "../1_Pooling"))
    with pytest.raises(FormatError, match="leaves the folder"):
        read_spec(model)
    (model / "modules.json").write_text('[{"type": 3}]')
    with pytest.raises(FormatError, match=r"modules\.json"):
        read_spec(model)
    (model / "config.json").write_bytes(b"\xff{")
    (model / "modules.json").write_text(modules)
    with pytest.raises(FormatError, match=r"config\.json: not readable as JSON"):
        read_spec(model)
    (model / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: missing"):
        read_spec(model)


def test_resolve_model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model(tiny_model) == tiny_model == resolve_model(str(tiny_model))
    packaged = resolve_model(None)
    assert (packaged / "model.safetensors").is_file()
    assert read_spec(packaged) == ModelSpec(384, 256, "mean", True, EMPTY)
    assert resolve_model("all-MiniLM-L6-v2") == packaged
    with pytest.raises(InputError, match="no such folder"):
        resolve_model("./nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file"):
        resolve_model(tmp_path / "file")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="hub did not give it") as error:
        resolve_model("nobody-has/this-model")
    assert "\n" not in str(error.value)
