"""The zygote: it imports SGLang once, then forks a configuration process for each engine configuration.

The user's process starts it as ``python -m sr_fuzz.engine.local.zygote CONTROL_FD PARENT_PID``. It reads `Boot`
messages, each with one end of a job channel, from the control socket, and ends when that socket closes.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys
import traceback
from multiprocessing.connection import Connection

from sr_fuzz.lifetime.parent_death import adopt_orphans, die_with_parent

# Interval at which ended configuration processes are reaped while no message arrives.
_REAP_S = 0.5


def main(control_fd: int, parent_pid: int) -> None:
    die_with_parent(parent_pid)
    adopt_orphans()
    control = socket.socket(fileno=control_fd)
    _import_sglang(control)
    while True:
        readable, _, _ = select.select([control], [], [], _REAP_S)
        _reap()
        if readable and not _serve_one(control):
            return


def _import_sglang(control: socket.socket) -> None:
    """Import the modules that every configuration needs, and send ``ready`` or the error."""
    from sr_fuzz.cpu import standins
    from sr_fuzz.engine.process_messages import Failed, Ready, encode
    from sr_fuzz.script.errors import EngineError

    try:
        standins.install()
        from sr_fuzz.sglang_api import contract, missing, seams

        version = contract.checked_version()
        # Read once for all processes that are forked from this one.
        missing.here()
        seams.import_scheduler()

        import sr_fuzz.engine.local.config_process  # noqa: F401
        import sr_fuzz.oracle.models.oracle_hybrid  # noqa: F401
        import sr_fuzz.oracle.models.oracle_model  # noqa: F401
    except EngineError as error:
        control.send(encode(Failed(str(error))))
        sys.exit(2)
    except Exception as error:
        # A source tree under development may raise any exception, including SyntaxError.
        control.send(encode(Failed(f"cannot import SGLang: {_why(error)}")))
        raise
    # The garbage collector writes to every object that it visits, which would copy the page in each forked process.
    gc.collect()
    gc.freeze()
    control.send(encode(Ready(version, os.getpid(), 0.0)))


def _why(error: Exception) -> str:
    if isinstance(error, ImportError):
        from sr_fuzz.sglang_api.versions import installed_package

        package = installed_package()
        where = f" --sglang {package.parent}" if package is not None else ""
        return f"{error}; `sr-fuzz doctor{where}` says what is missing"
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}, at {error.filename}:{error.lineno}"
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}, at {at.filename}:{at.lineno}"


def _serve_one(control: socket.socket) -> bool:
    from sr_fuzz.engine.local.config_process import serve
    from sr_fuzz.engine.process_messages import MAX_BOOT_BYTES, decode_boot

    data, fds, _, _ = socket.recv_fds(control, MAX_BOOT_BYTES, 1)
    if not data:
        return False
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            die_with_parent(parent)
            control.close()
            serve(Connection(fds[0]), decode_boot(data))
        finally:
            os._exit(0)
    os.close(fds[0])
    return True


def _reap() -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
