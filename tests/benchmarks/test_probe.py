"""The probe's data sets are made once or say why not, the embeddings are BERT's, and the peer stops where it should."""

import math
import subprocess

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy, gelu, layer_norm, normalize

from benchmarks import probe_data, probe_minilm, probe_peers

NOUNS = """  1 This software and database is being provided to you
00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is perceived; "it | exists"
00001930 18 n 01 person 0 001 @ 00001740 n 0000 | a human being
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder in the place of ``outputs/bench_data``."""
    monkeypatch.setattr(probe_data, "FOLDER", tmp_path / "bench_data")
    return tmp_path / "bench_data"


def test_a_set_is_made_once(folder, monkeypatch):
    made = []

    def make():
        made.append(1)
        return np.eye(3, dtype=np.float32), np.arange(3)

    monkeypatch.setitem(probe_data.SETS, "small", make)
    for _ in range(2):
        assert probe_data.available("small") is None
        x, y = probe_data.get("small")
    assert (x.dtype, y.dtype, len(made)) == (np.float32, np.int64, 1)
    assert {file.name for file in folder.iterdir()} == {"small_x.npy", "small_y.npy"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("no network"), "small: no network"),
        (
            subprocess.CalledProcessError(100, "apt-get", stderr="first\nE: Unable to locate\n"),
            "small: E: Unable to locate",
        ),
        (ModuleNotFoundError("No module named 'sklearn'"), "small: No module named 'sklearn'"),
    ],
)
def test_a_set_that_can_not_be_had_says_why(monkeypatch, folder, error, reason):
    def make():
        raise error

    monkeypatch.setitem(probe_data.SETS, "small", make)
    assert probe_data.available("small") == reason
    with pytest.raises(RuntimeError, match=r"^small: "):
        probe_data.get("small")
    assert not list(folder.iterdir())


def test_bundled_sets_are_raw():
    x, y = probe_data.get("wine")
    assert (x.shape, x.dtype, y.dtype, x.max()) == ((178, 13), np.float64, np.int64, 1680)


def test_scales():
    x = np.array([[3.0, 4.0, 1.0], [0.0, 2.0, 1.0]], dtype=np.float32)
    assert np.linalg.norm(probe_data.unit_rows(x), axis=1) == pytest.approx([1, 1])
    assert probe_data.standardized(x).tolist() == [[1, 1, 0], [-1, -1, 0]]


def test_glosses_are_read_with_their_lexicographer_file(tmp_path):
    for part in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"data.{part}").write_text(NOUNS if part == "noun" else NOUNS.splitlines()[0])
    assert list(probe_data.glosses(tmp_path)) == [(3, 'that which is perceived; "it | exists"'), (18, "a human being")]


def test_wordnet_is_embedded_in_one_order_with_its_classes(monkeypatch, tmp_path):
    def write(texts, out, folder):
        np.save(out, np.array([[len(text)] for text in texts], dtype=np.float32))

    test_glosses_are_read_with_their_lexicographer_file(tmp_path)
    monkeypatch.setattr(probe_data, "_unpack", lambda folder: tmp_path)
    monkeypatch.setattr(probe_minilm, "install", lambda folder: None)
    monkeypatch.setattr(probe_minilm, "write", write)
    assert probe_data.available("wordnet") == (
        "wordnet: wordnet-base: (2, 2) glosses and classes; accepted are (117659, 45)"
    )
    monkeypatch.setattr(probe_data, "GLOSSES", 2)
    monkeypatch.setattr(probe_data, "LEXICOGRAPHER_FILES", 2)
    x, y = probe_data.get("wordnet")
    assert sorted(zip(x[:, 0], y, strict=True)) == [(13, 18), (38, 3)]


def test_batches_take_every_text_once_and_stay_small():
    lengths = np.random.default_rng(0).integers(1, 65, 500).tolist()
    found = list(probe_minilm.batches(lengths, tokens=256))
    assert sorted(np.concatenate(found).tolist()) == list(range(500))
    assert all(len(index) * max(lengths[i] for i in index) <= 256 for index in found)


def weights(dim: int = 8, wide: int = 12) -> dict[str, torch.Tensor]:
    """Random weights of two layers, by BERT's names."""
    generator = torch.Generator().manual_seed(0)
    shapes = {f"embeddings.{name}_embeddings.weight": (20, dim) for name in ("word", "position", "token_type")}
    for name in ("embeddings.LayerNorm", *(f"encoder.layer.{i}.{part}.LayerNorm" for i in (0, 1) for part in PARTS)):
        shapes |= {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    for i in (0, 1):
        maps = {"intermediate.dense": (wide, dim), "output.dense": (dim, wide), "attention.output.dense": (dim, dim)}
        maps |= {f"attention.self.{name}": (dim, dim) for name in ("query", "key", "value")}
        for name, shape in maps.items():
            shapes |= {f"encoder.layer.{i}.{name}.weight": shape, f"encoder.layer.{i}.{name}.bias": shape[:1]}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


PARTS = ("attention.output", "output")


def by_hand(w: dict[str, torch.Tensor], tokens: list[int], heads: int) -> torch.Tensor:
    """The embedding of one text, written out from the definition of BERT: ``(D,)``."""

    def dense(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        return layer_norm(x, x.shape[-1:], w[f"{name}.LayerNorm.weight"], w[f"{name}.LayerNorm.bias"], 1e-12)

    word, position, segment = (w[f"embeddings.{n}_embeddings.weight"] for n in ("word", "position", "token_type"))
    x = norm("embeddings", word[tokens] + position[: len(tokens)] + segment[0])
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        q, k, v = (
            dense(f"{layer}.attention.self.{n}", x).unflatten(1, (heads, -1)).transpose(0, 1)
            for n in ("query", "key", "value")
        )
        mixed = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v
        x = norm(
            f"{layer}.attention.output", x + dense(f"{layer}.attention.output.dense", mixed.transpose(0, 1).flatten(1))
        )
        wide = gelu(dense(f"{layer}.intermediate.dense", x))
        x = norm(f"{layer}.output", x + dense(f"{layer}.output.dense", wide))
    return normalize(x.mean(0), dim=0)


def test_embeddings_are_those_of_bert_whatever_fills_the_batch_up():
    texts = [[1, 5, 9, 2], [1, 2], [1, 7, 7, 3, 4, 2]]
    rows = probe_minilm.embed(probe_minilm.Encoder(weights(), heads=2), texts)
    expected = torch.stack([by_hand(weights(), text, heads=2) for text in texts])
    assert rows == pytest.approx(expected.numpy(), abs=1e-5)


def blobs(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """60 samples of 4 features, float64, in overlapping clouds."""
    generator = np.random.default_rng(0)
    y = np.arange(60) % classes
    return generator.normal(size=(60, 4)) + 0.5 * y[:, None], y


@pytest.mark.parametrize("classes", [2, 3])
def test_the_objective_is_cross_entropy_and_penalty(classes):
    x, y = blobs(classes)
    weight, bias = np.random.default_rng(1).normal(size=(classes, 4)), np.arange(classes) / 2
    z = torch.from_numpy(x @ weight.T + bias)
    expected = cross_entropy(z, torch.from_numpy(y)).item()
    assert probe_peers.objective(x, y, weight, bias, 0.0) == pytest.approx(expected, abs=1e-12)
    assert probe_peers.objective(x, y, weight, bias, 0.3) == pytest.approx(expected + 0.15 * (weight**2).sum())
    if classes == 2:  # scikit-learn's one vector
        one = probe_peers.objective(x, y, weight[1:] - weight[:1], bias[1:] - bias[:1], 0.0)
        assert one == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("guess", [1, 4, 9])
def test_the_fewest_iterations_are_found_from_any_guess(guess):
    assert probe_peers.fewest(lambda count: count >= 4, guess) == 4


def test_the_first_iteration_within_the_gap_or_else_near_the_best():
    assert probe_peers.first_best({1: 1.0, 2: 9e-7, 3: 1e-9}) == 2
    assert probe_peers.first_best({1: 1.0, 2: 2.1e-6, 3: 2e-6, 4: 2e-6}) == 2


def request(folder, solver: str, classes: int = 3, **changed) -> dict:
    """Writes ``blobs`` below ``folder``; returns a request whose references are optima."""
    x, y = blobs(classes)
    folder.mkdir(exist_ok=True)
    np.save(folder / "blobs_x.npy", x)
    np.save(folder / "blobs_y.npy", y)
    l2s = [1.0, 0.1, 0.01]
    fits = [LogisticRegression(C=1 / (l2 * 60), solver="newton-cholesky", tol=1e-12).fit(x, y) for l2 in l2s]
    best = [probe_peers.objective(x, y, fit.coef_, fit.intercept_, l2) for fit, l2 in zip(fits, l2s, strict=True)]
    paths = {"x": str(folder / "blobs_x.npy"), "y": str(folder / "blobs_y.npy"), "l2s": l2s, "references": best}
    return paths | {"solver": solver, "budget_s": 60.0, "warm": True, "iterations": None} | changed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("solver", probe_peers.SOLVERS)
def test_every_solver_is_stopped_at_the_gap(folder, solver, classes):
    result = probe_peers.answer(request(folder, solver, classes))
    assert result["complete"]
    assert result["reached"] == [True] * 3
    assert result["note"] == ""
    assert max(map(abs, result["gaps"])) <= 1.01e-6
    assert result["cpu_s"] == pytest.approx(sum(result["cpu"]))
    fewer = [count - 1 for count in result["iterations"]]
    assert all(fewer) or solver != "lbfgs"
    early = probe_peers.answer(request(folder, solver, classes, iterations=[fewer[0], *result["iterations"][1:]]))
    assert not early["reached"][0]
    assert early["note"].startswith("ends above 1e-06 at l2 = 1.0e+00")


@pytest.mark.filterwarnings("ignore")
def test_cold_starts_need_more(folder):
    warm = probe_peers.answer(request(folder, "lbfgs"))
    cold = probe_peers.answer(request(folder, "lbfgs", warm=False))
    assert sum(cold["iterations"]) > sum(warm["iterations"])


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_a_search_out_of_time_says_so(folder, solver):
    result = probe_peers.answer(request(folder, solver, budget_s=-1.0))
    assert (result["l2s"], result["complete"], result["note"]) == ([], False, "out of time after 0 of 3 values")


@pytest.mark.slow
def test_the_child_answers_with_what_it_takes(folder, monkeypatch):
    asked = request(folder, "newton-cg")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "no such processor")
    result = probe_peers.path_seconds("blobs", asked["l2s"], asked["references"], "newton-cg", 60)
    assert (result["name"], result["reached"]) == ("blobs", [True] * 3)
    assert result["wall_s"] > 0
    with pytest.raises(RuntimeError, match=r"^scikit-learn newton on blobs: .*solver"):
        probe_peers.path_seconds("blobs", asked["l2s"], asked["references"], "newton", 60)
