"""The Python interface: from a super-network to an exported file that runs without nasjax."""

import doctest
import importlib
import json
import logging
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from matplotlib.cbook import STEP_LOOKUP_MAP
from PIL import Image
from tables import GENES, write_table

import nasjax
from nasjax.cli import main
from nasjax.errors import ConfigError
from nasjax.objectives import parse_constraint
from nasjax.searches.front import Chosen

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def front():
    net = nasjax.supernets.create("digits")
    task = nasjax.tasks.create("digits")
    return nasjax.search(net, task, objectives=["accuracy_top1", "macs"], tactic="random", evaluations=16)


@pytest.mark.slow
def test_select_returns_the_best_network_that_keeps_the_constraints(front):
    macs, accuracy = front.metrics["macs"], front.metrics["accuracy_top1"]
    assert len(front) > 1
    for bound in macs:
        chosen = front.select(f"macs<={bound:.0f}")
        assert chosen.metrics["macs"] <= bound
        assert chosen.metrics["accuracy_top1"] == accuracy[macs <= bound].max()
    best = front.select()
    assert best.metrics["accuracy_top1"] == accuracy.max()
    both = front.select(f"accuracy_top1>={accuracy.min()}", f"macs<={macs.min():.0f}")
    assert both.arch == tuple(front.archs[macs.argmin()]) and both.choices == front.networks()[macs.argmin()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("macs<=1", r"no network of the front keeps macs<=1; it has accuracy_top1 .* to .*, macs .* to .*"),
        ("mcas<=1", "'mcas' is not known here; allowed: accuracy_top1, loss, macs"),
        ("macs<1", "'macs<1' is not of the form name<=number or name>=number"),
        ("macs<=few", "is not of the form"),
    ],
)
def test_a_constraint_that_cannot_be_kept_or_parsed_is_refused(front, words, said):
    with pytest.raises(ValueError, match=said):
        front.select(words)


def test_failed_networks_keep_no_constraint():
    values = {"latency": np.array([4.0, 5.0, 6.0, np.nan])}
    assert parse_constraint("latency<=5", values).holds(values).tolist() == [True, True, False, False]
    assert parse_constraint(" latency >= 5e0 ", values).holds(values).tolist() == [False, True, True, False]


def test_a_selected_network_is_extracted_and_exported(front, tmp_path):
    """And runs in a program that does not import nasjax."""
    chosen = front.select(f"macs<={front.metrics['macs'].min():.0f}")
    extracted = chosen.extract()
    assert extracted.network.space.size == 1 and extracted.arch == chosen.arch
    assert extracted.difference < 1e-4
    file = extracted.export(tmp_path / "net.stablehlo")
    images = nasjax.tasks.create("digits").test.inputs
    np.save(tmp_path / "images.npy", images)
    loader = """
import sys
import numpy as np
from jax import export
network = export.deserialize(bytearray(open("net.stablehlo", "rb").read()))
np.save("logits.npy", network.call(np.load("images.npy")))
assert "nasjax" not in sys.modules and "flax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", loader], check=True, cwd=tmp_path)
    logits = np.load(tmp_path / "logits.npy")
    assert logits.shape == (297, 10)
    np.testing.assert_allclose(logits, jax.jit(extracted.__call__)(images), rtol=0, atol=1e-4)
    labels = nasjax.tasks.create("digits").test.targets
    assert 100 * (logits.argmax(1) == labels).mean() == pytest.approx(chosen.metrics["test_accuracy_top1"], abs=0.4)

    saved = nasjax.load(extracted.save(tmp_path / "net"))
    np.testing.assert_allclose(jax.jit(saved.__call__)(images), logits, rtol=0, atol=1e-4)
    for again in (lambda: extracted.export(file), lambda: extracted.save(tmp_path / "net")):
        with pytest.raises(ValueError, match="exists already; name another"):
            again()
    (tmp_path / "net" / "record.json").touch()
    with pytest.raises(ValueError, match=r"net has other files, such as record\.json: name another folder"):
        extracted.save(tmp_path / "net", overwrite=True)
    (tmp_path / "net" / "record.json").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "net")
    (tmp_path / "net" / "config.json").write_text("{}")
    extracted.save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink() and nasjax.load(tmp_path / "net").space == extracted.network.space
    (tmp_path / "link").unlink()
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["config.json", "network.safetensors"]
    file.write_bytes(b"old")
    assert extracted.export(file, overwrite=True).stat().st_size > 3
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="exists already"):  # It is no network's folder.
        extracted.save(tmp_path / "mine", overwrite=True)
    (tmp_path / "mine").rmdir()
    with pytest.raises(ValueError, match=r"is not a known export format; allowed: \.stablehlo"):
        extracted.export(tmp_path / "net.tflite")
    with pytest.raises(ValueError, match="there is no folder"):
        extracted.export(tmp_path / "nowhere" / "net.stablehlo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npy", "logits.npy", "net", "net.stablehlo"]


def test_a_front_of_a_table_has_no_networks_to_extract(tmp_path):
    (tmp_path / "t.csv").write_text("width,accuracy_top1\n1,70\n2,80\n")
    net = nasjax.supernets.create("tabular", table=str(tmp_path / "t.csv"), genes=("width",))
    front = nasjax.search(net, objectives=["accuracy_top1"], tactic="random", evaluations=2)
    assert front[0].choices == {"width": 2}
    with pytest.raises(ValueError, match="a table was searched"):
        front.select().extract()


def test_a_front_is_a_table_a_plot_and_a_line(front, tmp_path):
    frame, everything = front.to_pandas(), front.to_pandas(evaluations=True)
    assert frame.index.tolist() == front.indices.tolist() and len(everything) == 16
    for i, (index, row) in enumerate(frame.iterrows()):
        on = [name for name in front.space.names if row[name] == row[name]]  # NaN where a gene is switched off.
        assert {name: row[name] for name in on} == front.networks()[i]
        assert row["macs"] == front.metrics["macs"][i] == everything.loc[index, "macs"]
        assert all(everything.loc[index, name] == row[name] for name in on)
    assert repr(front).startswith(f"Front of {len(front)} networks, of 16 evaluations: accuracy_top1 ")
    html = front._repr_html_()
    assert html.count("<tr>") == len(front) + 1 and "<th>test_accuracy_top1</th>" in html
    axes = front.plot().axes[0]
    drawn = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_array_equal(drawn["front"], np.stack([front.metrics["macs"], front.metrics["accuracy_top1"]], 1))
    np.testing.assert_array_equal(drawn["evaluated"], everything[["macs", "accuracy_top1"]].to_numpy())


@pytest.mark.parametrize("others", [[], ["min:cost"], ["min:cost", "max:width"]])
def test_a_plot_is_a_picture_with_a_line_for_two_objectives_only(tmp_path, others):
    net = nasjax.supernets.create("tabular", table=write_table(tmp_path / "t.csv"), genes=GENES)
    front = nasjax.search(net, objectives=["max:acc", *others], tactic="random", evaluations=40)
    figure = front.plot()
    assert figure._repr_png_().startswith(b"\x89PNG\r\n\x1a\n")  # What IPython asks for where pyplot is not imported.
    line = figure.axes[0].lines[1]
    assert line.get_linestyle() == ("-" if len(others) == 1 else "None")
    if len(others) == 1:  # The staircase is what some network of the front reaches.
        corners = STEP_LOOKUP_MAP[line.get_drawstyle()](*line.get_xydata().T).T
        assert len(front) > 3 and len(corners) == 2 * len(front) - 1
        for cost, acc in corners:
            assert any(
                n.metrics["cost"] <= cost and n.metrics["acc"] >= acc for n in map(front.__getitem__, range(len(front)))
            )


def test_what_compiles_keeps_its_programs(tmp_path, monkeypatch):
    kept = []
    for place in ("searches.front", "searches.seeds", "supernets.folders"):
        monkeypatch.setattr(f"nasjax.{place}.cache_programs", lambda place=place: kept.append(place))
    Chosen(0, (0,), {}, {}, SimpleNamespace(extract=lambda arch: None)).extract()
    net = nasjax.supernets.create("tabular", table=write_table(tmp_path / "t.csv"), genes=GENES)
    with pytest.raises(ConfigError):
        nasjax.search_seeds(net, [0], objectives=["max:speed"])
    (tmp_path / "config.json").write_text('{"supernet": {}, "arch": [], "choices": {}}')
    with pytest.raises(ConfigError):
        nasjax.load(tmp_path)
    assert kept == ["searches.front", "searches.seeds", "supernets.folders"]


def test_a_front_is_stored_and_loaded(front, tmp_path, monkeypatch):
    file = front.save(tmp_path / "front.json")
    again = nasjax.Front.load(file)
    assert repr(again) == repr(front) and again.space == front.space and again.networks() == front.networks()
    assert again.objectives == front.objectives and again.hypervolume == front.hypervolume
    assert {name: column.tolist() for name, column in again.metrics.items()} == {
        name: column.tolist() for name, column in front.metrics.items()
    }
    assert again.select("macs<=1e9").arch == front.select("macs<=1e9").arch
    with pytest.raises(ValueError, match=r"loaded from a file: nasjax\.Front\.load\(file, net, task\) can extract"):
        again.knee().extract()
    with pytest.raises(ValueError, match="exists already; name another"):
        front.save(file)
    assert front.save(file, overwrite=True) == file
    whole = nasjax.Front.load(file, nasjax.supernets.create("digits"), nasjax.tasks.create("digits"))
    assert whole.knee().extract().arch == front.knee().arch
    with pytest.raises(ValueError, match="was measured with other weights, data or settings of the evaluator"):
        nasjax.Front.load(file, nasjax.supernets.create("digits", checkpoint=None), nasjax.tasks.create("digits"))
    with pytest.raises(ValueError, match=r"nowhere\.json is not a file: it does not exist$"):
        nasjax.Front.load(tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match="there is no folder"):
        front.save(tmp_path / "no" / "front.json", overwrite=True)
    with pytest.raises(ValueError, match="is of another super-network: its genes differ"):
        nasjax.Front.load(file, nasjax.supernets.create("digits", kernels=(3, 5, 7), checkpoint=None), None)
    (tmp_path / "other.json").write_text('{"genes": 3}')
    with pytest.raises(ValueError, match=r"other\.json is damaged .* not a file that Front\.save has written"):
        nasjax.Front.load(tmp_path / "other.json")


def test_a_run_from_python_has_the_files_of_the_command(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("width,accuracy_top1,cost\n1,70,3\n2,80,5\n3,75,9\n")
    net = nasjax.supernets.create("tabular", table=str(tmp_path / "t.csv"), genes=("width",))
    goals = {"objectives": ["accuracy_top1", "min:cost"], "tactic": "random", "evaluations": 3}
    front = nasjax.search(net, run=tmp_path / "run", progress=True, **goals)
    assert "3/3, hypervolume" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"report.html", "front.png", "pareto.csv", "summary.json"}
    assert front.to_pandas()["width"].tolist() == [2, 1]
    nasjax.search(net, **goals)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ({"evalutaions": 3}, "nasjax.search has no setting 'evalutaions'; allowed: objectives, "),
        ({"run": 3}, "run must be the path of a file or folder, not 3"),
        ({"tracker": {"project": "x"}}, "settings of tracker need a name; allowed: none, tensorboard"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, mistake, said):
    (tmp_path / "t.csv").write_text("width,accuracy_top1,cost\n1,70,3\n2,80,5\n")
    net = nasjax.supernets.create("tabular", table=str(tmp_path / "t.csv"), genes=("width",))
    with pytest.raises(ConfigError) as raised:
        nasjax.search(net, objectives=["accuracy_top1", "min:cost"], tactic="random", **mistake)
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


def test_verbose_shows_the_log_for_one_search(tiny_net, tiny_task, capsys):
    logger = logging.getLogger("nasjax")
    before = logger.level, list(logger.handlers)
    settings = {
        "evaluator": {"name": "masked", "batch": 16, "calibration_examples": 20},
        "tactic": "random",
        "evaluations": 2,
    }
    nasjax.search(tiny_net, tiny_task, verbose=True, **settings)
    assert "evaluator.calibration_examples=20: using 16, in whole batches of 16" in capsys.readouterr().err
    nasjax.search(tiny_net, tiny_task, **settings)
    assert capsys.readouterr().err == "" and (logger.level, logger.handlers) == before


def test_a_quiet_command_shows_its_results_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("width,accuracy_top1,cost\n1,70,3\n2,80,5\n3,75,9\n")
    words = ["supernet=tabular", "supernet.table=t.csv", "supernet.genes=[width]", "objectives=[accuracy_top1,min:cost]"]
    for quiet in ([], ["--quiet"]):
        assert main(["search", *words, "tactic=random", "evaluations=3", f"run=runs/{len(quiet)}", *quiet]) == 0
        printed = capsys.readouterr()
        assert ("3/3, hypervolume" in printed.err) == (not quiet)
        assert f"Report: runs/{len(quiet)}/report.html" in printed.out
    assert printed.err == ""


def test_arrays_in_memory_are_those_of_a_file(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "own.npz", x=images, y=labels)
    stored = nasjax.tasks.create("arrays", path=str(tmp_path / "own.npz"), validation=0.4, seed=3)
    held = nasjax.tasks.from_arrays(images, labels, validation=0.4, seed=3)
    assert held.digest() == stored.digest() and held.classes == 4
    np.testing.assert_array_equal(held.validation.inputs, stored.validation.inputs)
    with pytest.raises(ValueError, match=r"the arrays: x must be \(n, height, width"):
        nasjax.tasks.from_arrays(images, labels[:5])
    with pytest.raises(ValueError, match="task 'arrays' has no setting 'sed'"):
        nasjax.tasks.from_arrays(images, labels, sed=3)
    for wrong, said in (([[1], [1, 2]], "x and y must be arrays"), (images + 1j, "must be plain real numbers")):
        with pytest.raises(ValueError, match=said):
            nasjax.tasks.from_arrays(wrong, labels)
    with pytest.raises(ValueError, match="leave path= out"):
        nasjax.tasks.from_arrays(images, labels, path="x.npz")


def test_every_name_of_the_package_is_listed():
    assert set(nasjax.__all__) <= set(dir(nasjax)) and all(getattr(nasjax, name) is not None for name in nasjax.__all__)


def test_compiled_programs_of_python_are_kept_unless_jax_was_told(tmp_path):
    code = (
        "import jax; from nasjax.program_cache import cache_programs; {}; cache_programs(); "
        "print(jax.config.jax_compilation_cache_dir)"
    )
    for said, environment, wanted in (
        ("pass", {}, str(tmp_path / "nasjax" / "xla")),
        ("jax.config.update('jax_compilation_cache_dir', 'mine')", {}, "mine"),
        ("pass", {"JAX_COMPILATION_CACHE_DIR": ""}, "None"),
    ):
        known = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
        known |= {"XDG_CACHE_HOME": str(tmp_path), **environment}
        done = subprocess.run(
            [sys.executable, "-c", code.format(said)], capture_output=True, text=True, check=True, env=known
        )
        assert done.stdout.strip() == wanted or (wanted == "None" and not done.stdout.strip())


def python_of(page):
    """The Python code blocks of a page, in order."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    """Once-for-All on an image folder as in the README, with smaller images and other paths."""
    rng = np.random.default_rng(0)
    for part, number in (("train", 8), ("val", 4)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for i in range(number):
                image = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(image).save(tmp_path / "images" / part / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    name = "ofa_mbv3_d234_e346_k357_w1.0"
    nasjax.supernets.save_weights(nasjax.supernets.create(name), Path("ofa_mbv3.safetensors"), {})
    (lines,) = [block for block in python_of("README.md") if "evaluations=250" in block]
    lines = lines.replace('"/data/imagenet", limit=5000', '"images", image_size=32').replace(
        "evaluations=250", "evaluations=6"
    )
    lines = lines.replace('.safetensors"', '.safetensors", image_size=32').replace("macs<=300e6", "macs<=1e9")
    exec(lines, {})
    assert Path("net.stablehlo").stat().st_size > 1e6


def test_the_examples_in_docstrings_are_right():
    tried = 0
    for found in pkgutil.walk_packages(nasjax.__path__, "nasjax."):
        if found.name == "nasjax.__main__":
            continue
        result = doctest.testmod(importlib.import_module(found.name))
        assert result.failed == 0, found.name
        tried += result.attempted
    assert doctest.testmod(nasjax).failed == 0
    assert tried >= 10


@pytest.mark.slow
def test_the_example_notebook_runs_from_the_first_cell_to_the_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "examples" / "digits.ipynb").read_text())
    found: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            *lines, last = "".join(cell["source"]).split("\n")
            exec("\n".join(lines), found)
            value = eval(last, found)
            assert not cell["outputs"] and cell["execution_count"] is None
    assert value is True  # The exported network's outputs are those of the extracted one.
    assert found["accuracy"] == pytest.approx(found["small"].metrics["test_accuracy_top1"], abs=0.4)
    assert Path("digits.stablehlo").stat().st_size > 10_000 and found["front"]._repr_html_().startswith("<p>Front of ")
