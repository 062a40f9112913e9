"""The command line, ``sr-fuzz``: one command, or a few that belong together, in each file.

SGLang, the engine and the strategies are imported only inside the commands that need them, so that help and mistakes
are instant.
"""

from __future__ import annotations

from sr_fuzz.cli.app import main

__all__ = ["main"]
