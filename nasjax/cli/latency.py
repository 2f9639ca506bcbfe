"""`nasjax latency`: profiles a super-network on hardware, as a search with this hardware does first."""

from nasjax import supernets
from nasjax.cli.compose import configuration_of
from nasjax.cli.console import prepare_jax, profile_with_progress
from nasjax.cli.options import Arguments, whole_number
from nasjax.errors import ConfigError
from nasjax.hardware.recorded import latency_rows
from nasjax.host import new_place
from nasjax.runs.folder import write_table


def latency(arguments: Arguments) -> int:
    """Runs `nasjax latency`."""
    options = arguments.options
    config = configuration_of(arguments)
    if config["hardware"] is None:
        raise ConfigError("nasjax latency needs hardware=NAME; nasjax list has the names")
    samples = whole_number(options, "samples", 0, "a number of networks")
    if samples is not None and "out" not in options:
        raise ConfigError(f"samples={samples} estimates are for a file: say out=FILE.csv too")
    steps = whole_number(options, "steps", 1, "a number of steps")
    beams = whole_number(options, "beams", 1, "a number of beams")
    out = (
        new_place(f"out={options['out']}", options["out"]) if "out" in options else None
    )  # Refused before anything is timed.
    prepare_jax()
    net = supernets.create(seed=config["seed"], **config["supernet"])
    if not isinstance(net, supernets.SuperNet):
        raise ConfigError(f"supernet={config['supernet']['name']} has no layers to time")
    profile = profile_with_progress(net.shapes(steps or 1, beams or 1), config["hardware"])
    if out is not None:
        write_table(out, *latency_rows(profile, samples or 0))
        print(f"Written to {out}; hardware=csv hardware.file={out} searches with it")
    return 0
