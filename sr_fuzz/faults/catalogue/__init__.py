"""The catalogue of seeded faults: each stands for a class of bugs that SGLang's scheduler has had.

A fault is triggered under a condition that a schedule must create (a retraction, an abort between two chunks, a shared
prefix …), not on every call: a fault that is always triggered would say nothing about the fuzzer. The patched functions
exist in SGLang 0.5.16 to 0.5.23. SGLang is imported only when a fault is activated.

There is one module for each subject; a new module is added to `MODULES`. On the command line a fault is named, for
instance, ``sr_fuzz.faults.catalogue.memory:double_free``. docs/faults.md describes how to write one.
"""

from __future__ import annotations

import importlib

from sr_fuzz.faults import Fault

MODULES = (
    "sr_fuzz.faults.catalogue.memory",
    "sr_fuzz.faults.catalogue.lifecycle",
    "sr_fuzz.faults.catalogue.streams",
    "sr_fuzz.faults.catalogue.finishes",
    "sr_fuzz.faults.catalogue.scheduling",
    "sr_fuzz.faults.catalogue.sglang_own",
    "sr_fuzz.faults.catalogue.hybrid_caches",
    "sr_fuzz.faults.catalogue.modes",
    "sr_fuzz.faults.catalogue.sessions",
    "sr_fuzz.faults.catalogue.requests",
    "sr_fuzz.faults.catalogue.adapters",
    "sr_fuzz.faults.catalogue.speculation",
)

FAULTS: dict[str, Fault] = {
    value.name: value
    for module in MODULES
    for value in vars(importlib.import_module(module)).values()
    if isinstance(value, Fault)
}
"""All faults by name, in the order of the modules."""
