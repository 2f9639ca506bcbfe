"""Images from .npz files: what is read, and how damaged and hostile files are refused before anything is allocated."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nasjax import tasks

X, Y = np.arange(20 * 4 * 4, dtype=np.uint16).reshape(20, 4, 4), np.arange(20) % 3


def create(path):
    return tasks.image_classification(path)


def refused(path, words):
    with pytest.raises(ValueError, match=words) as found:
        create(path)
    assert "\n" not in str(found.value) and len(str(found.value)) < 500


def test_only_x_and_y_are_read_whatever_lies_beside_them(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=X, y=Y, names=np.array([{"a": 1}], dtype=object), z=np.zeros(3, complex))
    task = create(tmp_path / "a.npz")
    assert [len(split) for split in (task.train, task.validation, task.test)] == [10, 6, 4] and task.classes == 3
    assert abs(task.train.inputs.mean()) < 1e-5 and abs(task.train.inputs.std() - 1) < 1e-3


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X, "y": np.array(3)}, r"y \(n,\), not \(20, 4, 4\) and \(\)"),
        ({"x": X, "y": Y[:19]}, r"not \(20, 4, 4\) and \(19,\)"),
        ({"x": np.zeros((20, 0, 4)), "y": Y}, r"not \(20, 0, 4\) and \(20,\)"),
        ({"x": X.astype(complex), "y": Y}, "x has the type complex128; it must be plain real numbers"),
        ({"x": np.zeros((20, 4, 4), [("a", "f4"), ("b", "f4")]), "y": Y}, "x has the type .*'a'.*; it must be plain real"),
        ({"x": np.zeros((20, 4, 4), [("ä" * 9, "f4")]), "y": Y}, "x (has the type|is a structured array)"),
        ({"x": X, "y": Y.astype(object)}, "y has the type object; it must be plain real numbers"),
        ({"x": X, "y": Y.astype(str)}, "y has the type <U21; it must be plain real numbers"),
        ({"x": X, "y": Y.astype("M8[s]")}, "y has the type datetime64"),
        ({"x": X, "y": Y / 2}, "y must be integers from 0, not float64"),
        ({"x": X * 1e300, "y": Y}, "x has values that are not finite"),
        ({"y": Y}, "has no array 'x'; it has y"),
        ({f"array_{i}": Y[:1] for i in range(300)}, "has no array 'x'; it has array_0"),
    ],
)
def test_arrays_of_other_kinds_are_named(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path / "a.npz", words)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([Trap(tmp_path / "trap")], dtype=object), y=Y)
    refused(tmp_path / "a.npz", "x has the type object")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Trap(tmp_path / "trap")))
    refused(tmp_path / "b.npz", "cannot be read as an .npz file")
    assert not (tmp_path / "trap").exists()


def lying(path, shape, content=b"", kind="<f4", compression=zipfile.ZIP_DEFLATED):
    """An .npz file whose x says that it has another shape."""
    header, labels = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
    np.lib.format.write_array(labels, Y)
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("x.npy", header.getvalue() + content)
        file.writestr("y.npy", labels.getvalue())


@pytest.mark.parametrize("shape", [(20, 10**6, 10**6), (20, 4, 5), (20, -4, -4), (20, 4, 3)])
def test_an_array_of_another_size_than_it_says_is_refused_before_it_is_read(tmp_path, shape):
    lying(tmp_path / "a.npz", shape, bytes(20 * 4 * 4 * 4))
    refused(tmp_path / "a.npz", r"x says that it is \(20, .* bytes, but has 1280: the file is damaged")


def test_more_than_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    lying(tmp_path / "a.npz", (20, 1000, 1000), bytes(20 * 10**6), "u1")
    assert (tmp_path / "a.npz").stat().st_size < 10**5
    monkeypatch.setattr("nasjax.tasks.arrays.memory_bytes", lambda: 10**8)
    refused(tmp_path / "a.npz", "x takes 0 GB in memory, this machine has 0: save fewer")


def test_a_damaged_file_is_named_wherever_it_is_damaged(tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", x=X, y=Y)
    whole, rng = (tmp_path / "whole.npz").read_bytes(), np.random.default_rng(0)
    for end in rng.integers(0, len(whole) - 1, 20):
        (tmp_path / "a.npz").write_bytes(whole[:end])
        refused(tmp_path / "a.npz", "cannot be read as an .npz file")
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            create(tmp_path / "a.npz")
        except ValueError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("start", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_20_gb_of_nothing_are_refused_at_once(tmp_path, start):
    with (tmp_path / "a.npz").open("wb") as file:
        file.write(start)
        file.truncate(20 * 10**9)
    refused(tmp_path / "a.npz", "cannot be read as an .npz file")
