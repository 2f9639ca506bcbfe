"""Network and task of conf/experiment/multi30k.yaml, for the scripts of this folder."""

from pathlib import Path

import yaml

from nasjax import supernets, tasks

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "conf" / "experiment" / "multi30k.yaml").read_text())


def network(checkpoint=None):
    """The super-network; without weights if no file of them is given."""
    changes = {**CONFIG["supernet"], "checkpoint": checkpoint}
    return supernets.create("transformer_lt_wmt_en_de", **changes, untrained=checkpoint is None)


def task(folder, **changes):
    """The pairs of Multi30k in a folder."""
    return tasks.create("translation", path=folder, **CONFIG["task"], **changes)
