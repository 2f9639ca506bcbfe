"""The run-time type checker of the tests: beartype, where an int passes for a float, as for every Python type checker."""

from inspect import signature

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_local: dict = {}


def typechecked(function):
    """`function` with its arguments and result checked.

    jaxtyping passes the empty functions that it makes of a signature. A local function is defined at every trace and its
    checker takes milliseconds to make, so checkers of local functions are kept, by place and signature.
    """
    if "<locals>" not in getattr(function, "__qualname__", ""):
        return _check(function)
    key = function.__module__, function.__qualname__, signature(function)
    if key not in _local:
        _local[key] = _check(function)
    return _local[key]
