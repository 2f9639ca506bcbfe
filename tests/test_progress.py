"""Progress says what is being waited for: evaluations, and programs that are compiled before the first of them."""

from functools import partial

import jax
import pytest

from nasjax import progress
from nasjax.progress import COMPILED, ProgressBar


def compiled(seconds=0.5, **named):
    jax.monitoring.record_event_duration_secs(COMPILED, seconds, **named)


def test_compiling_is_mentioned_while_nothing_else_is_to_be_said(capsys):
    with ProgressBar("evaluations", "hypervolume", 9) as bar:
        for _ in range(13):
            compiled(1.0)
        compiled(1.0, fun_name="jit(evolve)")
        compiled(1.0, fun_name="jit(fit)")
        bar.update(3, 9, 1.5)
        compiled(4.0)
    compiled(9.0)  # Not this bar's business any more.
    lines = capsys.readouterr().err.splitlines()
    so_far = [f"compiling: {number} programs so far" for number in (5, 10, 15)]
    assert lines[:3] == [so_far[0], so_far[1], f"{so_far[2]}, fit took 1.0 s"]
    assert len(lines) == 4 and lines[3].startswith("3/9, hypervolume 1.5")


@pytest.mark.parametrize("widgets", [False, True])
def test_a_notebook_without_widgets_has_plain_lines(monkeypatch, capsys, widgets):
    monkeypatch.setattr(progress, "Console", partial(progress.Console, force_jupyter=True))
    monkeypatch.setattr(progress, "find_spec", lambda name: object() if widgets else None)
    assert ProgressBar("evaluations", "hypervolume", 2)._plain != widgets


def test_a_bar_beside_others_says_whose_it_is(monkeypatch, capsys):
    monkeypatch.setattr(progress, "QUIET", 0.0)
    with ProgressBar("timed", "ms", label="seed=1"):
        jax.monitoring.record_event_duration_secs("/jax/core/compile/jaxpr_trace_duration", 1.0)
        compiled()
    assert capsys.readouterr().err == "seed=1: compiling: 1 program so far\n"
