"""Exported encoder-decoders: encoder and decoding step, loaded again, translate as the super-network does."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_transformer as tiny
from tiny import scrambled

from nasjax import supernets
from nasjax.deploy.from_run import add_exports
from nasjax.deploy.subnet import Extracted
from nasjax.export import KINDS, ExportedRunner, load_onnx, load_stablehlo
from nasjax.supernets.extract import extract
from nasjax.supernets.runner import Subnet
from nasjax.supernets.transformer_layers import END
from nasjax.tasks import beam_search as beam_search_module
from nasjax.tasks.beam_search import beam_search

LOADED = {".stablehlo": load_stablehlo, ".onnx": load_onnx}
BEAM, PENALTY, TIME = 3, 0.6, 7
BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parent.parent / "docs" / "export.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def net():
    """With weights of which translations are not all the same word."""
    settings = asdict(replace(tiny.CONFIG, shared_embeddings=False, positions=60))
    return scrambled(supernets.create("transformer_lt_wmt_en_de", **settings), 2)


@pytest.fixture(scope="module")
def archs(net):
    """One of one decoder layer, one of three."""
    rows = [tuple(row) for row in np.asarray(net.space.sample(jax.random.key(3), 40)).tolist()]
    depths = [net.space.decode(np.array(row, np.int32))["decoder_depth"] for row in rows]
    return [rows[depths.index(depth)] for depth in (1, 3)]


@pytest.fixture(scope="module")
def wanted(net, archs):
    """What beam search finds on the masked super-network."""
    search = jax.jit(lambda arch: beam_search(Subnet(net, arch, net.stored()), tiny.inputs(), BEAM, PENALTY, TIME))
    return [search(jnp.asarray(arch, jnp.int32)) for arch in archs]


def extracted(net, arch):
    """An extracted network with what verifies its files: targets of several lengths."""
    inputs = tiny.inputs() | {"target": tiny.sentences(np.random.default_rng(1), (6, 3, 5, 6), 6, first=END)}
    outputs = np.asarray(net(inputs, arch))
    choices = net.space.decode(np.array(arch, np.int32))
    return Extracted(extract(net, arch), net.origin, arch, choices, 0.0, jax.tree.map(np.asarray, inputs), outputs)


@pytest.fixture(scope="module")
def written(net, archs, tmp_path_factory):
    """The folder of the first, with all that can be written of it, each verified in another process."""
    return extracted(net, archs[0]).save(tmp_path_factory.mktemp("export") / "net", tuple(LOADED))


def loaded(suffix, small, folder, batch=None):
    """A translator of files that were just written, and their names."""
    contents = KINDS[suffix].make(small, dict, batch)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return ExportedRunner(*(LOADED[suffix](folder / name) for name in contents)), list(contents)


@pytest.mark.parametrize("suffix", LOADED)
@pytest.mark.parametrize("number", [0, 1])
def test_beam_search_on_loaded_files_finds_the_words_of_the_super_network(net, archs, wanted, suffix, number, tmp_path):
    small = extract(net, archs[number])
    run, names = loaded(suffix, small, tmp_path)
    assert names == [f"encoder{suffix}", f"step{suffix}"] == KINDS[suffix].names(small)
    with jax.disable_jit(suffix == ".onnx"):
        found = beam_search(run, tiny.inputs(), BEAM, PENALTY, TIME)
    np.testing.assert_array_equal(found.tokens, wanted[number].tokens)
    np.testing.assert_allclose(found.score, wanted[number].score, rtol=0, atol=5e-6)
    assert len(np.unique(found.tokens, axis=0)) > 1


def test_files_for_a_fixed_number_of_sentences_get_all_of_them_in_every_step(net, archs, wanted, tmp_path, monkeypatch):
    """Though fewer are translated at once on a CPU."""
    monkeypatch.setattr(beam_search_module, "AT_ONCE", 2)
    source = tiny.inputs()["source"]
    run, _ = loaded(".stablehlo", extract(net, archs[0]), tmp_path, batch=len(source))
    found = jax.jit(lambda source: beam_search(run, {"source": source, "target": source}, BEAM, PENALTY, TIME))(source)
    np.testing.assert_array_equal(found.tokens, wanted[0].tokens)


@pytest.mark.parametrize("suffix", LOADED)
def test_sentences_may_be_of_any_number_and_length_and_padded_on_either_side(net, archs, suffix, tmp_path):
    """Logits of given translations, which are fed word by word."""
    rng = np.random.default_rng(5)
    source, target = tiny.sentences(rng, (9, 6, 2), 11, "left"), tiny.sentences(rng, (5, 5, 5), 5, first=END)
    run, _ = loaded(suffix, extract(net, archs[0]), tmp_path)
    found, wanted = run({"source": source, "target": target}), net({"source": source, "target": target}, archs[0])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-6)
    assert np.abs(wanted).max() > 1


def test_layers_beyond_the_depth_have_no_arrays(net, archs, tmp_path):
    for arch, layers in zip(archs, (1, 3), strict=True):
        run, _ = loaded(".onnx", extract(net, arch), tmp_path)
        memory = run.encoder({"source": np.asarray(tiny.inputs()["source"])})
        named = {f"memory_{part}_{i}" for part in ("keys", "values") for i in range(1, layers + 1)}
        assert memory.keys() == {"known"} | named


def test_a_folder_has_encoder_and_step_and_a_file_becomes_two(net, archs, written, tmp_path):
    files = ["config.json", "encoder.onnx", "encoder.stablehlo", "network.safetensors", "step.onnx", "step.stablehlo"]
    assert sorted(file.name for file in written.iterdir()) == files
    one = extracted(net, archs[0])
    assert one.export(tmp_path / "net.onnx") == tmp_path / "net.encoder.onnx"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.encoder.onnx", "net.step.onnx"]
    with pytest.raises(ValueError, match=r"encoder\.onnx exists already"):
        add_exports(one, written, [".onnx"])
    with pytest.raises(ValueError, match="only Once-for-All's families"):
        one.export(tmp_path / "net.safetensors")


def test_files_that_translate_otherwise_are_removed(net, archs, tmp_path, monkeypatch):
    """The first step is right; the later ones see no word before the last."""
    onnx = pytest.importorskip("onnx")

    def forgetful(small, facts, batch):
        made = KINDS[".onnx"].make(small, facts, batch)
        model = onnx.load_from_string(made["step.onnx"])
        (last,) = (node for node in model.graph.node if node.output[0] == "next_visible")
        last.input[0] = "visible"
        return made | {"step.onnx": model.SerializeToString()}

    monkeypatch.setattr("nasjax.deploy.subnet.kind", lambda suffix: replace(KINDS[".onnx"], make=forgetful))
    with pytest.raises(RuntimeError, match="differ by"):
        extracted(net, archs[0]).export(tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("suffix", LOADED)
def test_a_fixed_number_of_sentences_is_the_only_one(archs, tmp_path, suffix):
    """Of a network whose embeddings and scores share a tensor."""
    net = tiny.CONFIG.create(0)
    run, _ = loaded(suffix, extract(net, archs[0]), tmp_path, batch=2)
    inputs = {name: np.asarray(tokens) for name, tokens in tiny.inputs().items()}
    two = {name: tokens[:2] for name, tokens in inputs.items()}
    np.testing.assert_allclose(run(two), net(two, archs[0]), rtol=0, atol=5e-6)
    with pytest.raises(Exception, match=r"batch|dimension|shape"):
        run.encoder({"source": inputs["source"][:3]})


@pytest.mark.parametrize("suffix", LOADED)
def test_the_translating_code_in_the_docs_runs_without_nasjax(net, archs, written, tmp_path, suffix):
    """Runs the code of docs/export.md in a new process; it finds the words of beam search with one beam."""
    loop, load = (block for block in BLOCKS if "def translate" in block or f'load("net/step{suffix}")' in block)
    (tmp_path / "net").symlink_to(written)
    source = np.asarray(tiny.inputs()["source"])
    load = re.sub(r"source = np.array\(.*\n", f"source = np.array({source.tolist()}, np.int32)\n", load)
    check = "import sys\nprint(words.tolist())\nassert not {'nasjax', 'flax', 'torch'} & set(sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", loop + load + check], cwd=tmp_path, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    found = np.array(json.loads(done.stdout))
    run = Subnet(net, archs[0], net.stored())
    greedy = jax.jit(lambda: beam_search(run, tiny.inputs(), beam=1, length_penalty=0.0, time=50).tokens)()
    for ours, theirs in zip(found, np.asarray(greedy), strict=True):
        length = [*ours.tolist(), END].index(END)
        np.testing.assert_array_equal(ours[: min(length + 1, 49)], theirs[: min(length + 1, 49)])  # The 50th must be END.
    assert len(np.unique(found)) > 3


def test_the_beam_search_in_the_docs_runs(written, wanted, tmp_path, monkeypatch):
    (code,) = (block for block in BLOCKS if "import ExportedRunner" in block)
    (tmp_path / "net").symlink_to(written)
    monkeypatch.chdir(tmp_path)
    names = {"source": tiny.inputs()["source"]}
    exec(code.replace("beam=5", f"beam={BEAM}").replace("time=50", f"time={TIME}"), names)
    np.testing.assert_array_equal(names["found"].tokens, wanted[0].tokens)
