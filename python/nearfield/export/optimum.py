"""Optimum's ONNX export of a tower, for architectures that plain tracing does not get right.

Optimum gives token vectors; pooling and normalization are traced from the tower itself and put behind them, so that the graph has the
inputs and the output of our own exporter's. Why Optimum lives in an environment of its own: docs/decisions/0009.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from nearfield.encode.tower import Tower
from nearfield.errors import InputError, MissingExtraError
from nearfield.export.onnx_graph import INPUTS, OPSET, OUTPUT, check_size, quiet
from nearfield.tune.interrupts import finish_first

PACKAGE = "optimum-onnx"
_TOKENS = "last_hidden_state"
# What Optimum makes inputs of and no caller feeds, because torch takes the same for each text when it is left out: one segment, no
# global attention (Longformer), places counted from 0 (decoders).
_ZEROS = ("token_type_ids", "global_attention_mask")
_PLACES = "position_ids"
_PREFIX = "pooling/"


def check_optimum(feature: str = "exporting with Optimum") -> None:
    """Finds out, without importing it, whether Optimum can be used here.

    Args:
        feature: what needs it, for the message.

    Raises:
        MissingExtraError: it is not installed.
        InputError: it is, beside a version of transformers that it does not work with.
    """
    try:
        needs = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise MissingExtraError(feature, "optimum", PACKAGE, note="in an environment of its own, without nearfield[train]") from None
    from packaging.requirements import Requirement

    wanted = next((need for need in map(Requirement, needs) if need.name == "transformers" and need.marker is None), None)
    found = metadata.version("transformers")
    if wanted is not None and not wanted.specifier.contains(found, prereleases=True):
        raise InputError(
            f"{feature}: {PACKAGE} {metadata.version(PACKAGE)} needs transformers {wanted.specifier} and {found} is installed; "
            "make an environment of its own for it and pip install 'nearfield[optimum]' there"
        )


def export_with_optimum(tower: Tower, path: Path) -> Path:
    """Writes the tower as ONNX through Optimum; inputs, output and their types are those of ``onnx_graph.export_graph``.

    Args:
        tower: on the CPU. Its model's configuration may have caches switched off afterwards; its vectors stay what they were.
        path: the file to write.

    Raises:
        MissingExtraError, InputError: as ``check_optimum``; or Optimum does not know the architecture, cannot export it, or gives it
            an input that no text has.
    """
    kind = type(tower.model).__name__
    check_optimum(f"exporting {kind} with Optimum")
    check_size(tower)
    hidden = path.with_name(f"{path.name}.hidden")
    try:
        # The exporter calls Python from C++: a Ctrl-C raised in there can end the process by abort instead of by an exception.
        with quiet(), finish_first():
            _write_token_vectors(tower, hidden)
            _write_whole(tower, hidden, path)
    except InputError:
        raise
    except Exception as error:  # Optimum raises its own, torch's, onnxruntime's and Python's errors for what it cannot export
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{tower.folder}: Optimum cannot export {kind} ({type(error).__name__}: {reason:.200})") from error
    finally:
        hidden.unlink(missing_ok=True)
    return path


def _write_token_vectors(tower: Tower, path: Path) -> None:
    """Optimum's part: token ids to ``last_hidden_state``."""
    # Importing it fills the table that TasksManager reads.
    from optimum.exporters.onnx import export
    from optimum.exporters.tasks import TasksManager

    model: Any = tower.model
    try:
        configure = TasksManager.get_exporter_config_constructor(
            "onnx", model=model, task="feature-extraction", library_name="transformers"
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{tower.folder}: {PACKAGE} {metadata.version(PACKAGE)} does not know the architecture {model.config.model_type!r} either"
        ) from error
    config = configure(model.config)
    shapes = {"batch_size": 2, "sequence_length": max(2, min(7, tower.spec.max_tokens))}
    export(model, config, path, opset=max(OPSET, config.DEFAULT_ONNX_OPSET), device="cpu", input_shapes=shapes)


class _Finish(torch.nn.Module):
    """A tower without its transformer: what is done with the token vectors."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        # In a list, so that torch does not take the tower's weights for this module's.
        self.tower = [tower]

    def forward(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.tower[0].finish(hidden, attention_mask)


def _write_whole(tower: Tower, source: Path, path: Path) -> None:
    """Puts pooling and normalization behind Optimum's graph, and constants in place of the inputs that no caller feeds."""
    import onnx
    from onnx import TensorProto, helper

    whole = onnx.load_model(str(source), load_external_data=False)
    graph = whole.graph
    opset = next(entry.version for entry in whole.opset_import if entry.domain in ("", "ai.onnx"))
    given = [value.name for value in graph.input]
    unknown = sorted(set(given) - {*INPUTS, *_ZEROS, _PLACES})
    if unknown or not set(INPUTS) <= set(given) or _TOKENS not in {value.name for value in graph.output}:
        raise InputError(f"{tower.folder}: Optimum's graph has inputs {', '.join(given)}; {' and '.join(INPUTS)} expected, for texts alone")
    tail = _tail(tower, path, opset)
    nodes = [*_constants([name for name in given if name not in INPUTS]), *graph.node, *tail.node]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tail.initializer)
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in INPUTS)
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", tower.spec.dim]))
    onnx.checker.check_model(whole)
    onnx.save_model(whole, str(path))


def _tail(tower: Tower, path: Path, opset: int) -> Any:
    """The graph of ``Tower.finish``: reads ``last_hidden_state`` and ``attention_mask``, writes ``embedding``, all else under a prefix."""
    import onnx
    from onnx import compose, helper

    hidden = torch.zeros((2, 3, tower.spec.dim))
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    written = path.with_name(f"{path.name}.pooling")
    read = [_TOKENS, INPUTS[1]]
    free = {0: "batch", 1: "sequence"}
    try:
        with torch.no_grad():
            torch.onnx.export(
                _Finish(tower).eval(), (hidden, mask), str(written), input_names=read, output_names=[OUTPUT], opset_version=opset,
                dynamo=False, dynamic_axes={_TOKENS: free, INPUTS[1]: free, OUTPUT: {0: "batch"}},
            )  # fmt: skip
        tail = compose.add_prefix_graph(onnx.load_model(str(written)).graph, _PREFIX)
    finally:
        written.unlink(missing_ok=True)
    nodes = [helper.make_node("Identity", [name], [_PREFIX + name]) for name in read]
    nodes += [*tail.node, helper.make_node("Identity", [_PREFIX + OUTPUT], [OUTPUT])]
    del tail.node[:]
    tail.node.extend(nodes)
    return tail


def _constants(names: list[str]) -> list[Any]:
    """Nodes that make each named tensor, int64 ``(batch, sequence)``, shaped as ``input_ids``: zeros, or 0, 1, 2 ... in each row."""
    if not names:
        return []
    from onnx import TensorProto, helper

    def constant(name: str, values: list[int], shape: list[int]) -> Any:
        return helper.make_node("Constant", [], [_PREFIX + name], value=helper.make_tensor(name, TensorProto.INT64, shape, values))

    def filled(name: str, value: int) -> Any:
        return helper.make_node(
            "ConstantOfShape", [_PREFIX + "shape"], [name], value=helper.make_tensor("value", TensorProto.INT64, [1], [value])
        )

    nodes = [helper.make_node("Shape", [INPUTS[0]], [_PREFIX + "shape"])]
    nodes += [filled(name, 0) for name in names if name != _PLACES]
    if _PLACES in names:
        nodes += [filled(_PREFIX + "ones", 1), constant("axis", [1], [])]
        # Sums of ones before each place: 0, 1, 2 ...
        nodes.append(helper.make_node("CumSum", [_PREFIX + "ones", _PREFIX + "axis"], [_PLACES], exclusive=1))
    return nodes
