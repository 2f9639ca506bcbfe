"""Translates three real sentences by exported files, and by the super-network that they were extracted from.

    python experiments/translation/exported.py WEIGHTS.safetensors MULTI30K FOLDER

FOLDER is a network that `nasjax extract … export=stablehlo,onnx` wrote. Ends with 1 unless all translations are equal.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import multi30k
import numpy as np

from nasjax.deploy.translator import load_translator
from nasjax.export import ExportedRunner, load_onnx, load_stablehlo
from nasjax.supernets.folders import read_facts
from nasjax.supernets.runner import Subnet
from nasjax.supernets.transformer_layers import PAD
from nasjax.tasks.beam_search import beam_search
from nasjax.tasks.text_pairs import read_pairs
from nasjax.tasks.translation import room

SENTENCES = 3


def main(weights, texts, folder):
    net, translator = multi30k.network(weights), load_translator(folder)
    sentences = read_pairs(Path(texts), "test_2016_flickr", ("en", "de"), "drop").sources[:SENTENCES]
    encoded = translator.source.encode(sentences)
    longest = max(map(len, encoded))
    source = np.stack([np.pad(row, (0, longest - len(row)), constant_values=PAD) for row in encoded]).astype(np.int32)
    inputs = {"source": jnp.asarray(source), "target": jnp.asarray(source)}

    def tokens(run):
        return beam_search(run, inputs, translator.beam, translator.length_penalty, room(longest)).tokens

    files = {kind: [Path(folder) / f"{part}.{kind}" for part in ("encoder", "step")] for kind in ("stablehlo", "onnx")}
    arch = jnp.asarray(read_facts(folder)["arch"], jnp.int32)
    rows = {"super-network": jax.jit(lambda arch: tokens(Subnet(net, arch, net.stored())))(arch)}
    rows["stablehlo"] = tokens(ExportedRunner(*map(load_stablehlo, files["stablehlo"])))
    with jax.disable_jit():
        rows["onnx"] = tokens(ExportedRunner(*map(load_onnx, files["onnx"])))
    found = {name: translator.target.decode(np.asarray(one).tolist()) for name, one in rows.items()}
    found["translator"] = translator(sentences)
    for row, sentence in enumerate(sentences):
        print(f"\n{sentence}")
        for name, translations in found.items():
            print(f"  {name:14}{translations[row]}")
    sys.exit(len({tuple(translations) for translations in found.values()}) != 1)


if __name__ == "__main__":
    main(*sys.argv[1:4])
