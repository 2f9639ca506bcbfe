"""`nasjax translate`: text by an extracted network."""

import sys
from pathlib import Path
from time import perf_counter

from nasjax.cli.console import prepare_jax
from nasjax.cli.options import Arguments
from nasjax.deploy.translator import load_translator
from nasjax.errors import ConfigError
from nasjax.host import regular_file
from nasjax.progress import ProgressBar
from nasjax.tasks.text_pairs import lines_of


def translate(arguments: Arguments) -> int:
    """Runs `nasjax translate`: prints a translation for each line of the text."""
    options = arguments.options
    if "subnet" not in options:
        raise ConfigError("nasjax translate needs subnet=FOLDER, a network that nasjax extract has written")
    prepare_jax()
    translator = load_translator(options["subnet"])
    name = options.get("text", "standard input")
    content = regular_file(f"text={name}", Path(name)).read_bytes() if "text" in options else sys.stdin.buffer.read()
    sentences = lines_of(content, name)
    began = perf_counter()
    with ProgressBar("sentences", "a second", len(sentences)) as bar:
        translations = translator(sentences, lambda done: bar.update(done, len(sentences), done / (perf_counter() - began)))
    print("".join(f"{line}\n" for line in translations), end="")
    return 0
