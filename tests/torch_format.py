"""Writes files as `torch.save` does, without PyTorch: arrays become tensors."""

import pickle
import sys
import zipfile
from collections import OrderedDict
from io import BytesIO
from types import ModuleType
from unittest import mock

import numpy as np

STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage"}


def _module(name, **functions):
    module = ModuleType(name)
    for key, value in functions.items():
        value.__module__, value.__qualname__ = name, key
        setattr(module, key, value)
    return module


def _modules():
    """Modules with the names that a file has; their content is never called."""
    storages = {name: type(name, (), {}) for name in STORAGES.values()}
    return {
        "torch": _module("torch", **storages),
        "torch._utils": _module("torch._utils", _rebuild_tensor_v2=lambda *_: None),
    }


class _Storage:
    def __init__(self, array, key):
        self.array, self.key = array, key


class _Pickler(pickle.Pickler):
    def __init__(self, file, modules, legacy):
        super().__init__(file, protocol=2)
        self.modules, self.legacy, self.storages = modules, legacy, []

    def persistent_id(self, obj):
        if not isinstance(obj, _Storage):
            return None
        kind = getattr(self.modules["torch"], STORAGES[obj.array.dtype.name])
        return ("storage", kind, obj.key, "cpu", obj.array.size, *[None] * self.legacy)

    def reducer_override(self, obj):
        if not isinstance(obj, np.ndarray) or obj.dtype.name not in STORAGES:
            return NotImplemented
        strides = tuple(stride // obj.itemsize for stride in obj.strides)
        # Of an array that repeats its numbers, one is stored: as PyTorch stores an expanded tensor.
        stored = obj.reshape(-1)[:1] if obj.size and not any(strides) else np.ascontiguousarray(obj)
        if any(strides):
            strides = tuple(stride // obj.itemsize for stride in stored.strides)
        self.storages.append(_Storage(stored, str(len(self.storages))))
        rebuild = self.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (self.storages[-1], 0, obj.shape, strides, False, OrderedDict())


def torch_bytes(content, legacy=False):
    """A file of `torch.save(content)`, in the zip format or the older one."""
    modules, objects = _modules(), BytesIO()
    with mock.patch.dict(sys.modules, modules):
        pickler = _Pickler(objects, modules, legacy)
        pickler.dump(content)
    file = BytesIO()
    if legacy:
        machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
        for part in (0x1950A86A20F9469CFC6C, 1001, machine):
            file.write(pickle.dumps(part, 2))
        file.write(objects.getvalue())
        file.write(pickle.dumps([storage.key for storage in pickler.storages], 2))
        for storage in pickler.storages:
            file.write(storage.array.size.to_bytes(8, "little") + storage.array.tobytes())
        return file.getvalue()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", objects.getvalue())
        archive.writestr("archive/byteorder", "little")
        for storage in pickler.storages:
            archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
    return file.getvalue()
