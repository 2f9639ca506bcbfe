"""Golden values of the original Hardware-aware Transformers in PyTorch: encoder states, logits, losses, parameters.

From the repository's root, in an environment with torch 2.13.0, numpy and tqdm, with a checkout of
github.com/mit-han-lab/hardware-aware-transformers (one minute on two busy cores):

    python tests/golden/make_hat.py CHECKOUT

writes tests/golden/transformer_lt_*.npz for both spaces. Layers have the original's sizes, vocabularies a few hundred words.
Weights and sentences come from seeded.py. Each file holds, for largest, smallest and twelve random architectures: HAT's
lists; the encoder's states (every eighth column), teacher-forced logits (every eighth word) and label-smoothed losses of
sentences that are padded on the right, and on the left; and HAT's count of parameters. Decoding step by step with the
original's cache must give the same logits; the script checks that.
"""

import argparse
import sys
import types
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import seeded  # noqa: E402


def stub(name: str, **content: object) -> types.ModuleType:
    """Puts an empty module into the place of one that the networks do not need."""
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(content)
    return module


stub("configargparse", **vars(argparse))
stub("fairseq").__path__ = [str(Path(sys.argv[1]) / "fairseq")]
stub("fairseq.data", Dictionary=object)
stub("fairseq.data.indexed_dataset", get_available_dataset_impl=list)

from fairseq.models.transformer_super import TransformerSuperModel, base_architecture  # noqa: E402

SPACES = {
    "transformer_lt_wmt_en_de": {"hidden": (3072, 2048, 1024), "heads": (8, 4), "words": (512, 512), "shared": True},
    "transformer_lt_iwslt_de_en": {"hidden": (2048, 1024, 512), "heads": (4, 2), "words": (384, 512), "shared": False},
}
WIDTHS, LAYERS, INNER, OUTPUTS = (640, 512), 6, 512, (-1, 1, 2)
RANDOM = 12
SOURCE_LENGTHS, TARGET_LENGTHS = (9, 6, 4), (7, 7, 5)
STEP = 8
SMOOTHING = 0.1


class Words:
    """The part of a fairseq dictionary that models read."""

    def __init__(self, number: int):
        self.number = number

    def __len__(self) -> int:
        return self.number

    def pad(self) -> int:
        return 1


def architectures(space: dict) -> list[dict]:
    """HAT's configurations: largest, smallest, random ones."""
    rng = np.random.default_rng([seeded.SEED, space["heads"][0]])
    rows = []
    for row in range(2 + RANDOM):

        def pick(options: tuple, number: int | None = None, row: int = row):
            options = sorted(options)
            if row < 2:
                chosen = np.full(number or 1, options[-1 - row * (len(options) - 1)])
            else:
                chosen = rng.choice(options, number or 1)
            return chosen.tolist() if number else int(chosen[0])

        encoder = {
            "encoder_embed_dim": pick(WIDTHS),
            "encoder_layer_num": LAYERS,
            "encoder_ffn_embed_dim": pick(space["hidden"], LAYERS),
            "encoder_self_attention_heads": pick(space["heads"], LAYERS),
        }
        depth = pick(tuple(range(1, LAYERS + 1)))
        decoder = {
            "decoder_embed_dim": pick(WIDTHS),
            "decoder_layer_num": depth,
            "decoder_ffn_embed_dim": pick(space["hidden"], LAYERS),
            "decoder_self_attention_heads": pick(space["heads"], LAYERS),
            "decoder_ende_attention_heads": pick(space["heads"], LAYERS),
            "decoder_arbitrary_ende_attn": pick(OUTPUTS, LAYERS),
        }
        rows.append({"encoder": encoder, "decoder": decoder})
    return rows


def network(name: str, space: dict) -> torch.nn.Module:
    """The super-network with seeded weights."""
    arguments = argparse.Namespace(
        encoder_embed_dim=max(WIDTHS), decoder_embed_dim=max(WIDTHS), encoder_layers=LAYERS, decoder_layers=LAYERS,
        encoder_ffn_embed_dim=max(space["hidden"]), decoder_ffn_embed_dim=max(space["hidden"]), qkv_dim=INNER,
        encoder_attention_heads=max(space["heads"]), decoder_attention_heads=max(space["heads"]), get_attn=False,
        share_all_embeddings=space["shared"], vocab_original_scaling=False, tie_adaptive_weights=False,
    )  # fmt: skip
    base_architecture(arguments)
    source, target = map(Words, space["words"])
    task = types.SimpleNamespace(source_dictionary=source, target_dictionary=source if space["shared"] else target)
    net = TransformerSuperModel.build_model(arguments, task).eval()
    state = net.state_dict()
    for key, value in state.items():
        if value.ndim and not key.endswith(("version", "_float_tensor")):
            state[key] = torch.from_numpy(seeded.tensor(name, shared_name(key, space), tuple(value.shape)))
    torch.nn.Module.load_state_dict(net, state)
    return net


def shared_name(key: str, space: dict) -> str:
    """One name for a tensor that has two."""
    return key.replace("decoder.embed_tokens", "encoder.embed_tokens") if space["shared"] else key


def losses(logits: torch.Tensor, following: torch.Tensor) -> np.ndarray:
    """The label-smoothed loss of each sentence (fairseq: (1 - e) nll + e / words * the sum of all words' losses)."""
    logs = torch.log_softmax(logits, -1)
    nll = -logs.gather(-1, following[..., None])[..., 0]
    smoothed = (1 - SMOOTHING) * nll - SMOOTHING / logits.shape[-1] * logs.sum(-1)
    return (smoothed * (following != 1)).sum(1).numpy()


def golden(name: str, space: dict) -> dict[str, np.ndarray]:
    net = network(name, space)
    rows = architectures(space)
    found: dict[str, list] = {"params": []}
    time = max(TARGET_LENGTHS)
    target = torch.from_numpy(seeded.sentences(space["words"][1], time, TARGET_LENGTHS, "right", begin=True))
    following = torch.cat([target[:, 1:], torch.ones(len(target), 1, dtype=torch.long)], 1)
    for row, length in enumerate(TARGET_LENGTHS):
        following[row, length - 1] = 2
    for config in rows:
        found["params"].append(net.get_sampled_params_numel(config))
        for side in ("right", "left"):
            source = torch.from_numpy(seeded.sentences(space["words"][0], max(SOURCE_LENGTHS), SOURCE_LENGTHS, side))
            with torch.no_grad():
                encoded = net.encoder(source, torch.tensor(SOURCE_LENGTHS))
                logits = net.decoder(target, encoded)[0]
                cache: dict = {}
                steps = [net.decoder(target[:, : t + 1], encoded, cache)[0][:, -1] for t in range(time)]
            known = target != 1
            apart = (torch.stack(steps, 1) - logits)[known].abs().max() / logits.abs().max()
            assert apart < 1e-5, apart
            states = encoded["encoder_out"].transpose(0, 1) * (source != 1)[..., None]
            states = torch.nn.functional.pad(states, (0, max(WIDTHS) - states.shape[-1]))
            found.setdefault(f"states_{side}", []).append(states[..., ::STEP].numpy())
            found.setdefault(f"logits_{side}", []).append((logits * known[..., None])[..., ::STEP].numpy())
            found.setdefault(f"losses_{side}", []).append(losses(logits, following))
    logits = np.array(found["logits_right"])[:, :, : min(TARGET_LENGTHS)]
    apart = (logits - logits.mean(1, keepdims=True)).std() / logits.std()
    print(f"  scale {np.abs(logits).max():.3g}, share of sentences in the deviation {apart:.3f}")
    lists = {key: [row[part][key] for row in rows] for part in ("encoder", "decoder") for key in rows[0][part]}
    return {key: np.array(values) for key, values in (lists | found).items()} | {"following": following.numpy()}


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(f"torch {torch.__version__}, numpy {np.__version__}")
    for name, space in SPACES.items():
        print(name)
        np.savez_compressed(HERE / f"{name}.npz", **golden(name, space))
