"""An extracted network translates text as the super-network does, in Python and on the command line."""

import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_translation import SETTINGS, write_pairs

import nasjax
from nasjax import supernets, tasks
from nasjax.cli import main
from nasjax.deploy.subnet import extract_subnet
from nasjax.errors import ConfigError
from nasjax.evaluation import MaskedConfig
from nasjax.export import KINDS, ExportedRunner, load_onnx, load_stablehlo
from nasjax.supernets import save_network
from nasjax.supernets.checkpoints import load_weights, save_weights
from nasjax.supernets.extract import extract
from nasjax.supernets.runner import Subnet
from nasjax.supernets.transformer_layers import PAD
from nasjax.tasks.beam_search import beam_search
from nasjax.tasks.translation import room

SIZES = {
    "source_words": 80, "target_words": 80, "length": 7, "positions": 60, "encoder_layers": 2, "decoder_depths": (1, 2),
    "encoder_widths": (6, 8), "decoder_widths": (5, 8), "inner_width": 8, "heads": (2, 4), "hidden": (5, 9),
    "cross_layers": (1, 2),
}  # fmt: skip


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tasks.create("translation", path=str(write_pairs(tmp_path_factory.mktemp("pairs"))), **SETTINGS)


@pytest.fixture(scope="module")
def net(task):
    """Untrained, of a seed with which translations differ."""
    return supernets.create("transformer_lt_wmt_en_de", seed=6, **SIZES)


@pytest.fixture(scope="module")
def folder(net, task, tmp_path_factory):
    arch = tuple(map(int, np.asarray(net.space.sample(jax.random.key(3), 1))[0]))
    evaluator = MaskedConfig(chunk=1, calibration_examples=0).bind(net, task)
    folder = tmp_path_factory.mktemp("net") / "translator"
    return extract_subnet(net, evaluator, arch, task.validation.take(slice(4)).inputs).save(folder), arch


SENTENCES = ["the dog sees the cat .", "", "the bird hears the child follows the horse .", "the child likes the dog ."]


def test_it_translates_as_the_masked_super_network_does(net, task, folder):
    graph, weights = nnx.split(net)
    arch = jnp.asarray(folder[1], jnp.int32)

    @jax.jit
    def run(weights, source):
        net = nnx.merge(graph, weights)
        inputs = {"source": source, "target": source[:, :1]}
        return beam_search(Subnet(net, arch, net.stored()), inputs, 3, 0.6, room(source.shape[1])).tokens

    wanted = []
    for sentence in SENTENCES:
        own = task.source_vocabulary.encode([sentence])[0]
        tokens = np.full((1, 16 if len(own) <= 16 else 24 if len(own) <= 24 else 32), 1, np.int32)
        tokens[0, : len(own)] = own
        wanted += task.target_vocabulary.decode(np.asarray(run(weights, tokens)).tolist()) if sentence else [""]
    assert len(set(wanted)) == 4
    steps = []
    assert nasjax.load_translator(folder[0])(SENTENCES, steps.append) == wanted
    assert steps[-1] == 4


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "read"), [(".stablehlo", load_stablehlo), (".onnx", load_onnx)])
def test_exported_files_translate_to_the_words_of_the_masked_super_network(net, folder, tmp_path, suffix, read):
    translator, sentences = nasjax.load_translator(folder[0]), [sentence for sentence in SENTENCES if sentence]
    masked = Subnet(net, jnp.asarray(folder[1], jnp.int32), net.stored())
    for name, content in KINDS[suffix].make(translator.network, dict, None).items():
        (tmp_path / name).write_bytes(content)
    run = ExportedRunner(*(read(tmp_path / f"{name}{suffix}") for name in ("encoder", "step")))
    source = np.full((len(sentences), 24), PAD, np.int32)
    for row, own in zip(source, translator.source.encode(sentences), strict=True):
        row[: len(own)] = own

    def words(run):
        inputs = {"source": jnp.asarray(source), "target": jnp.asarray(source[:, :1])}
        found = beam_search(run, inputs, translator.beam, translator.length_penalty, room(24)).tokens
        return translator.target.decode(found.tolist())

    with jax.disable_jit(suffix == ".onnx"):
        found = words(run)
    assert found == words(masked)
    assert len(set(found)) == 3


def test_the_command_prints_a_translation_for_each_line(folder, monkeypatch, capsys, tmp_path):
    wanted = nasjax.load_translator(folder[0])(SENTENCES)
    text = "\n".join(SENTENCES) + "\n"
    (tmp_path / "text.en").write_text(text)
    assert main(["translate", f"subnet={folder[0]}", f"text={tmp_path / 'text.en'}"]) == 0
    assert capsys.readouterr().out == "\n".join(wanted) + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["translate", f"subnet={folder[0]}"]) == 0
    assert capsys.readouterr().out == "\n".join(wanted) + "\n"


def test_its_folder_is_a_vocabulary_for_another_task(folder, task):
    path = task.origin["path"]
    assert tasks.create("translation", path=path, vocabulary=str(folder[0]), **SETTINGS).digest() == task.digest()


def test_mistakes_are_refused_in_one_line(folder, tmp_path, capsys):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    for words, message in (
        (["text=x"], "nasjax translate needs subnet=FOLDER"),
        ([f"subnet={tmp_path}"], "holds no extracted network"),
        ([f"subnet={folder[0]}", f"text={tmp_path / 'binary'}"], "is not text in UTF-8"),
        ([f"subnet={folder[0]}", f"text={tmp_path / 'none'}"], "none"),
    ):
        assert main(["translate", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    with pytest.raises(ConfigError, match=r"sentence 2 has \d+ tokens; this network translates up to 32: split it"):
        nasjax.load_translator(folder[0])(["the dog", "the dog sees " * 30])


def test_a_folder_without_its_vocabulary_or_with_another_is_refused(folder, tmp_path):
    for name, change, message in (
        ("no file", lambda place: (place / "translation.json").unlink(), "it has no translation.json"),
        ("damaged", lambda place: (place / "translation.json").write_text("{"), "translation.json"),
        ("no model", lambda place: (place / "vocabulary.model").unlink(), "dict.en.txt"),
    ):  # fmt: skip
        place = tmp_path / name
        shutil.copytree(folder[0], place)
        change(place)
        with pytest.raises(ConfigError, match=message):
            nasjax.load_translator(place)
    how = json.loads((folder[0] / "translation.json").read_text())
    assert how == {"source": "en", "target": "de", "beam": 3, "length_penalty": 0.6}


def test_weights_say_which_vocabularies_they_were_trained_with(net, task, tmp_path):
    save_weights(net, tmp_path / "net.safetensors", dict(task.facts()))
    loaded = load_weights(lambda: net, tmp_path / "net.safetensors")
    task.check(loaded)
    other = MappingProxyType({"vocabularies": ["SentencePieces(0)"] * 2})
    loaded.facts = other
    with pytest.raises(ConfigError, match="trained with other vocabularies of the same size: set task"):
        task.check(loaded)


def test_an_extracted_network_refuses_other_vocabularies_of_the_same_size(net, task, folder, tmp_path):
    trained = nnx.clone(net)
    trained.facts = dict(task.facts())
    (tmp_path / "net").mkdir()
    save_network(extract(trained, folder[1]), net.origin, folder[1], tmp_path / "net")
    loaded = nasjax.load(tmp_path / "net")
    task.check(loaded)
    write_pairs(tmp_path, seed=5)
    other = tasks.create("translation", path=str(tmp_path), **SETTINGS)
    with pytest.raises(ConfigError, match="the weights were trained with other vocabularies of the same size"):
        other.check(loaded)


@pytest.mark.slow
def test_the_commands_of_the_page_lead_from_two_files_to_a_translator(tmp_path, monkeypatch, capsys):
    """All of them, with a few words and steps."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parent.parent / "docs" / "translation.md").read_text()
    block = next(block for block in re.findall(r"```\n(.*?)```", page, re.DOTALL) if "nasjax train" in block)
    commands = [shlex.split(line)[1:] for line in block.replace("\\\n", " ").splitlines() if line.startswith("nasjax")]
    assert [words[0] for words in commands] == ["train", "train", "search", "extract"]
    Path("pairs").mkdir()
    write_pairs(Path("pairs"))
    small = ["task.words=80", "supernet.source_words=80", "supernet.target_words=80", "task.held_out=9"]
    few = {"train": [*small, "trainer.epochs=1"], "search": [*small, "evaluations=4", "task.beam=2"], "extract": []}
    for words in commands:
        kept = [word for word in words if not word.startswith("trainer.epochs")]
        assert main([*kept, *few[words[0]]]) == 0
    (tmp_path / "text.en").write_text("the dog sees the cat .\n")
    capsys.readouterr()
    assert main(["translate", "subnet=translator", "text=text.en"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert {file.name for file in Path("translator").iterdir()} >= {"encoder.onnx", "step.onnx", "vocabulary.model"}
