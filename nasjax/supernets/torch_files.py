"""Files of `torch.save`, read without PyTorch: tensors are views of the mapped file, and nothing of the file is executed."""

import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import jax.numpy as jnp
import numpy as np

LIMIT = 2**28
"""Bytes that the description of a file's objects may take, their numbers apart."""

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first of the pickles that PyTorch wrote before version 1.6."""

TYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
"""The element types that are read, by the names of PyTorch's storages."""


class TorchFileError(ValueError):
    """A file that cannot be read as `torch.save` writes one, and why."""


class Foreign:
    """Stands for an object that is not read, of the class or function `kind`: it drops whatever the file gives it."""

    kind = ""

    def __new__(cls, *_: Any, **__: Any) -> "Foreign":
        return object.__new__(cls)

    def __call__(self, *_: Any) -> "Foreign":
        return self

    def _drop(self, *_: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _drop


class StoredDict(dict[Any, Any]):
    """An OrderedDict of the file, without its attributes."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Function:
    """A function that a file may call; no attribute of it can be set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers of a file: their type in PyTorch's words, and their key."""

    type: str
    key: str


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a file: where its numbers are in a storage; `unread` says why it is of no kind that is read, or is ""."""

    storage: Storage = Storage("", "")
    offset: int = 0
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    unread: str = ""


def _tensor(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> StoredTensor:
    counts = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise TorchFileError("a tensor has no storage or no shape")
    if not all(type(count) is int and count >= 0 for count in counts):
        raise TorchFileError("a tensor has an invalid shape")
    return StoredTensor(storage, offset, tuple(shape), tuple(strides), _unread(storage.type))


def _unread(kind: str) -> str:
    return "" if kind in TYPES else "complex" if kind.startswith("Complex") else f"of type {kind}"


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _of_type(function: Any, kind: Any, arguments: tuple[Any, ...], state: Any) -> Any:
    return function(*arguments) if isinstance(function, _Function) else None


def _unreadable(reason: str) -> Callable[..., StoredTensor]:
    return lambda *_: StoredTensor(unread=reason)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda *pairs: StoredDict(*pairs),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_tensor_v3": _unreadable("of a type that NumPy does not have"),
    "torch._utils._rebuild_sparse_tensor": _unreadable("sparse"),
    "torch._utils._rebuild_nested_tensor": _unreadable("nested"),
    "torch._utils._rebuild_qtensor": _unreadable("quantized"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unreadable("without values (device meta)"),
}
"""What a file may call, ours in place of PyTorch's; all else becomes `Foreign`."""


class _Unpickler(pickle._Unpickler):
    """Builds containers, numbers, text and `StoredTensor`; imports nothing. `types` has the types of storages by key.

    The unpickler in Python: that in C allocates as much as a damaged file says.
    """

    def __init__(self, file: Any):
        super().__init__(file)
        self.types: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        kind = f"{module}.{name}"
        if kind in FUNCTIONS:
            return _Function(FUNCTIONS[kind])
        return type("Foreign", (Foreign,), {"kind": kind})

    def persistent_load(self, pid: Any) -> Storage:
        _, kind, key = pid[:3]
        storage = Storage(kind.kind.rpartition(".")[2], str(key))
        self.types[storage.key] = storage.type
        return storage


@dataclass(frozen=True)
class TorchFile:
    """The objects of a file, and the bytes of its storages: first and last position in `content` by key."""

    objects: Any
    content: mmap.mmap
    places: Mapping[str, tuple[int, int]]

    def array(self, tensor: StoredTensor) -> np.ndarray:
        """A tensor as an array that has no memory of its own. Raises TorchFileError where the file has not all of it."""
        dtype = TYPES[tensor.storage.type]
        first, end = self.places.get(tensor.storage.key, (0, 0))
        if 0 in tensor.shape:
            return np.empty(tensor.shape, dtype)
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
        if first + (tensor.offset + last + 1) * dtype.itemsize > end:
            raise TorchFileError("the file ends before its numbers do")
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
        return np.ndarray(tensor.shape, dtype, self.content, first + tensor.offset * dtype.itemsize, strides)


def read_torch(path: Path) -> TorchFile:
    """Reads a file of `torch.save`. Raises TorchFileError, or whatever pickle and zipfile raise for a damaged file."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _read_zip(file, content) if content[:4] == b"PK\x03\x04" else _read_legacy(file, content)


def _read_zip(file: IO[bytes], content: mmap.mmap) -> TorchFile:
    with zipfile.ZipFile(file) as archive:
        records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if "constants.pkl" in records:
        raise TorchFileError("it is a TorchScript program")
    if "data.pkl" not in records:
        raise TorchFileError("it is another zip file")
    if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
        raise TorchFileError("it was compressed afterwards")
    places = {name: _place(info, content) for name, info in records.items()}
    first, last = places["data.pkl"]
    if last - first > LIMIT:
        raise TorchFileError("the description of its objects is too long")
    order = content[slice(*places["byteorder"])] if "byteorder" in places else b"little"
    if order != b"little":
        raise TorchFileError("it was written by a big-endian machine")
    objects = _Unpickler(_Limited(BytesIO(content[first:last]))).load()
    return TorchFile(objects, content, {name.removeprefix("data/"): place for name, place in places.items()})


def _place(info: zipfile.ZipInfo, content: mmap.mmap) -> tuple[int, int]:
    """First and last position of a record that is not compressed."""
    name, extra = struct.unpack_from("<HH", content, info.header_offset + 26)
    first = info.header_offset + 30 + name + extra
    return first, min(first + info.file_size, len(content))


class _Limited:
    """A file of pickles, of which no single read gets more than LIMIT bytes."""

    def __init__(self, file: Any):
        self._file = file

    def read(self, number: int) -> bytes:
        if number > LIMIT:
            raise TorchFileError("one of its objects is too long")
        return bytes(self._file.read(number))

    def readline(self) -> bytes:
        return bytes(self._file.readline(LIMIT))


def _read_legacy(file: IO[bytes], content: mmap.mmap) -> TorchFile:
    pickles = _Limited(file)
    magic = _Unpickler(pickles).load()
    if magic != LEGACY_MAGIC:
        raise TorchFileError("it is another pickle")
    _version, machine = (_Unpickler(pickles).load() for _ in range(2))
    unpickler = _Unpickler(pickles)
    objects = unpickler.load()
    if not machine["little_endian"]:
        raise TorchFileError("it was written by a big-endian machine")
    places = {}
    for key in _Unpickler(pickles).load():
        kind = unpickler.types[key]
        if kind not in TYPES:
            raise TorchFileError(f"it holds numbers of type {kind}")
        (number,) = struct.unpack("<q", file.read(8))
        first = file.tell()
        end = first + number * TYPES[kind].itemsize
        places[key] = first, min(end, len(content))
        file.seek(end)
    return TorchFile(objects, content, places)
