"""From a model folder to a BERT's tensors: every type and spelling of the same weights, and one clear line for everything else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from encode_models import edit_json, make_architecture
from encoder_models import FORMS, save
from nearfield.encode.checkpoint import FLOATS, Checkpoint
from nearfield.encode.fingerprint import space_fingerprint
from nearfield.encode.models import resolve_model
from nearfield.encode.shape import Shape, UnsupportedModelError, read_shape
from nearfield.encode.spec import read_spec
from nearfield.encode.weights import expected_tensors, find_weights, read_weights
from nearfield.errors import FormatError, InputError
from nearfield.types import FloatArray


def weights_of(folder: Path) -> dict[str, FloatArray]:
    with Checkpoint(folder) as checkpoint:
        return read_weights(checkpoint, read_shape(folder))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FORMS[0].make(tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def test_the_shape_of_all_minilm() -> None:
    folder = resolve_model(None)
    shape = read_shape(folder)
    assert shape == Shape(6, 384, 12, 1536, 30522, 512, 2, "gelu", 1e-12)
    assert shape.head_dim == 32
    with Checkpoint(folder) as checkpoint:
        assert len(find_weights(checkpoint, shape)) == 5 + 6 * 16


def test_every_tensor_is_what_safetensors_reads(model: Path) -> None:
    stored = load_file(str(model / "model.safetensors"))
    found = weights_of(model)
    assert set(found) == {name for name in stored if not name.startswith("pooler")}
    for name, values in found.items():
        assert values.dtype == np.float32
        assert values.flags.c_contiguous
        assert values.flags.aligned
        np.testing.assert_array_equal(values, stored[name])


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64"])
def test_other_types_are_widened_exactly_or_rounded_once(model: Path, dtype: str) -> None:
    import torch

    before = weights_of(model)
    save(model / "model.safetensors", before, dtype)
    kind = {"F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}[dtype]
    assert dtype in FLOATS
    for name, values in weights_of(model).items():
        np.testing.assert_array_equal(values, torch.from_numpy(before[name]).to(kind).float().numpy())


def test_prefix_old_names_shards_and_heads_do_not_matter(model: Path) -> None:
    from safetensors.numpy import save_file

    before = weights_of(model)
    spelled = {
        f"bert.{name.replace('Norm.weight', 'Norm.gamma').replace('Norm.bias', 'Norm.beta')}": value for name, value in before.items()
    }
    spelled |= {"cls.predictions.bias": np.zeros(3, np.float32), "bert.pooler.dense.weight": np.ones((96, 96), np.float32)}
    spelled["bert.embeddings.position_ids"] = np.arange(64)[None]
    (model / "model.safetensors").unlink()
    names = sorted(spelled)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for number, file in enumerate(files):
        save_file({name: spelled[name] for name in names[number::2]}, str(model / file))
    index = {"metadata": {}, "weight_map": {name: files[i % 2] for i, name in enumerate(names)}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    after = weights_of(model)
    assert list(after) == list(before)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)

    save_file({names[0]: spelled[names[0]], names[1]: spelled[names[1]]}, str(model / files[0]))
    with pytest.raises(FormatError, match="lies in another shard too"):
        weights_of(model)
    (model / "model.safetensors.index.json").write_text('{"weight_map": ["model.safetensors"]}')
    with pytest.raises(FormatError, match="weight_map"):
        weights_of(model)


def test_the_hash_is_of_the_bytes(model: Path, original: Path) -> None:
    with Checkpoint(model) as one, Checkpoint(original) as other:
        assert one.sha256() == other.sha256() != ""
    before = space_fingerprint(model, read_spec(model))
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with Checkpoint(model) as one, Checkpoint(original) as other:
        assert one.sha256() != other.sha256()
    assert space_fingerprint(model, read_spec(model)) != before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_act": "silu"}, "hidden_act 'silu'"),
        ({"hidden_act": ["gelu"]}, "hidden_act"),
        ({"model_type": "roberta"}, "model_type 'roberta'"),
        ({"position_embedding_type": "relative_key"}, "'relative_key'"),
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": 1}, "add_cross_attention"),
    ],
)
def test_sound_models_of_another_kind_say_so(model: Path, changes: dict[str, object], reason: str) -> None:
    edit_json(model / "config.json", **changes)
    with pytest.raises(UnsupportedModelError, match=reason) as error:
        read_shape(model)
    assert "\n" not in str(error.value)
    assert "native encoder" in str(error.value)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "modernbert", "mpnet"])
def test_other_architectures_are_unsupported_not_damaged(tmp_path: Path, kind: str) -> None:
    folder = make_architecture(tmp_path / "model", kind)
    with pytest.raises(UnsupportedModelError):
        read_shape(folder)
    if kind != "roberta":  # whose tensors are a BERT's
        sizes = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 66,
        }
        edit_json(folder / "config.json", model_type="bert", **sizes)
        with pytest.raises(InputError, match="no tensor"):
            weights_of(folder)


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "type_vocab_size"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5, "96", True, 10**30, [96], {}])
def test_sizes_that_are_none(model: Path, key: str, value: object) -> None:
    edit_json(model / "config.json", **{key: value})
    with pytest.raises(FormatError, match=f"{key} is"):
        read_shape(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 99, "num_attention_heads": 3}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}, {"intermediate_size": 383},
        {"vocab_size": 10}, {"max_position_embeddings": 65}, {"type_vocab_size": 1},
    ],
)  # fmt: skip
def test_tensors_at_odds_with_the_configuration(model: Path, changes: dict[str, object]) -> None:
    edit_json(model / "config.json", **changes)
    with pytest.raises(FormatError, match=r"config\.json") as error:
        weights_of(model)
    assert "mixes two models" in str(error.value)


def test_heads_that_do_not_divide_the_width_and_strange_epsilons(model: Path) -> None:
    edit_json(model / "config.json", num_attention_heads=7)
    with pytest.raises(FormatError, match="no multiple"):
        read_shape(model)
    edit_json(model / "config.json", num_attention_heads=3, layer_norm_eps=-1e-12)
    with pytest.raises(FormatError, match="layer_norm_eps"):
        read_shape(model)
    edit_json(model / "config.json", layer_norm_eps="small")
    with pytest.raises(FormatError, match="layer_norm_eps"):
        read_shape(model)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_weights_that_are_no_numbers(model: Path, value: float) -> None:
    tensors = {name: values.astype(np.float64) for name, values in weights_of(model).items()}
    tensors["encoder.layer.1.output.dense.bias"][5] = value
    save(model / "model.safetensors", tensors, "F64")
    with pytest.raises(FormatError, match=r"layer\.1\.output\.dense\.bias.*damaged"):
        weights_of(model)


def test_missing_tensors_other_types_and_short_files(model: Path) -> None:
    from safetensors.numpy import save_file

    before, path = weights_of(model), model / "model.safetensors"
    save(path, {name: value for name, value in before.items() if not name.endswith("key.bias")})
    with pytest.raises(FormatError, match=r"no tensor encoder\.layer\.0\.attention\.self\.key\.bias"):
        weights_of(model)
    name = "encoder.layer.0.output.dense.weight"
    save_file(before | {name: before[name].astype(np.int8)}, str(path))  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModelError, match="of type I8"):
        weights_of(model)
    save(path, before)
    with Checkpoint(model) as checkpoint:
        with path.open("rb+") as file:
            file.truncate(path.stat().st_size - 50_000)
        with pytest.raises(FormatError, match="became shorter"):
            read_weights(checkpoint, read_shape(model))
    with pytest.raises(FormatError, match="truncated or damaged"):
        weights_of(model)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        weights_of(model)


def test_the_expected_tensors_hold_every_parameter() -> None:
    shape = Shape(12, 384, 12, 1536, 30522, 512, 2, "gelu", 1e-12)
    parameters = sum(int(np.prod(extents)) for extents in expected_tensors(shape).values())
    assert parameters == 33_212_160  # MiniLM-L12-H384 without its pooler
