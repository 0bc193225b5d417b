"""Arrays in files: told without being read, mapped where that can be, and refused where they are not what they say."""

import io
import os
import pickle
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from handgrad.data import array_files
from handgrad.data.array_files import File, arrays_of
from handgrad.errors import InputError

X = np.random.default_rng(0).normal(size=(40, 6))
Y = np.arange(40) % 3


def saved(path: Path) -> Path:
    """Writes X and Y in the format of the path's ending; .npy holds X alone."""
    if path.suffix == ".npy":
        np.save(path, X)
    elif path.suffix == ".npz":
        np.savez(path, x=X, y=Y)
    elif path.suffix == ".safetensors":
        save_file({"x": torch.tensor(X), "y": torch.tensor(Y)}, path)
    else:
        torch.save({"x": torch.tensor(X), "y": torch.tensor(Y)}, path)
    return path


def read(path: Path | str, name: str | None) -> None:
    found = arrays_of(File(path))
    if name is not None:
        found[name].read()


def refusal(path: Path | str, name: str | None = None) -> str:
    """Returns the one line that tells what is wrong with a file, or with an array of it when that is read."""
    with pytest.raises(InputError) as error:
        read(path, name)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", array_files.READERS)
def test_arrays_are_told_and_then_read(kind, tmp_path):
    found = arrays_of(File(saved(tmp_path / f"a{kind}")))
    assert list(found) == ([""] if kind == ".npy" else ["x", "y"])
    x = next(iter(found.values()))
    assert (x.shape, x.kind, x.dtype) == ((40, 6), "number", torch.float64)
    assert torch.equal(x.read(), torch.tensor(X))
    if kind != ".npy":
        assert torch.equal(found["y"].read(), torch.tensor(Y))


def test_mapped_files_are_never_written_to(tmp_path):
    for kind in (".npy", ".safetensors", ".pt"):
        path = saved(tmp_path / f"a{kind}")
        before = path.read_bytes()
        next(iter(arrays_of(File(path)).values())).read().zero_()
        assert path.read_bytes() == before


@pytest.mark.parametrize("dtype", ["bool", "u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])
def test_numbers_of_every_type(dtype, tmp_path):
    numbers = (np.arange(12) % 2).reshape(4, 3).astype(dtype)
    np.save(tmp_path / "a.npy", numbers)
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(numbers))
    for path in ("a.npy", "a.npz"):
        (found,) = arrays_of(File(tmp_path / path)).values()
        assert found.kind == "number"
        assert np.array_equal(found.read().numpy(), numbers)
        assert found.read().dtype == found.dtype


def test_bfloat16_and_text_and_lists(tmp_path):
    save_file({"x": torch.tensor(X).bfloat16()}, tmp_path / "a.safetensors")
    (found,) = arrays_of(File(tmp_path / "a.safetensors")).values()
    assert torch.equal(found.read(), torch.tensor(X).bfloat16())
    np.savez(tmp_path / "a.npz", u=np.array(["ä", "b"]), s=np.array(["ä".encode(), b"b"]))
    for stored in arrays_of(File(tmp_path / "a.npz")).values():
        assert (stored.kind, stored.read().tolist()) == ("text", ["ä", "b"])
    torch.save({"u": ["ä", "b"], "n": [3, 4], "mixed": [1, "a"], "of": {}}, tmp_path / "a.pt")
    found = arrays_of(File(tmp_path / "a.pt"))
    assert {name: stored.kind for name, stored in found.items()} == {
        "u": "text",
        "n": "number",
        "mixed": "a Python list",
        "of": "a Python dict",
    }
    assert found["u"].read().tolist() == ["ä", "b"]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (X * 1j, "complex numbers"),
        (X.astype(object), "Python objects (pickled, and so never loaded)"),
        (X.astype(">f8"), "float64 of another byte order"),
        (X.astype("M8[s]"), "dates"),
        (np.zeros(3, "f4,i4"), "[('f0', '<f4'), ('f1', '<i4')]"),
        (X.astype(np.longdouble), "float128"),
    ],
)
def test_what_are_no_numbers_is_told_in_words(array, kind, tmp_path):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=array)
    for path in ("a.npy", "a.npz"):
        (found,) = arrays_of(File(tmp_path / path)).values()
        assert (found.kind, found.dtype) == (kind, None)


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.zeros(1).expand(10**6, 10**6), "a view that repeats its numbers"),
        (torch.eye(3, device="meta"), "a tensor of layout torch.strided on meta"),
        (torch.eye(3) * 1j, "complex numbers"),
        (torch.eye(3).to(torch.float8_e4m3fn), "numbers of type torch.float8_e4m3fn"),
    ],
)
def test_tensors_that_can_not_be_read_by_rows(tensor, kind, tmp_path):
    torch.save(tensor, tmp_path / "a.pt")
    (found,) = arrays_of(File(tmp_path / "a.pt")).values()
    assert found.kind == kind


# --- Damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", array_files.READERS)
def test_a_file_that_is_cut_anywhere_is_told(kind, tmp_path):
    content = saved(tmp_path / f"whole{kind}").read_bytes()
    path = tmp_path / f"cut{kind}"
    for size in (0, 1, 7, 8, 60, 127, 128, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        line = refusal(path, "" if kind == ".npy" else "x")
        assert "damaged" in line or "truncated" in line


@pytest.mark.parametrize("kind", array_files.READERS)
def test_no_damage_ends_in_a_traceback(kind, tmp_path):
    """Bytes are overwritten at random: the arrays are read, or a line tells of it."""
    content = saved(tmp_path / f"whole{kind}").read_bytes()
    random = np.random.default_rng(0)
    path, told = tmp_path / f"damaged{kind}", 0
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.integers(0, min(len(content), 700 if random.random() < 0.7 else len(content)), size=3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            for stored in arrays_of(File(path)).values():
                stored.read()
        except InputError:
            told += 1
    assert told > 5


def test_what_is_another_format_is_told(tmp_path):
    for kind in array_files.READERS:
        path = tmp_path / f"a{kind}"
        for content in (b"hello\n" * 100, pickle.dumps([1, 2, 3]), bytes(1000)):
            path.write_bytes(content)
            assert "damaged, or no " in refusal(path, "")


class Dangerous:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_no_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.array([Dangerous()]), allow_pickle=True)
    np.savez("a.npz", x=np.array([Dangerous()]))
    torch.save({"x": Dangerous()}, "a.pt")
    torch.save({"x": torch.eye(2), "model": torch.nn.Linear(2, 2)}, "b.pt")
    for path, name in (("a.npy", ""), ("a.npz", "x")):
        assert "damaged, or no " in refusal(path, name)  # and features or labels of such a kind are not read at all
    for path in ("a.pt", "b.pt"):
        assert "holds more than tensors; accepted are a tensor or a dict of tensors" in refusal(path)
    assert not Path("executed").exists()


def test_torchs_old_format_and_packed_members(tmp_path):
    torch.save({"x": torch.eye(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "no file of torch.save since torch 1.6" in refusal(tmp_path / "old.pt")
    whole = saved(tmp_path / "whole.pt")
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    assert "holds packed data; accepted is a file as torch.save writes it" in refusal(tmp_path / "a.pt")


def header(shape: tuple[int, ...]) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return content.getvalue()


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(array_files, "SMALL_BYTES", 1000)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("it was unpacked"))
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 1000), np.float32))
    packed = zipfile.ZipFile(tmp_path / "a.npz").infolist()[0].compress_size
    told = f"a.npz: x.npy would grow from {packed:,} to 4,000,000 bytes; accepted is 100 times as much at most"
    assert told in refusal(tmp_path / "a.npz", "x")
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("x.npy", header((10, 20)) + bytes(400))
    assert "x.npy has 528 bytes; its header tells of 928" in refusal(tmp_path / "lie.npz", "x")


def test_what_does_not_fit_into_memory_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(array_files, "available_memory", lambda: 1000)
    line = refusal(saved(tmp_path / "a.npz"), "x")
    assert "x.npy needs 1,920 bytes of memory, available are 1,000; accepted in place of it are .npy" in line
    assert len(arrays_of(File(saved(tmp_path / "a.npy")))[""].read()) == 40


def test_the_memory_there_is():
    available = array_files.available_memory()
    assert available is None or 2**20 < available < 2**50


# --- Which files are opened -------------------------------------------------------------------------------------------


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "zero.npy").symlink_to("/dev/zero")
    for name in ("pipe.npy", "zero.npy"):
        assert "a pipe or a device; accepted is a regular file" in refusal(tmp_path / name)
    assert "a folder; accepted is a file" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path / "none.npy")
    assert "cannot be read" in refusal(tmp_path / ("n" * 300 + ".npy"))
    (tmp_path / "link.npy").symlink_to(saved(tmp_path / "a.npy"))
    assert File(tmp_path / "link.npy").size == 128 + X.nbytes


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = saved(tmp_path / "a.npy")
    path.chmod(stat.S_IWUSR)
    assert "cannot be read (Permission denied)" in refusal(path)


def test_a_file_that_is_written_to_is_not_taken_for_damaged(tmp_path):
    file = File(saved(tmp_path / "a.npz"))
    found = arrays_of(file)
    np.savez(tmp_path / "a.npz", x=X[:3], other=X, y=Y)
    with pytest.raises(InputError, match="it changed while it was read"):
        found["y"].read()
