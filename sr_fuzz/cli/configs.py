"""``sr-fuzz configs``."""

from __future__ import annotations

import typer


def configs() -> int:
    """List the engine configurations and their sets."""
    from sr_fuzz.script_text import config_text
    from strategies.configs import CONFIG_SETS

    for name, members in CONFIG_SETS.items():
        typer.echo(f"{name}: {len(members)} configurations")
        for member, configuration in members.items():
            typer.echo(f"  {member:<22} {config_text(configuration)}")
    return 0
