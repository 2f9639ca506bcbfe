"""Run folders of other versions of nasjax are refused in one line that says why."""

import json
import os

import pytest
import yaml

from nasjax.errors import ConfigError
from nasjax.runs.folder import flatten_settings, read_settings, run_folder

SETTINGS = {
    "objectives": ["accuracy_top1"],
    "references": {},
    "evaluations": 10,
    "tactic": {"name": "random", "population": 5},
    "supernet": {"name": "own", "path": "net.py", "arguments": {"width": 8}},
    "evaluator": {"name": "masked", "batch": 100},
}


@pytest.fixture
def run(tmp_path):
    """A folder of a run with SETTINGS."""
    with run_folder(tmp_path / "run", SETTINGS, "context"):
        pass
    return tmp_path / "run"


def rewritten(run, **changes):
    """Changes config.yaml as if the run had been started with other settings."""
    (run / "config.yaml").write_text(yaml.safe_dump(SETTINGS | changes, sort_keys=False))


def refusal(run, context="context", **changes):
    """The message with which resuming the run is refused."""
    with pytest.raises(ConfigError) as caught, run_folder(run, SETTINGS | changes, context):
        pass
    assert "\n" not in str(caught.value)
    assert str(run) in str(caught.value)
    return str(caught.value)


def test_a_setting_that_no_longer_exists_is_named(run):
    rewritten(run, evaluator={"name": "masked", "batch": 100, "first_examples": 0, "pictures": 9})
    message = refusal(run)
    assert "written by another version of nasjax (it has evaluator.first_examples=0, which is not a setting here)" in message


def test_a_setting_that_the_earlier_version_did_not_have_is_named(run):
    rewritten(run, evaluator={"name": "masked"})
    assert "written by another version of nasjax (it has no evaluator.batch)" in refusal(run)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tactic": {"name": "random", "population": 6}}, "started with tactic.population=5, not 6"),
        ({"tactic": {"name": "full", "crossover": 0.9}}, "started with tactic.name=random, not full"),
        ({"references": {"accuracy_top1": 1.0}}, "started with references.accuracy_top1=None, not 1.0"),
        ({"supernet": SETTINGS["supernet"] | {"arguments": {}}}, "started with supernet.arguments.width=8, not None"),
        ({"hardware": {"name": "cpu", "batch": 1}}, "started with hardware.name=None, not cpu"),
        ({"evaluations": 9}, "started with evaluations=10; 9 is less"),
    ],
)
def test_a_setting_that_a_person_changed_is_no_other_version(run, changes, words):
    message = refusal(run, **changes)
    assert words in message
    assert "version" not in message


def test_a_digest_of_another_version_is_refused(run):
    assert "other weights, data or settings, or by another version of nasjax" in refusal(run, context="other")
    (run / "run.json").write_text(json.dumps({"id": "a"}))
    assert "run.json is damaged (it lacks 'context'): it may be of another version of nasjax" in refusal(run)


@pytest.mark.parametrize("content", ["a: [", "", "word"])
def test_a_damaged_configuration_is_named(run, content):
    (run / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml is damaged") as caught:
        read_settings(run)
    assert "\n" not in str(caught.value)


def test_settings_are_flattened_by_their_dotted_names():
    assert flatten_settings({"a": {"b": {"c": 1}, "d": [2]}, "e": None, "f": {}}) == {"a.b.c": 1, "a.d": [2], "e": None}


def test_a_path_of_more_folders_than_python_can_make_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="run= has more than 200 folders"), run_folder(
        tmp_path / ("a/" * 2000), SETTINGS, "context"
    ):  # fmt: skip
        pass
    assert not (tmp_path / "a").exists()


def test_a_pipe_in_place_of_the_lock_is_refused(run):
    (run / ".lock").unlink(missing_ok=True)
    os.mkfifo(run / ".lock")
    assert "its .lock is not a file: it is a " in refusal(run)
