"""Which rows of golden values are compared with networks of their own, each a program to compile; masked ones take all."""

import os

ROWS = range(14 if os.environ.get("PARITY") == "all" else 6)
"""The first are the largest and the smallest architecture, others are random; `PARITY=all scripts/test --slow` takes all."""
