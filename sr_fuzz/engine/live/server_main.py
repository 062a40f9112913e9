"""The main process of the server engine: ``python -m sr_fuzz.engine.live.server_main FOLDER``.

On a GPU SGLang starts its other processes with multiprocessing's ``spawn``, which imports this module again in each of
them, under the name ``__mp_main__`` and before anything else. So the patches that SGLang's import needs are applied
there as well.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from sr_fuzz.cpu import missing_kernels, standins
from sr_fuzz.lifetime.parent_death import die_with_parent

if standins.wanted():
    standins.mend_imports()
else:
    missing_kernels.install()


def main(folder: Path) -> None:
    """Launch SGLang's HTTP server with the keyword arguments in its settings file."""
    # The keeper is the parent. Without it this process would never be stopped.
    die_with_parent(os.getppid())
    from sr_fuzz.cpu import recurrent_states
    from sr_fuzz.engine.live import process_setup
    from sr_fuzz.engine.live.forked_processes import fork_processes
    from sr_fuzz.engine.process_messages import SETTINGS
    from sr_fuzz.sglang_api import contract, ranks, server_args

    contract.checked_version()
    arguments = json.loads((folder / SETTINGS).read_text())
    if arguments.get("device") != "cpu":
        return server_args.launch_server(arguments)
    ranks.fit_binding(arguments)
    fork_processes(process_setup.attach_forked)
    with recurrent_states.extra_buffer_accepted():
        server_args.launch_server(arguments)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
