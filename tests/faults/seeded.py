"""The catalogue of seeded faults: each stands for a class of bugs that SGLang's scheduler has had.

A fault strikes under a condition that a schedule must bring about (a retraction, an abort between two chunks, a shared
prefix …), not on every call: one that strikes at once would say nothing about the fuzzer. The functions patched exist
in SGLang 0.5.16 to 0.5.23. SGLang is imported only when a fault is entered.

They lie in one module for each subject; a new module is a line in `MODULES`. On the command line a fault is, for
instance, ``tests.faults.memory:double_free``. How to write one: docs/faults.md.
"""

from __future__ import annotations

import importlib

from sr_fuzz.faults import Fault

MODULES = (
    "tests.faults.memory",
    "tests.faults.lifecycle",
    "tests.faults.streams",
    "tests.faults.endings",
    "tests.faults.scheduling",
    "tests.faults.sglang_own",
    "tests.faults.hybrid",
    "tests.faults.modes",
    "tests.faults.sessions",
    "tests.faults.requests",
    "tests.faults.adapters",
    "tests.faults.speculation",
)

FAULTS: dict[str, Fault] = {
    value.name: value
    for module in MODULES
    for value in vars(importlib.import_module(module)).values()
    if isinstance(value, Fault)
}
"""All of them, by name, in the order of the modules."""
