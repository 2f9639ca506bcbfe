"""Progress says what is being waited for: evaluations, and programs that are compiled before the first of them."""

import json
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from nasjax import program_cache, progress
from nasjax.program_counts import TYPICAL, expected_programs, keep_programs, search_kind
from nasjax.progress import COMPILED, LOWERED, ProgressBar
from nasjax.searches.steps import gain


def lowered(seconds, name):
    jax.monitoring.record_event_duration_secs(LOWERED, seconds, fun_name=f"jit({name})")


def compiled(seconds=0.5, **named):
    jax.monitoring.record_event_duration_secs(COMPILED, seconds, **named)


def test_a_large_program_is_announced_before_it_is_compiled(capsys):
    with ProgressBar("evaluations", "hypervolume", 9) as bar:
        lowered(0.01, "less")
        compiled(0.1)
        assert capsys.readouterr().err == ""
        lowered(1.5, "fit")
        assert capsys.readouterr().err == "compiling fit (program 2)…\n"
        compiled(46.0)
        assert capsys.readouterr().err == ""
        bar.update(3, 9, 1.5)
        assert capsys.readouterr().err.startswith("3/9, hypervolume 1.5")
    lowered(9.0, "run")  # Not this bar's business any more.
    assert capsys.readouterr().err == ""


def test_many_small_programs_are_announced_now_and_then(capsys):
    with ProgressBar("evaluations", "hypervolume", 9):
        for _ in range(13):
            lowered(0.01, "add")
            compiled(1.0)
    assert capsys.readouterr().err.splitlines() == [f"compiling add (program {number})…" for number in (6, 11)]


def test_a_program_is_announced_by_jax_itself_before_xla_begins(monkeypatch, capsys):
    """The events are JAX's own: another version may name them otherwise."""
    monkeypatch.setattr(progress, "LARGE", 0.0)
    said = []
    with ProgressBar("evaluations", "hypervolume", 9) as bar:
        monkeypatch.setattr(bar, "compiled", lambda seconds: said.append(capsys.readouterr().err))

        @jax.jit
        def double(x):
            return 2 * x

        double(1.0)
    assert "compiling double (program 1)…\n" in said


def test_that_programs_are_kept_is_said_once_where_there_are_none(tmp_path, monkeypatch, capsys):
    config = SimpleNamespace(jax_compilation_cache_dir=str(tmp_path / "xla"))
    monkeypatch.setattr(program_cache, "jax", SimpleNamespace(config=config))
    for _ in range(2):
        program_cache.cache_programs()
        with ProgressBar("timed", "ms"):
            lowered(1.0, "one")
            lowered(1.0, "two")
        (tmp_path / "xla").mkdir(exist_ok=True)
        (tmp_path / "xla" / "a-program").touch()
    lines = capsys.readouterr().err.splitlines()
    kept = f"compiled programs are kept in {tmp_path / 'xla'}: the next search does not compile them again"
    announced = ["compiling one (program 1)…", "compiling two (program 1)…"]
    assert lines == [kept, *announced, *announced]


@pytest.mark.parametrize("widgets", [False, True])
def test_a_notebook_without_widgets_has_plain_lines(monkeypatch, capsys, widgets):
    monkeypatch.setattr(progress, "Console", partial(progress.Console, force_jupyter=True))
    monkeypatch.setattr(progress, "find_spec", lambda name: object() if widgets else None)
    assert ProgressBar("evaluations", "hypervolume", 2)._plain != widgets


def test_a_bar_beside_others_says_whose_it_is(monkeypatch, capsys):
    monkeypatch.setattr(progress, "QUIET", 0.0)
    with ProgressBar("timed", "ms", label="seed=1"):
        jax.monitoring.record_event_duration_secs("/jax/core/compile/jaxpr_trace_duration", 1.0)
        lowered(0.0, "one")
    assert capsys.readouterr().err == "seed=1: compiling one (program 1)…\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache folder of its own, in a process that has compiled nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(progress, "_compiled", set())
    return tmp_path


def announced(capsys, kind, programs):
    with ProgressBar("evaluations", "hypervolume", 9, kind=kind):
        for number in range(programs):
            lowered(1.5, f"p{number + 1}")
            compiled()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == programs
    return [line.removeprefix("compiling ").removesuffix("…") for line in lines]


def test_how_many_programs_follow_is_known_from_the_last_command_of_its_kind(home, monkeypatch, capsys):
    kind = search_kind("mine", "digits", "auto")
    assert announced(capsys, kind, 3) == ["p1 (program 1)", "p2 (program 2)", "p3 (program 3)"]
    switch = search_kind("mine", "digits", "switch")
    assert announced(capsys, kind, 1) == announced(capsys, switch, 1) == ["p1 (program 1)"]  # Programs are shared now.
    assert expected_programs(switch) is None
    monkeypatch.setattr(progress, "_compiled", set())
    more = ["p1 (program 1 of about 3)", "p2 (program 2 of about 3)", "p3 (program 3 of about 3)", "p4 (program 4)"]
    assert announced(capsys, kind, 4) == more
    monkeypatch.setattr(progress, "_compiled", set())
    assert announced(capsys, kind, 1) == ["p1 (program 1 of about 4)"]
    monkeypatch.setattr(progress, "_compiled", set())
    assert announced(capsys, kind, 1) == ["p1 (program 1 of about 4)"]  # A resumed run compiles fewer.


def test_a_first_search_is_told_what_its_tactic_compiles_on_the_digits(home, capsys):
    assert announced(capsys, search_kind("ehvi", "digits", "auto"), 1) == [f"p1 (program 1 of about {TYPICAL['ehvi']})"]


def test_a_command_that_failed_and_a_damaged_file_say_nothing_of_the_next(home, monkeypatch, capsys):
    kind = search_kind("mine", "digits", "auto")
    with pytest.raises(KeyboardInterrupt), ProgressBar("evaluations", "hypervolume", 9, kind=kind):
        compiled()
        raise KeyboardInterrupt
    assert expected_programs(kind) is None
    announced(capsys, kind, 2)
    assert expected_programs(kind) == 2
    (kept,) = (home / "nasjax").iterdir()
    for damaged in ("", "[1]", '{"' + kind + '": "2"}'):
        kept.write_text(damaged)
        assert expected_programs(kind) is None
    keep_programs(kind, 5)
    assert expected_programs(kind) == 5


@pytest.mark.slow
@pytest.mark.parametrize("tactic", ["ehvi", "full"])
def test_a_search_of_the_digits_compiles_about_what_was_announced(home, tactic):
    words = ["search", f"tactic={tactic}", f"run={home / 'run'}", "evaluations=60"]
    subprocess.run([sys.executable, "-m", "nasjax", *words], check=True, cwd=home, capture_output=True)
    (kept,) = (home / "nasjax").glob("programs-*.json")
    (number,) = json.loads(kept.read_text()).values()
    assert number == pytest.approx(TYPICAL[tactic], rel=0.2)


def test_the_gain_is_the_growth_since_ten_evaluations_from_their_worst_values():
    """By hand: ten points on a line dominate 36 unit squares; a corner twice as far dominates 100."""
    line = np.array([[i, 10.0 - i] for i in range(1, 11)])
    assert np.isnan(gain(line[:9]))
    assert gain(line) == 0
    failed = np.full((1, 2), np.nan)
    assert gain(np.concatenate([line, failed])) == 0
    beyond = np.array([[10.0, 0.0]])  # No better than the worst of the first in one objective: it counts for nothing.
    assert gain(np.concatenate([line, beyond])) == 0
    corner = np.array([[0.0, -1.0]])
    first = sum(9 - i for i in range(1, 9))
    assert gain(np.concatenate([line, corner])) == pytest.approx(100 * (100 / first - 1))
    assert np.isnan(gain(np.concatenate([np.repeat(failed, 10, 0), line])))
