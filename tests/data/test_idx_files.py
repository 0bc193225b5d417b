"""One IDX file: read whole and right, or refused in one line that names it."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from handgrad.data.idx_files import IDXFile, md5_of, md5_sums, scaled
from handgrad.errors import InputError
from tests.data.idx_samples import idx, write_sums

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
WHOLE = idx(ARRAY)


@pytest.mark.parametrize("name", ["a-ubyte", "a-ubyte.gz"])
def test_it_is_read_packed_or_not(name, tmp_path):
    content = gzip.compress(WHOLE) if name.endswith(".gz") else WHOLE
    (tmp_path / name).write_bytes(content)
    file = IDXFile(tmp_path / name, hashlib.md5(content).hexdigest().upper())
    assert file.shape == (2, 3, 4)
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    found = file.read()
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), ARRAY)


def test_bytes_become_numbers_from_minus_one_to_one():
    found = scaled(torch.tensor([[[0, 255], [51, 204]]], dtype=torch.uint8))
    assert torch.equal(found, torch.tensor([[0.0, 255, 51, 204]]) / 127.5 - 1)


DAMAGE = {
    "empty": (b"", "damaged, or no IDX file"),
    "HTML": (b"<!DOCTYPE html><title>404</title>", "damaged, or no IDX file"),
    "no axes": (struct.pack(">HBB", 0, 8, 0), "damaged, or no IDX file"),
    "header cut": (WHOLE[:9], "damaged, or no IDX file"),
    "no samples": (idx(ARRAY[:0]), "damaged, or no IDX file"),
    "far too many samples": (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31) + b"0", "damaged, or no IDX file"),
    "cut": (WHOLE[:-1], r"its header tells \(2, 3, 4\), 24 bytes, and 23 follow"),
    "too long": (WHOLE + b"0", r"its header tells \(2, 3, 4\), 24 bytes, and more follow"),
    "of other numbers": (idx(ARRAY, kind=0x0D), "numbers of IDX type 0x0d; accepted are unsigned bytes, 0x08"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("content", "line"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(content, line, packed, tmp_path):
    path = tmp_path / f"images{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputError, match=rf"^{path}: .*{line}") as error:
        IDXFile(path).read()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [lambda packed: packed[:-9], lambda packed: packed[:-8] + b"0000" + packed[-4:]])
def test_a_damaged_archive_is_named(change, tmp_path):
    (tmp_path / "images.gz").write_bytes(change(gzip.compress(WHOLE)))
    with pytest.raises(InputError, match=r"images\.gz: damaged, or no IDX file"):
        IDXFile(tmp_path / "images.gz").read()


def test_another_md5_is_told_before_the_file_is_looked_at(tmp_path):
    (tmp_path / "images").write_bytes(b"no IDX file")
    found = hashlib.md5(b"no IDX file").hexdigest()
    with pytest.raises(InputError, match=f"images: damaged, or another file: found MD5 {found}, expected {'0' * 32}"):
        IDXFile(tmp_path / "images", "0" * 32)


def test_a_file_that_is_missing_or_changes_is_named(tmp_path):
    with pytest.raises(InputError, match="images: no such file"):
        IDXFile(tmp_path / "images")
    (tmp_path / "images").write_bytes(WHOLE)
    file = IDXFile(tmp_path / "images")
    (tmp_path / "images").write_bytes(WHOLE + b"0")
    with pytest.raises(InputError, match="it changed while it was read"):
        file.read()


def test_sums_are_those_of_md5sum_and_of_macos(tmp_path):
    first, second, third = (hashlib.md5(name).hexdigest() for name in (b"a", b"b", b"c"))
    text = f"{first}  a b\n{second} *folder/b.gz\nMD5 (c-ubyte) = {third}\n"
    (tmp_path / "MD5SUMS").write_text(text)
    assert md5_sums(tmp_path / "MD5SUMS") == {"a b": first, "b.gz": second, "c-ubyte": third}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\xff\xfe", "cannot be read"),
        (f"{'0' * 32}  a\n{'0' * 31}  b\n".encode(), f"line 2 is '{'0' * 31}  b'; accepted are lines as md5sum writes"),
        (b"\n", "line 1 is ''"),
    ],
)
def test_other_files_of_sums_are_refused(content, line, tmp_path):
    (tmp_path / "sums").write_bytes(content)
    with pytest.raises(InputError, match=f"sums: .*{line}") as error:
        md5_sums(tmp_path / "sums")
    assert "\n" not in str(error.value)


def test_a_file_without_a_sum_is_refused_where_there_are_sums(tmp_path):
    sums = md5_sums(write_sums(tmp_path / "sums", {"a": "0" * 32}))
    assert (md5_of("a", sums, "sums"), md5_of("b", None, None)) == ("0" * 32, None)
    with pytest.raises(InputError, match="sums: no MD5 of b; accepted is"):
        md5_of("b", sums, "sums")
