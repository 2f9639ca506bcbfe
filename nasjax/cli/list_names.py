"""`nasjax list`: every name that a setting may have, with a line on each."""

from importlib.resources import files

from nasjax.cli.options import Arguments, group_names
from nasjax.objectives import COST_OBJECTIVES, TIMINGS
from nasjax.tasks import OBJECTIVES


def list_names(arguments: Arguments) -> int:
    """Runs `nasjax list`: names with the first comment line of their files in conf/, then the objectives."""
    rows = []
    for group, names in group_names().items():
        for name in names:
            text = files("nasjax.conf").joinpath(group, f"{name}.yaml").read_text(encoding="utf-8")
            comments = [line[2:] for line in text.splitlines() if line.startswith("# ") and not line.startswith("# @")]
            rows.append((f"{group}={name}", comments[0]))
    objectives = (OBJECTIVES | COST_OBJECTIVES | TIMINGS).values()
    rows += [(f"objectives=[{objective.direction}:{objective.name}]", objective.about) for objective in objectives]
    width = max(len(name) for name, _ in rows)
    # Plain lines: a name that is cut or wrapped cannot be copied.
    for name, about in rows:
        print(f"{name:<{width}}  {about}")
    return 0
