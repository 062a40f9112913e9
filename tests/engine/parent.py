"""A process that runs scripts on a local engine until it is killed. Prints the pids that it can know, one per line."""

from __future__ import annotations

import sys
from pathlib import Path

from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step

ROOT = str(Path(__file__).parents[2])


def main(stage: str) -> None:
    engine = LocalEngine(faults=["tests.engine.faulty:ends_its_boot"] if stage == "boot" else [], sys_path=[ROOT])
    script = Script(EngineConfig(), (StartReq("r0", Prompt(0, 40), 60, ignore_eos=True), Step(20)))
    if stage in ("import", "boot"):
        # Printed before the zygote has finished importing: the parent of the test kills this process meanwhile.
        print("importing", flush=True)
    engine.run(script)
    print("running", flush=True)
    while True:
        engine.run(script)


if __name__ == "__main__":
    main(sys.argv[1])
