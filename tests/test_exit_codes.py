"""Exit codes and the table of commands: 2 and one line for invalid settings, 1 and a traceback for a bug of nasjax."""

import inspect
import io
import os
import subprocess
import sys
from importlib import import_module

import pytest

from nasjax.cli import main
from nasjax.cli.options import COMMANDS, read_words
from nasjax.errors import ConfigError
from nasjax.function_worker import answers


def raises(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("seed must be from 0"), 2, "nasjax: seed must be from 0"),
        (FileNotFoundError(2, "No such file or directory", "here.csv"), 2, "nasjax: here.csv: No such file or directory"),
        (OSError("disk quota"), 2, "nasjax: the file system: disk quota"),
        (KeyboardInterrupt(), 130, "nasjax: interrupted"),
    ],
)
def test_invalid_settings_and_files_are_one_line(monkeypatch, capsys, error, code, line):
    monkeypatch.setattr("nasjax.cli.list_names.group_files", raises(error))
    assert main(["list"]) == code
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize("error", [ValueError("shapes differ"), AssertionError(), KeyError("genes"), RuntimeError("x")])
def test_any_other_exception_is_a_bug_and_keeps_its_traceback(monkeypatch, capsys, error):
    monkeypatch.setattr("nasjax.cli.list_names.group_files", raises(error))
    assert main(["list"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[-2].startswith(type(error).__name__)
    assert lines[-1].startswith("nasjax: this is a bug of nasjax")


@pytest.mark.slow
def test_jobs_of_a_sweep_follow_the_same_rule_and_the_others_go_on(sweeps, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("multiprocessing.set_start_method", lambda *_, **__: None)
    errors = {0: ConfigError("no such thing"), 1: ValueError("shapes differ"), 2: PermissionError(13, "Denied", "x.db")}

    def run_search(config, label, resume):
        if error := errors.get(config["seed"]):
            raise error
        return True

    monkeypatch.setattr("nasjax.cli.search.run_search", run_search)
    for seeds, code in {"0,3": 2, "2,3": 2, "3,4": 0}.items():
        assert main(["search", "-m", f"seed={seeds}"]) == code
        assert "Traceback" not in capsys.readouterr().err
    assert main(["search", "-m", "seed=1,3"]) == 1
    printed = capsys.readouterr()
    assert "Done: 1 of 2 jobs" in printed.out
    assert "Traceback" in printed.err and "ValueError: shapes differ" in printed.err
    assert printed.err.splitlines()[-1].startswith("  multirun/seed=1: this is a bug of nasjax")


@pytest.mark.slow
def test_validation_does_not_rest_on_assert(tmp_path):
    words = ["search", "constraints=[macs<=nan]", "evaluations=2", "tactic=random", "run=run"]
    command = [sys.executable, "-O", "-m", "nasjax", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "nasjax: constraint 'macs<=nan' is not of the form name<=number or name>=number\n"
    assert list(tmp_path.iterdir()) == []


def test_output_goes_on_where_the_terminal_lacks_a_character(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert main(["list"]) == 0
    with pytest.raises(SystemExit) as ended:
        main(["extract", "--help"])
    assert ended.value.code == 0
    sys.stdout.flush()
    printed = sys.stdout.buffer.getvalue().decode("ascii")
    assert "supernet=digits" in printed and "arch=GENE=OPTION,?" in printed


def test_a_word_that_the_locale_cannot_decode_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["search", b"run=r\xc3\xbc".decode("ascii", "surrogateescape")]) == 2
    wanted = "nasjax: run=r?? cannot be read in this locale: set PYTHONUTF8=1, or LC_ALL to one that is UTF-8\n"
    assert capsys.readouterr().err == wanted
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_no_command_has_are_one_printable_line(capsys):
    for words in (["report", "r", "--\x1b[31m" + "x" * 5000], ["nothing\x1b"], []):
        with pytest.raises(SystemExit) as ended:
            main(words)
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.count("\n") == 1 and error[:-1].isprintable() and len(error) < 1300
        assert error.startswith("nasjax: ") and "--help shows what is allowed" in error


# -- the table of commands --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_handlers_are_functions_of_arguments(command):
    for handler in filter(None, (command.handler, command.multirun_handler)):
        module, _, name = handler.partition(":")
        assert list(inspect.signature(getattr(import_module(module), name)).parameters) == ["arguments"]


@pytest.mark.parametrize("command", [command for command in COMMANDS.values() if command.keys], ids=lambda c: c.name)
def test_unknown_keys_are_one_line_with_what_is_allowed(command, capsys):
    paths = ["some.file"] if command.paths is not None else []
    for word in ("speed=3", "speed.limit=3", "+speed=3"):
        assert main([command.name, *paths, word]) == 2
        allowed = ", ".join(command.keys)
        assert capsys.readouterr().err == f"nasjax: nasjax {command.name} has no setting 'speed'; allowed: {allowed}\n"
    with pytest.raises(ConfigError, match="'speed!' is not of the form key=value"):
        read_words(COMMANDS["evaluate"], ["speed!"])


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_help_names_every_option_and_setting(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command.name, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert command.summary in " ".join(printed.split())
    assert all(f"{key}=" in printed for key in command.keys)


def test_words_are_sorted_into_settings_options_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.csv").touch()
    found = read_words(COMMANDS["import-results"], ["a=b.csv", "out=x.csv", "supernet=digits", "other.csv", "out=y.csv"])
    assert found.settings == ("supernet=digits",)
    assert found.options == {"out": "y.csv"}
    assert found.paths == ("a=b.csv", "other.csv")


def test_why_a_function_failed_has_no_control_characters():
    def red(archs):
        raise RuntimeError("\x1b[31mred\nlight\x00")

    assert answers(red, [{"k": 1}], ["acc"]) == [{"failure": r"raised RuntimeError: \x1b[31mred light\x00"}]


def test_a_closed_pipe_ends_a_command_without_a_message():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "nasjax", "list"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_broken_pipe_of_another_process_is_reported(monkeypatch, capsys):
    monkeypatch.setattr("nasjax.cli.list_names.group_files", raises(BrokenPipeError(32, "Broken pipe")))
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "nasjax: the file system: Broken pipe\n"
