"""Processes that are forked where SGLang would spawn them start in the same state as spawned ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from sr_fuzz.engine.live import process_setup

# A process of its own, since it changes state of multiprocessing.
PARENT = """
import json, multiprocessing, os, signal, sys
from functools import partial
from sr_fuzz.engine.live.forked_processes import fork_processes
from sr_fuzz.faults import activate, counts, separate_counts

told = {}

def enter(name):
    told["entered"] = name
    separate_counts()

def work(folder, who="worker"):
    here()
    told["who"], told["parent"] = who, os.getppid()
    told["signal"] = signal.getsignal(signal.SIGQUIT) == signal.SIG_DFL
    told["counts"] = counts()
    with open(f"{folder}/{who}", "w") as file:
        json.dump(told, file)

def here():
    pass

def main(folder):
    signal.signal(signal.SIGQUIT, lambda *_: None)
    sys.modules["worker_module"] = sys.modules["__main__"]
    activate(["worker_module:seeded"])
    here()
    fork_processes(enter)
    multiprocessing.set_start_method("spawn", force=True)  # as SGLang does
    for target in (work, partial(work, who="partial")):
        process = multiprocessing.Process(target=target, args=(folder,))
        process.start()
        process.join()
        assert process.exitcode == 0, process.exitcode
    print(json.dumps({"pid": os.getpid(), "counts": counts()}))

from sr_fuzz.faults import fault, wrapped

@fault("seeded", stands_for="anything", expected=())
def seeded():
    return wrapped(sys.modules["__main__"], "here", lambda original: original())

main(sys.argv[1])
"""


def test_they_are_entered_first_with_default_signals_and_counts_of_their_own(tmp_path: Path):
    ran = subprocess.run([sys.executable, "-c", PARENT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    parent = json.loads(ran.stdout)
    assert parent["counts"] == {"seeded": [1, 0]}, "what children do is not counted here"
    worker, partial = (json.loads((tmp_path / name).read_text()) for name in ("worker", "partial"))
    assert (worker["entered"], partial["entered"]) == ("work", "")
    for child in (worker, partial):
        assert child["parent"] == parent["pid"], "forked by whoever asked for it"
        assert child["signal"]
        assert child["counts"] == {"seeded": [1, 0]}, "what the parent did is not counted there"


def test_every_function_that_sglang_starts_a_scheduler_with_has_a_role():
    """Data-parallel attention starts schedulers with another function."""
    for function in ("run_scheduler_process", "run_scheduler_process_with_init_pipe"):
        assert process_setup._ROLES[function] == "scheduler process"
