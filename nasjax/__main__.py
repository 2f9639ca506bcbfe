"""`python -m nasjax` is `nasjax`."""

import sys

from nasjax.cli import main

sys.exit(main())
