"""The command line of nasjax."""

from nasjax.cli.app import main

__all__ = ["main"]
