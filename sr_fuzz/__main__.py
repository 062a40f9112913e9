"""``python -m sr_fuzz``, the command line.."""

from __future__ import annotations

import sys

from sr_fuzz.cli.app import main

sys.exit(main())
