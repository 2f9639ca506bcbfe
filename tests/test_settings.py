"""Settings as Hydra's users know them: own configurations, folders of sweeps, composed settings, meanings."""

import json
import pickle
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from nasjax.cli import main, schemas
from nasjax.cli.compose import configuration
from nasjax.cli.meanings import PLAIN, described
from nasjax.cli.options import COMMANDS, default_names, group_names
from nasjax.cli.schemas import Schema, kept_columns, kept_file
from nasjax.cli.tables import GROUPS, columns
from nasjax.registry import settings

TABLE = ["supernet=tabular", "supernet.table=table.csv", "supernet.genes=[d,k]", "objectives=[max:acc,min:cost]"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a table, and with an experiment and a tactic of one's own in `conf`."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{d},{k},{10 * d + k},{d * d + k}" for d in range(4) for k in range(3)]
    Path("table.csv").write_text("\n".join(["d,k,acc,cost", *rows]) + "\n")
    for folder in ("conf", "more"):
        for group in ("experiment", "tactic"):
            Path(folder, group).mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text(
        "# @package _global_\n# My search.\ndefaults:\n  - override /tactic: few\nevaluations: 6\n"
    )
    Path("conf/tactic/few.yaml").write_text("# Few at a time.\ndefaults: [random_schema]\npopulation: 3\n")
    Path("more/mine2.yaml").write_text("defaults:\n  - config\n  - _self_\nseed: 7\n")
    return tmp_path


def composed(*words):
    return configuration("search", words)


def test_a_person_s_own_configurations_are_found_beside_the_package_s(here, capsys):
    config = composed("experiment=mine", "seed=3")
    assert config["tactic"] == {"name": "random", "population": 3} and config["evaluations"] == 6 and config["seed"] == 3
    assert main(["list", "tactic"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Few at a time." in next(line for line in lines if line.startswith("tactic=few"))
    assert any(line.startswith("tactic=ehvi ") for line in lines)
    assert main(["search", "experiment=mines"]) == 2
    assert "unknown experiment 'mines'; allowed: cifar10, digits" in (said := capsys.readouterr().err) and "mine," in said


def test_a_sweep_of_own_configurations_runs_in_the_folder_that_hydra_is_told(here, sweeps, capsys):
    words = ["search", "-m", *TABLE, "experiment=mine", "seed=1,2", "hydra.sweep.dir=swept"]
    assert main(words) == 0
    assert "Done: 2 of 2 jobs; nasjax report swept compares them" in capsys.readouterr().out
    assert not Path("multirun").exists()
    configs = [yaml.safe_load(path.read_text()) for path in sorted(Path("swept").glob("*/config.yaml"))]
    assert [config["seed"] for config in configs] == [1, 2]
    assert all(config["tactic"]["population"] == 3 and config["evaluations"] == 6 for config in configs)
    assert main(words) == 0
    assert capsys.readouterr().out.count("is done already") == 2


def test_a_sweep_obeys_the_folder_that_an_experiment_names(here, sweeps, capsys):
    with Path("conf/experiment/mine.yaml").open("a") as file:
        file.write("hydra:\n  sweep:\n    dir: swept\n")
    words = ["search", "-m", *TABLE, "experiment=mine", "seed=1"]
    assert main(words) == 0 and main([*words, "hydra.sweep.dir=elsewhere"]) == 0
    out = capsys.readouterr().out
    assert "nasjax report swept compares" in out and "nasjax report elsewhere compares" in out
    assert list(Path("swept").glob("*/summary.json")) and not Path("multirun").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("hydra.job.chdir=true", "commands stay in the folder where they are started"),
        ("hydra.verbose=true", "--quiet shows less"),
        ("hydra/sweeper=basic", "-m runs every combination of the values on the command line"),
        ("hydra.sweeper.params={seed: 1}", "-m runs every combination of the values on the command line"),
        ("hydra.mode=MULTIRUN", "-m runs a sweep"),
        ("+hydra.foo=1", "of Hydra's settings only hydra.sweep.dir, hydra.searchpath, hydra.launcher and"),
    ],
)
def test_settings_of_hydra_s_that_do_nothing_here_are_refused(here, word, said, capsys):
    key = word.lstrip("+").partition("=")[0]
    for words in ([word], ["-m", word, "seed=1,2"]):
        assert main(["search", *TABLE, *words]) == 2
        error = capsys.readouterr().err
        assert f"{key} cannot be set: {said}" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("block", "key"),
    [
        ("hydra:\n  job:\n    chdir: true\n", "hydra.job.chdir"),
        ("hydra:\n  sweeper:\n    params:\n      seed: 1,2\n", "hydra.sweeper.params.seed"),
        ("defaults:\n  - override /hydra/job_logging: disabled\n", "hydra/job_logging"),
    ],
)
def test_a_block_of_hydra_s_settings_that_do_nothing_is_refused_in_a_file_too(here, block, key, capsys):
    Path("conf/experiment/block.yaml").write_text(f"# @package _global_\n{block}")
    first = block if "defaults" in block else f"defaults: [config, _self_]\n{block}"
    Path("conf/first.yaml").write_text(first.replace("defaults:\n", "defaults:\n  - config\n"))
    for words, said in ((["experiment=block"], "experiment=block"), (["--config-name", "first"], "first.yaml")):
        assert main(["search", "--cfg", "job", *words]) == 2
        assert f"{said} sets {key}, which has no meaning here: " in capsys.readouterr().err


def test_the_first_file_may_name_further_folders(here, capsys):
    Path("more/tactic/fewer.yaml").write_text("defaults: [random_schema]\npopulation: 2\n")
    Path("conf/first.yaml").write_text("defaults: [config, _self_]\nhydra:\n  searchpath: ['file://${oc.env:HERE}/more']\n")
    assert main(["search", "-c", "job", "-cn", "first", "tactic=fewer"]) == 2
    assert "first.yaml: hydra.searchpath: " in capsys.readouterr().err  # $HERE is not set.
    Path("conf/first.yaml").write_text("defaults: [config, _self_]\nhydra:\n  searchpath: [more]\n")
    for tactic, population in (("fewer", 2), ("few", 3)):
        assert main(["search", "-c", "job", "-cn", "first", f"tactic={tactic}"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["tactic"]["population"] == population


def test_files_that_nasjax_s_take_the_place_of_are_named(here, capsys):
    Path("conf/config.yaml").write_text("seed: 3\n")
    Path("conf/tactic/random.yaml").write_text("defaults: [random_schema]\npopulation: 3\n")
    assert main(["list", "evaluations"]) == 0
    said = capsys.readouterr().err
    assert (
        said.startswith("nasjax: warning: conf/config.yaml, conf/tactic/random.yaml are not read") and said.count("\n") == 1
    )
    assert said.endswith("choose another, and say --config-name=NAME or tactic=NAME\n")


@pytest.mark.parametrize(
    "flag", ["--config-path=conf", "-p", "--package", "--resolve", "-i", "--info", "--hydra-help", "-cp"]
)
def test_flags_that_only_hydra_has_are_refused_in_a_line(here, flag, capsys):
    assert main(["search", flag, "seed=1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"nasjax: {flag.partition('=')[0]} is not there: ") and said.count("\n") == 1
    assert main(["search", "-c", "hydra"]) == 2 and "--cfg hydra is not there: --cfg job" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("myname: 3\n", "experiment=new sets myname, which is not a setting; allowed here: supernet, task"),
        ("tactic:\n  size: 3\n", "experiment=new sets tactic.size, which is not a setting; allowed in tactic: start"),
        ("evaluations: many\n", "experiment=new: evaluations: Value 'many'"),
    ],
)
def test_a_foreign_key_of_an_experiment_is_named(here, content, said, capsys):
    Path("conf/experiment/new.yaml").write_text(f"# @package _global_\n{content}")
    assert main(["search", "experiment=new"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"nasjax: {said}") and error.count("\n") == 1


def test_the_default_of_a_group_and_names_of_a_given_folder_are_listed(here, capsys):
    Path("more/tactic/fewer.yaml").write_text("# Fewer.\ndefaults: [random_schema]\npopulation: 2\n")
    assert main(["list", "tactic", "--config-dir", "more"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["tactic=ehvi"].startswith("(default) Expected") and lines["tactic=fewer"] == "Fewer."
    assert "(default)" not in lines["tactic=random"]
    assert main(["list", "tactic=fewer", "-cd", "more"]) == 0 and "tactic.population=2 " in capsys.readouterr().out
    group_defaults = {name: value["name"] for name, value in composed().items() if isinstance(value, dict) and value}
    assert default_names().items() >= group_defaults.items()


def test_translations_may_be_quiet(capsys):
    assert main(["translate", "--quiet", "text=a.txt"]) == 2
    assert "nasjax translate needs subnet=FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["hydra.run.dir=a", "hydra.sweep.subdir=a"])
def test_folders_that_have_no_meaning_here_are_refused(here, word, capsys):
    for words in ([word], ["-m", word, "seed=1,2"]):
        assert main(["search", *TABLE, *words]) == 2
        said = capsys.readouterr().err
        assert f"{word.partition('=')[0]} cannot be set: run=FOLDER names the folder of a run" in said
    assert not Path("multirun").exists() and not Path("runs").exists()


def test_settings_are_printed_as_they_are_composed(here, capsys):
    words = ["tactic=random", "seed=5"]
    assert main(["search", "--cfg", "job", *words]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == json.loads(json.dumps(composed(*words)))
    assert main(["search", "--config-dir", "more", "--config-name", "mine2", "--cfg", "job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 7
    assert main(["search", "--config-name", "mine3", "--cfg", "job"]) == 2
    assert "there is no mine3.yaml" in capsys.readouterr().err
    assert main(["search", "--config-dir", "more/none", "seed=1"]) == 2
    assert "--config-dir=more/none is not a folder" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_defaults_that_help_names_are_those_of_the_schema(capsys):
    plain = composed() | configuration("train", [])
    for key, (written, meaning) in PLAIN.items():
        assert yaml.safe_load(written or "{}") == plain[key] and meaning, key
    assert {field.name for field in fields(Schema)} == PLAIN.keys() | GROUPS.keys()
    for command in COMMANDS.values():
        assert set(command.settings) <= PLAIN.keys() | group_names().keys()


def test_every_setting_of_every_name_has_a_meaning(capsys):
    for group, table in GROUPS.items():
        for name in table:
            for field, meaning in described(settings(group, table, name)).items():
                assert meaning or (group, name) == ("task", "own"), f"{group}={name}: {field}"
    assert main(["list", "trainer=progressive", "evaluations", "hardware=cpu"]) == 0
    out = capsys.readouterr().out
    assert "trainer.shrinking_rate=1.0 " in out and "evaluations=128  the budget" in out and "hardware.batch=1 " in out
    assert main(["list", "speed"]) == 2 and main(["list", "tactic=foo"]) == 2


def test_a_mistyped_name_is_told_before_anything_heavy_is_imported():
    code = (
        "import sys\nfrom nasjax.cli import main\n"
        "print(main(['search', 'tactic=randm']), main(['search', 'evalutions=3']))\n"
        "print([m for m in ('jax', 'hydra', 'flax', 'numpy', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["2 2", "[]"]
    assert "unknown tactic 'randm'; allowed: concurrent" in done.stderr and "no setting 'evalutions'" in done.stderr


def test_a_mistaken_setting_is_told_before_jax_is_imported_once_the_schemas_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept = kept_file()
    for content in (None, b"damaged", pickle.dumps({"source": "another nasjax", "columns": {}})):
        if content is not None:
            kept.write_bytes(content)
        assert kept_columns() == columns() == pickle.loads(kept.read_bytes())["columns"]
    code = (
        "import sys\nfrom nasjax.cli import main\n"
        "print(main(['search', 'seed=x']), main(['search', '-m', 'tactic=random,full', 'tactic.foo=1']))\n"
        "print(main(['list', 'evaluations', 'tactic']), main(['search', '-m', 'seed=1,2', 'evaluations=0']))\n"
        "print([m for m in ('jax', 'flax', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith("2 2\n") and done.stdout.endswith("\n0 2\n[]\n"), done.stderr


def test_every_installation_keeps_schemas_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = kept_file()
    monkeypatch.setattr(schemas, "__file__", str(tmp_path / "elsewhere" / "nasjax" / "cli" / "schemas.py"))
    assert kept_file() != here and kept_file().parent == here.parent == tmp_path / "nasjax"


@pytest.mark.parametrize(
    ("file", "content", "words", "said"),
    [
        ("experiment/bad.yaml", b"a: [\n", ["experiment=bad"], "a configuration of yours is not YAML: "),
        ("experiment/bad.yaml", b"# \xff\nseed: 1\n", ["experiment=bad"], "is not text in UTF-8"),
        ("experiment/bad.yaml", b"seed: 1\n", ["experiment=bad"], "its first line must be # @package _global_"),
        ("tactic/bad.yaml", b"population: 3\n", ["tactic=bad"], "tactic=bad has no name: its file must begin with defaults"),
        ("tactic/bad.yaml", b"defaults: [random_schema]\nsize: 3\n", ["tactic=bad"],
         "tactic=bad sets tactic.size, which the name that it is made of does not have: remove it"),
    ],
)  # fmt: skip
def test_mistakes_in_one_s_own_files_are_one_line(here, capsys, file, content, words, said):
    Path("conf", file).write_bytes(content)
    assert main(["search", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert main(["list"]) == 0 and file[-8:-5] in capsys.readouterr().out


def test_a_folder_of_others_adds_no_names(here, capsys):
    Path("conf/model").mkdir()
    Path("conf/model/resnet.yaml").write_text("layers: 50\n")
    assert main(["list", "model"]) == 2 and "model" not in group_names([Path("conf")])


def test_flags_may_stand_anywhere(here, capsys):
    assert main(["search", "experiment=mine", "--cfg", "job", "seed=3"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 3
    assert main(["search", "-m", "seed=1,2", "--cfg", "job"]) == 2
    assert "--cfg prints the settings of one command" in capsys.readouterr().err
    assert main(["extract", "run=nowhere", "--cfg=job"]) == 2


def test_a_job_whose_own_configuration_has_changed_is_not_done(here, sweeps, capsys):
    words = ["search", "-m", *TABLE, "experiment=mine", "seed=1,2"]
    assert main(words) == 0
    file = Path("conf/experiment/mine.yaml")
    file.write_text(file.read_text().replace("evaluations: 6", "evaluations: 9"))
    assert main(words) == 0
    assert "is done already" not in capsys.readouterr().out
    assert all(yaml.safe_load(path.read_text())["evaluations"] == 9 for path in Path("multirun").glob("*/config.yaml"))
    Path("swept").touch()
    assert (
        main([*words, "hydra.sweep.dir=swept"]) == 2 and "hydra.sweep.dir=swept is not a folder" in capsys.readouterr().err
    )


def test_the_example_of_the_page_works(here, capsys):
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text()
    (example,) = re.findall("```yaml\n(.*?)```", page, re.DOTALL)
    Path("conf/experiment/mine.yaml").write_text(example)
    config = composed("experiment=mine")
    assert config["tactic"]["name"] == "concurrent" and config["task"]["path"] == "images" and config["evaluations"] == 200
