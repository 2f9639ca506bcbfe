"""The run-time type checker of the tests: beartype, where an int passes for a float, as for every Python type checker."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
