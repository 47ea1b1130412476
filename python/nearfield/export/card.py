"""The bundle's README.md: what the model is, how to use it, and what was measured, from the manifest alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_POOLING = {"mean": "mean over tokens", "cls": "first token", "last": "last token"}


def model_card(manifest: Mapping[str, Any]) -> str:
    """Returns the model card in Markdown.

    Args:
        manifest: the bundle's manifest; ``metrics`` and ``verdict`` may be null, and the card says so then.

    >>> model_card({"base": "b", "dim": 3, "max_tokens": 8, "pooling": "cls", "normalize": True, "parity": {}}).splitlines()[0]
    '# An embedding model made with nearfield'
    """
    lines = ["# An embedding model made with nearfield", ""]
    lines += [f"Base model: `{_inline(manifest.get('base') or 'not recorded')}`.", ""]
    normalized = "normalized to unit length" if manifest["normalize"] else "not normalized"
    pooling = _POOLING[manifest["pooling"]]
    lines += [f"{manifest['dim']} dimensions, up to {manifest['max_tokens']:,} tokens, pooling: {pooling}, {normalized}."]
    for kind, prompt in (manifest.get("prompts") or {}).items():
        if prompt:
            lines.append(f"Put before each {_inline(kind)}: `{_inline(prompt)}` (done for you below).")
    lines += ["", "## Use", "", "```python", "import nearfield as nf", "", 'encoder = nf.Encoder("path/to/this/folder")  # no torch needed']
    lines += ['vectors = encoder.encode(["a document", "another"])', 'query = encoder.encode("a question", kind="query")', "```", ""]
    lines += ["or, with the folder `model/`, in sentence-transformers:", "", "```python"]
    lines += [
        "from sentence_transformers import SentenceTransformer",
        "",
        'model = SentenceTransformer("path/to/this/folder/model")',
        "```",
        "",
    ]
    lines += _query_side(manifest.get("query"))
    lines += ["## Measured", "", *_parity(manifest.get("parity") or {}), *_verdict(manifest), ""]
    return "\n".join(lines)


def _parity(parity: Mapping[str, Any]) -> list[str]:
    lines = []
    if fp32 := parity.get("fp32"):
        lines.append(f"- `onnx/model.onnx` (fp32): within {fp32['max_abs_diff']:.1e} of torch in every component.")
    if int8 := parity.get("int8"):
        lines.append(f"- `onnx/model.int8.onnx`: cosine to fp32 {int8['mean_cosine']:.4f} on average, {int8['min_cosine']:.4f} at least.")
        if loss := int8.get("retrieval"):
            lines.append(
                f"- int8 costs {100 * loss['loss']:.2f} points of nDCG@10 ({100 * loss['ndcg_fp32']:.1f} to {100 * loss['ndcg_int8']:.1f}; "
                f"{loss['queries']:,} {loss['split']} queries, {loss['documents']:,} documents)."
            )
            if note := int8.get("note"):
                lines.append(f"- {_inline(note)}.")
        else:
            lines.append("- The retrieval loss of int8 was not measured: the export was given no data.")
    return lines


def _query_side(query: Mapping[str, Any] | None) -> list[str]:
    if not query:
        return []
    said = ['Queries have a side of their own here, which `nf.Encoder` applies for `kind="query"`; documents have the base\'s vectors.']
    if query["tower"]:
        said.append("In sentence-transformers load `query/` for queries and `model/` for documents.")
    if query["map"]:
        said.append("`query-map.npz` holds a matrix A: a query's unit vector q becomes the unit form of q + q A.")
    return [" ".join(said), ""]


def _verdict(manifest: Mapping[str, Any]) -> list[str]:
    verdict = manifest.get("verdict")
    if not verdict:
        return ["- Retrieval quality was not measured when this bundle was made."]
    text = verdict.get("sentence") or verdict.get("answer") or ""
    lines = [f"- Verdict: {_inline(text)}"]
    if "report.html" in (manifest.get("files") or {}) or manifest.get("metrics"):
        lines.append("- All figures: `report.html`, and `metrics` in `manifest.json`.")
    return lines


def _inline(text: object) -> str:
    """One line without backticks, so that a model's name cannot break the page."""
    return " ".join(str(text).replace("`", "'").split())
