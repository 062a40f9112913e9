"""The command line ``sr-fuzz``: each file has one command, or a few related ones.

SGLang, the engine and the strategies are imported only inside the commands that need them, so that help texts and usage
errors appear at once.
"""

from __future__ import annotations

from sr_fuzz.cli.app import main

__all__ = ["main"]
