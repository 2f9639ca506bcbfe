"""`nasjax train -m`: every training of a sweep once, in a folder named from its overrides."""

import json
import os
from dataclasses import replace

import pytest
from test_trackers import events

from nasjax.cli import main
from nasjax.cli.multirun import finished
from nasjax.supernets import SUPERNETS, load_weights
from nasjax.supernets.checkpoints import weights_digest
from nasjax.training import run
from nasjax.version import __version__

SMALL_NET = replace(SUPERNETS["digits"], widths=(8,), strides=(2,), depths=((1,),), kernels=(3,), expands=(1, 2),
                    activations=("relu",), squeeze_excite=(False,))  # fmt: skip
SMALL = ["supernet.widths=[8]", "supernet.strides=[2]", "supernet.depths=[[1]]", "supernet.kernels=[3]",
         "supernet.expands=[1,2]", "supernet.activations=[relu]", "supernet.squeeze_excite=[false]"]  # fmt: skip


@pytest.mark.slow
def test_a_sweep_of_trainings_runs_each_once(sweeps, tmp_path, capsys, monkeypatch):
    """Jobs are named from their overrides, and the record says what each was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_scores", lambda *given: {"validation": 50.0})
    words = ["train", "-m", "trainer=plain,single_path", "trainer.epochs=1", "trainer.batch=600", "seed=1,2", *SMALL]
    words.append("tracker=tensorboard")
    assert main(words) == 0
    folders = sorted(path for path in (tmp_path / "multirun").iterdir() if path.is_dir())
    found = [json.loads((folder / "record.json").read_text()) for folder in folders]
    assert {(r["settings"]["trainer"]["name"], r["seed"]) for r in found} == {
        (name, seed) for name in ("plain", "single_path") for seed in (1, 2)
    }
    assert all(record["complete"] and record["settings"]["trainer"]["epochs"] == 1 for record in found)
    assert all(record["command"].startswith("nasjax train trainer=") for record in found)
    for folder, record in zip(folders, found, strict=True):
        assert "tracker" not in record["settings"] and "tracker" not in folder.name
        summaries = [(value.tag, step, value.tensor.string_val) for step, value in events(folder / "events")]
        # Curves are written once, though both the training and the tracker write events.
        assert [step for tag, step, _ in summaries if tag == "loss"] == [1]
        (scores,) = (text for tag, _, (text,) in (s for s in summaries if s[2]) if tag == "scores/text_summary")
        assert b"| largest | validation | 50 |" in scores
    digests = {weights_digest(load_weights(SMALL_NET.create, f / "supernet.safetensors")) for f in folders}
    assert len(digests) == 4
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out.count("is done already") == 4


def test_a_sweep_refuses_a_super_network_beside_an_extracted_one(sweeps, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", "subnet=small", "seed=1,2", "supernet=digits"]) == 2
    assert capsys.readouterr().err.count("subnet=small says what is trained: leave supernet= out") == 4
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_job_is_done_while_its_record_is_newer_than_what_it_read(tmp_path):
    config = {"supernet": None, "task": {"path": None}, "subnet": str(tmp_path / "subnet"), "largest": None}
    result, weights = tmp_path / "record.json", tmp_path / "subnet" / "network.safetensors"
    weights.parent.mkdir()
    for file in (weights, result):
        file.write_text(json.dumps({"version": __version__, "complete": True}))
    os.utime(weights, ns=(1, 10))
    os.utime(result, ns=(1, 20))
    assert finished(result, config)
    started = tmp_path / "training.json"
    started.touch()  # Its page is not written yet.
    assert not finished(result, config)
    started.unlink()
    os.utime(weights, ns=(1, 30))
    assert not finished(result, config)


def test_an_experiment_s_setting_that_another_method_lacks_is_one_line(tmp_path, monkeypatch, capsys):
    """Composed from a file of the person's own, as from the package's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "own.yaml").write_text("# @package _global_\ntrainer:\n  random_subnets: 1\n")
    assert main(["train", "experiment=own", "trainer=plain", "run=run"]) == 2
    said = capsys.readouterr().err
    assert said.endswith(
        "experiment=own sets trainer.random_subnets, which trainer=plain does not have: leave one of the two out\n"
    )
    assert said.count("\n") == 1 and [path.name for path in tmp_path.iterdir()] == ["conf"]
