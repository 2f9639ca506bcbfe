"""What settings mean, for `--help` and `nasjax list`: plain ones from a table, those of a group from their docstrings."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

PLAIN: Mapping[str, tuple[str, str]] = {
    "objectives": ("[accuracy_top1,macs]", "what to search for; nasjax list shows the names"),
    "constraints": ("[]", "limits of metrics and genes, as in constraints=[macs<=2e5]"),
    "references": ("", "reference points of the hypervolume, as in references.macs=1e6"),
    "evaluations": ("128", "the budget: how many sub-networks are evaluated"),
    "minutes": ("null", "time after which nothing more is measured; the same command resumes the search"),
    "tactic_device": ("null", "cpu: the tactic and its predictors run there, beside an accelerator that evaluates"),
    "seed": ("0", "decides all random choices"),
    "seeds": ("null", "how many searches of a table, the first with seed=; each has the next seed"),
    "run": ("null", "the folder to write, or to resume; by default a new one in runs/"),
    "archive": ("null", "a file of measurements that several searches share; by default the run's own"),
    "warm_start": ("null", "an earlier search to begin from: a run folder, a folder of several, a table, an archive"),
    "proxies": ("[]", "cheap scores that predictors read, as in proxies=[synflow,jacobian]"),
    "distributed": ("null", "[HOST:PORT,NUMBER,INDEX] or [auto]: one search by several processes"),
    "subnet": ("null", "the folder of an extracted network, to be trained on"),
    "largest": ("null", "weights of a trained network, which becomes the largest sub-network"),
    "teacher": ("null", "weights of the super-network that an extracted network learns from, too"),
}
"""The default of every setting that is in no group, as it is written, and what it means."""


def plain_lines(keys: list[str]) -> list[str]:
    """A line on each of these settings: `evaluations=128  the budget…`."""
    heads = [f"{key}={PLAIN[key][0]}" for key in keys]
    width = max(map(len, heads), default=0)
    return [f"  {head:<{width}}  {PLAIN[key][1]}" for head, key in zip(heads, keys, strict=True)]


def described(settings: Any) -> dict[str, str]:
    """What each field of a settings dataclass means, from its docstring and of those of the classes that it inherits from.

    `settings`: an instance of it. A field's entry under `Attributes:` counts, else the first sentence that has its name in
    backticks; fields without either have an empty one.
    """
    found: dict[str, str] = {}
    explained: dict[str, str] = {}
    for kind in type(settings).__mro__:
        prose, _, attributes = inspect.cleandoc(kind.__dict__.get("__doc__") or "").partition("Attributes:\n")
        for sentence in re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(prose.split())):
            for name in re.findall(r"`(\w+)`", sentence):
                found.setdefault(name, sentence.removeprefix(f"`{name}`: "))
        entries = re.findall(r"^  (\S[^:\n]*): (.*(?:\n    .*)*)", attributes, re.MULTILINE)
        explained = {n.strip(): " ".join(text.split()) for names, text in entries for n in names.split(",")} | explained
    return {field.name: (found | explained).get(field.name, "") for field in fields(settings)}
