"""Files that a person names: only regular ones are read, and nothing that exists is written over."""

import os
from pathlib import Path

import pytest
from tables import write_table

from nasjax import supernets
from nasjax.cli import main
from nasjax.errors import ConfigError
from nasjax.host import append_line, new_place, read_lines, regular_file

TABLE = ["supernet=tabular", "supernet.table=t.csv", "supernet.genes=[d,a,b,c,e]"]
SEARCH = ["search", *TABLE, "objectives=[max:acc,min:cost]", "tactic=random", "evaluations=5", "run=run"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a table, a pipe, a folder and links."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "t.csv")
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("folder/kept").touch()
    Path("link").symlink_to("t.csv")
    Path("lost").symlink_to("nowhere")
    return tmp_path


def refusal(words, capsys):
    """The one line with which a command is refused."""
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("pipe", "it is a pipe"),
        ("/dev/zero", "it is a device"),
        ("folder", "it is a folder"),
        ("nowhere", "it does not exist"),
        ("lost", "it does not exist"),
        ("t.csv/x", "it does not exist"),
        ("a\0b", "it does not exist"),
    ],
)
def test_only_regular_files_are_read(here, path, why):
    with pytest.raises(ConfigError, match=f"this=that is not a file: {why}"):
        regular_file("this=that", path)
    assert regular_file("", "link").read_text() == Path("t.csv").read_text()


@pytest.mark.parametrize("place", ["pipe", "/dev/zero"])
def test_every_reader_refuses_pipes_and_devices(here, place, capsys):
    for words in (
        [*SEARCH, f"warm_start={place}"],
        [*SEARCH, f"archive={place}"],
        [*SEARCH, f"supernet.table={place}"],
        ["evaluate", *TABLE, f"archs={place}"],
        ["import", place, "supernet=ofa_resnet50"],
        ["import-results", place],
        ["train", "task=arrays", f"task.path={place}", "run=run"],
        ["latency", "hardware=csv", f"hardware.file={place}"],
        ["latency", "hardware=cpu", f"hardware.file={place}"],
    ):
        assert f"{place} is not a file: it is a" in refusal(words, capsys)
    for function in (read_lines, lambda path: append_line(path, "")):
        with pytest.raises(ConfigError, match=f"{place} is not a file"):
            function(place)
    assert not Path("run").exists() and not Path("evaluated.csv").exists()


@pytest.mark.parametrize("place", ["t.csv", "pipe", "/dev/null", "folder", "lost"])
def test_no_command_writes_over_what_exists(here, place, capsys):
    before = Path("t.csv").read_text(), os.stat("/dev/null").st_rdev
    for words in (
        ["evaluate", *TABLE, "archs=t.csv", f"out={place}"],
        ["import", "t.csv", "supernet=ofa_resnet50", f"out={place}"],
        ["import-results", "t.csv", f"out={place}"],
        ["latency", "hardware=cpu", f"out={place}"],
        ["train", f"run={place}"],
        ["extract", "arch=depth_1=1", f"out={place}"],
    ):
        assert f"{place} exists already; name another f" in refusal(words, capsys)
    assert before == (Path("t.csv").read_text(), os.stat("/dev/null").st_rdev)


def test_evaluate_refuses_its_default_file_before_anything_is_measured(here, capsys):
    assert main(["evaluate", *TABLE, "archs=t.csv", "--quiet"]) == 0
    before = Path("evaluated.csv").read_text()
    assert not capsys.readouterr().err
    assert "out=evaluated.csv exists already; name another file" in refusal(["evaluate", *TABLE, "archs=t.csv"], capsys)
    assert Path("evaluated.csv").read_text() == before


def test_a_new_file_needs_its_folder_and_a_new_folder_none(here):
    assert new_place("", "deep/er/folder", "folder") == Path("deep/er/folder")
    for path, kind in (("deep/file", "file"), ("t.csv/x/y", "folder"), ("pipe/x", "folder")):
        with pytest.raises(ConfigError, match="x=y: there is no folder"):
            new_place("x=y", path, kind)


def test_settings_that_are_paths_are_strings_or_paths(here):
    genes = ("d", "a", "b", "c", "e")
    assert supernets.create("tabular", table=Path("t.csv"), genes=genes).metrics == ("acc", "cost", "width")
    for wrong in (5, ["t.csv"], True):
        with pytest.raises(ConfigError, match=r"supernet\.table must be a string, not"):
            supernets.create("tabular", table=wrong, genes=genes)
