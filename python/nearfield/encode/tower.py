"""The torch form of a model: loaded from a folder, pooled and normalized as sentence-transformers does, saved as it reads.

Importing this file imports torch; nothing on the serving path does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from nearfield.encode.batches import run_batches
from nearfield.encode.dtype import best_dtype
from nearfield.encode.spec import ModelSpec, Pooling, read_json, read_spec, weights_folder
from nearfield.encode.tokenize import TextTokenizer, check_texts
from nearfield.errors import FormatError, InputError, MissingExtraError
from nearfield.files import cannot_write
from nearfield.types import FloatArray, IntArray, Kind

__all__ = ["Tower", "best_dtype", "pool"]

Attention = Literal["eager", "sdpa"]

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json",
    "merges.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model",
)  # fmt: skip


class Tower(torch.nn.Module):
    """A text encoder with its tokenizer and its spec.

    Attributes:
        model: the transformers model, float32.
        spec: pooling, normalization, lengths and prompts.
        tokenizer: the fast tokenizer.
        folder: where it was loaded from.
    """

    def __init__(self, model: torch.nn.Module, spec: ModelSpec, tokenizer: TextTokenizer, folder: Path) -> None:
        super().__init__()
        self.model = model
        self.spec = spec
        self.tokenizer = tokenizer
        self.folder = folder

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device = "cpu", attention: Attention = "eager") -> Tower:
        """Loads a folder that ``read_spec`` can read, in evaluation mode.

        Args:
            folder: holds ``config.json``, ``tokenizer.json`` and safetensors; code and pickles in it are never run.
            device: where the weights go.
            attention: ``"eager"`` (default: the form that exports to ONNX) or ``"sdpa"`` (faster, equal to about 1e-6).

        Raises:
            InputError: weights missing, incomplete or pickled only; an architecture transformers does not know without remote code.
            MissingExtraError: transformers is not installed.
        """
        folder = Path(folder)
        spec = read_spec(folder)
        inner = weights_folder(folder)
        _check_weights(inner)
        model = _load_model(inner, attention)
        tokenizer = TextTokenizer(inner / "tokenizer.json", spec.max_tokens)
        return cls(model.to(device), spec, tokenizer, folder).eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids to vectors.

        Args:
            input_ids: int64 ``(n, t)``, right-padded.
            attention_mask: int64 ``(n, t)``, 1 on real tokens.

        Returns:
            float32 ``(n, dim)``, unit rows if ``spec.normalize``. Pooling and norm are computed in float32 even under autocast.

        Raises:
            FormatError: a token or a position that the model does not have.
        """
        try:
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        except IndexError as error:
            mismatch = "tokenizer.json gives a token, or max_tokens a position, that the model does not have"
            raise FormatError(f"{self.folder}: {mismatch} ({error}): its files do not belong together") from None
        vectors = pool(hidden, attention_mask, self.spec.pooling)
        return torch.nn.functional.normalize(vectors, p=2.0, dim=-1) if self.spec.normalize else vectors

    def encode(
        self, texts: str | Iterable[str], *, kind: Kind = "document", progress: bool = False, max_rows: int = 64, max_tokens: int = 8_192
    ) -> FloatArray:
        """Encodes texts in evaluation mode without gradients, whatever mode the model is in, and puts the mode back.

        Args:
            texts: one text or many.
            kind: ``"document"`` or ``"query"``; decides the prompt.
            max_rows, max_tokens: limits of one batch.

        Returns:
            float32 ``(n, dim)``.
        """
        was_training = self.training
        self.eval()
        try:
            vectors, _ = run_batches(
                check_texts(texts), self.spec.prompts[kind], self.tokenizer, self.forward_arrays, self.spec.dim,
                max_rows=max_rows, max_tokens=max_tokens, progress=progress,
            )  # fmt: skip
        finally:
            self.train(was_training)
        return vectors

    def forward_arrays(self, input_ids: IntArray, attention_mask: IntArray) -> FloatArray:
        """``forward`` from and to numpy, without gradients."""
        with torch.no_grad():
            device = self.device
            vectors = self(torch.from_numpy(input_ids).to(device), torch.from_numpy(attention_mask).to(device))
            array: FloatArray = vectors.float().cpu().numpy()
        return array

    def save(self, folder: str | Path) -> None:
        """Writes the sentence-transformers layout (read by its versions 2 to 6), weights as one safetensors file in float32.

        Args:
            folder: made if missing; files of the same names are replaced.

        Raises:
            InputError: the folder cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._write(folder)
        except OSError as error:
            raise cannot_write(folder, error) from None
        except SafetensorError as error:  # its own type, also for a full disk
            raise cannot_write(folder, OSError(str(error))) from None

    def _write(self, folder: Path) -> None:
        model: Any = self.model
        with _quiet_transformers():
            model.save_pretrained(folder, safe_serialization=True, max_shard_size="1000GB")
        source = weights_folder(self.folder)
        for name in _TOKENIZER_FILES:
            if (source / name).is_file() and (source / name).resolve() != (folder / name).resolve():
                shutil.copyfile(source / name, folder / name)
        _write_layout(folder, self.spec)


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Token vectors ``(n, t, d)`` to text vectors ``(n, d)``: the mean over real tokens, the first, or the last real token.

    >>> hidden = torch.tensor([[[1.0, 3.0], [3.0, 5.0], [9.0, 9.0]]])
    >>> pool(hidden, torch.tensor([[1, 1, 0]]), "mean").tolist()
    [[2.0, 4.0]]
    """
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        last = (attention_mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)
        return hidden.gather(1, last.unsqueeze(-1).expand(-1, 1, hidden.shape[-1])).squeeze(1)
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    # A text without any token has the zero vector: 1e-9 stands for the count then.
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)


def _check_weights(folder: Path) -> None:
    if (folder / "model.safetensors").is_file() or (folder / "model.safetensors.index.json").is_file():
        return
    if (folder / "pytorch_model.bin").is_file():
        raise InputError(
            f"{folder}: only pytorch_model.bin, a pickle, which is never opened; convert it once where you trust it: "
            f"AutoModel.from_pretrained(folder).save_pretrained(folder) with transformers writes model.safetensors"
        )
    raise InputError(f"{folder}: no model.safetensors; a model folder holds config.json, tokenizer.json and model.safetensors")


def _load_model(folder: Path, attention: Attention) -> Any:
    try:
        from transformers import AutoModel
    except ImportError:
        raise MissingExtraError("loading a torch model", "train", "transformers") from None
    if read_json(folder / "config.json").get("is_encoder_decoder"):
        raise InputError(f"{folder}: an encoder-decoder model; a text encoder (BERT, RoBERTa, MPNet, DistilBERT ...) expected")
    try:
        with _quiet_transformers():
            model, report = AutoModel.from_pretrained(
                folder, dtype=torch.float32, attn_implementation=attention, use_safetensors=True, local_files_only=True,
                trust_remote_code=False, output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # transformers raises ValueError, OSError, KeyError and safetensors' own error for a folder it cannot load
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{folder}: transformers cannot load it ({type(error).__name__}: {reason})") from error
    missing = sorted(report["missing_keys"])
    absent = [key for key in missing if not key.startswith("pooler.")]
    if absent:
        raise InputError(f"{folder}: the weights lack {len(absent)} tensors of {type(model).__name__}, the first is {absent[0]}")
    if missing:
        # The head over the first token takes no part in pooling; without weights it would be random, and so would the saved file.
        model.pooler = None
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No bars and no load report on stderr while a model is read or written: library code is silent."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _write_layout(folder: Path, spec: ModelSpec) -> None:
    """The files around the transformer, in the form that all versions of sentence-transformers read."""
    names = ["Transformer", "Pooling"] + (["Normalize"] if spec.normalize else [])
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(names)
    ]
    flags = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}
    every = [*flags.values(), "pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens"]
    pooling = {"word_embedding_dimension": spec.dim, **{flag: flag == flags[spec.pooling] for flag in every}, "include_prompt": True}
    for name in names[1:]:
        (folder / f"{names.index(name)}_{name}").mkdir(exist_ok=True)
    contents: dict[str, object] = {
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": spec.max_tokens, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": spec.prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    }
    for path, content in contents.items():
        (folder / path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
