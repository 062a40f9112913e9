"""The repro writer for SGLang: it writes a finding as a test case of SGLang's own scripted runtime.

The file is meant for SGLang's own test suite. It needs SGLang and the standard library, and nothing of this project. It
is written action by action, as a person would write it, with the calls on the context and the `yield` that an SGLang
maintainer knows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sr_fuzz.emit.explanation import TRACE_LEGEND, raised_at, script_legend, where_to_look
from sr_fuzz.emit.public_api import to_public_api
from sr_fuzz.emit.pytest_repro import stem
from sr_fuzz.emit.python_text import in_docstring, literal
from sr_fuzz.emit.replacing import check_same
from sr_fuzz.emit.sglang_checks import OUTPUT_LEN, checks_for
from sr_fuzz.emit.sglang_script import WIDTH, call_lines, script_lines, start_arguments, wrap
from sr_fuzz.outcome import Finding, StepRecord
from sr_fuzz.outcome.writing import write_whole
from sr_fuzz.script import EngineConfig, Script, StartReq
from sr_fuzz.script.text import text

SCRIPT_FUNCTION = "_script"
"""Name of the script function in an emitted file."""

MODEL = "Qwen/Qwen3-0.6B"
"""The model that SGLang's scripted tests run on a GPU."""

TRACE_STEPS = 8
TRACE_WIDTH = 120
"""Lines of a trace are truncated to this width, not wrapped."""

# A request that is retracted repeatedly may be prefilled and decoded several times; an idle engine may need some steps
# to settle.
_REWORK, _SLACK = 6, 80


def emit_sglang(
    finding: Finding,
    folder: Path,
    *,
    known_cause: str | None = None,
    trace: Sequence[StepRecord] = (),
    force: bool = False,
) -> Path:
    """Write ``finding`` into ``folder`` as ``test_sglang_<invariant>_<rule>_<hash>.py``; returns the path.

    The script is translated first (`sr_fuzz.emit.public_api.to_public_api`); the caller has to check whether it still
    shows the violation. ``known_cause`` makes a test that passes while the bug is there and shows as it did, and fails
    on anything else. ``trace`` is that of the run that showed the violation. Creates ``folder``. Raises
    `NotExpressible`, `OSError`, and `NotReplaced` where a test with that name is not the same: nothing beside it says
    whether somebody has edited it, so only ``force`` replaces it.
    """
    path = folder / f"test_sglang_{stem(finding)}.py"
    module = _Module(finding, tuple(trace), known_cause, path.name).text()
    folder.mkdir(parents=True, exist_ok=True)
    if not force:
        check_same(path, module.encode())
    write_whole(path, module.encode())
    return path


def _words(finding: Finding) -> str:
    words = f"{finding.violation.invariant}_{finding.violation.rule}"
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")[:60]


class _Module:
    """The source of one emitted file."""

    def __init__(self, finding: Finding, trace: Sequence[StepRecord], known_cause: str | None, file: str) -> None:
        self._finding = finding
        self._trace = trace
        self._cause = known_cause
        self._file = file
        self._script = to_public_api(finding.script)
        self._checks = checks_for(finding.violation, self._script.config)

    def text(self) -> str:
        body = script_lines(self._script, self._checks)
        blocks = [
            self._docstring(),
            self._imports(body),
            'register_cuda_ci(est_time=60, stage="extra-a", runner_config="1-gpu-small")',
            self._constants(),
        ]
        functions = [*self._helpers(body), "\n".join([f"def {SCRIPT_FUNCTION}(t: ScriptedContext):", *body])]
        main = 'if __name__ == "__main__":\n    unittest.main()'
        return "\n\n".join(blocks) + "\n\n\n" + "\n\n\n".join([*functions, self._test_case(), main]) + "\n"

    def _docstring(self) -> str:
        finding, violation = self._finding, self._finding.violation
        lines = [f"{violation.invariant}: {violation.rule}.", "", *wrap(violation.message), ""]
        lines += [*wrap(f"Found by sr_fuzz on SGLang {finding.sglang_version} with this script:"), ""]
        lines += [f"    {line}" for line in wrap(text(self._script), WIDTH - 4)]
        lines += [part for line in script_legend(self._script) for part in wrap(line)]
        if shown := self._trace[-TRACE_STEPS:]:
            lines += ["", "Last steps:"]
            lines += [f"    {line}" for record in shown for line in record.line.splitlines()]
            lines += wrap(TRACE_LEGEND)
        if self._cause is None and (where := where_to_look(finding, self._trace)):
            lines += ["", *where]
        elif violation.location:
            lines += ["", "In SGLang, innermost first:", *(f"    {place}" for place in raised_at(finding))]
        lines += ["", f"To run it, where {MODEL} can be loaded:", f"    python3 {self._file}"]
        body = "\n".join(in_docstring(line.rstrip(), TRACE_WIDTH) for line in lines)
        return f'"""{body}\n"""'

    def _imports(self, body: Sequence[str]) -> str:
        lines = [
            "from sglang.test.ci.ci_register import register_cuda_ci",
            "from sglang.test.scripted_runtime.context import ScriptedContext",
            "from sglang.test.scripted_runtime.test_case import ScriptedTestCase",
        ]
        if "envs." in "\n".join([*body, *self._checks.helpers]):
            lines.insert(0, "from sglang.srt.environ import envs")
        return "\n".join(["import unittest", "", *lines])

    def _constants(self) -> str:
        lines = ["# More steps than a healthy engine needs for what the script leaves undone."]
        lines += [f"MAX_DRAIN_STEPS = {_drain_steps(self._script)}"]
        if self._checks.compares_outputs:
            lines += ["", "REQUESTS = {"]
            for start in (a for a in self._script.actions if isinstance(a, StartReq)):
                arguments = {**start_arguments(start), "temperature": "0.0"}
                lines += call_lines(f'"{start.name}": dict', arguments, indent=4, after=",")
            lines += ["}"]
        return "\n".join(lines)

    def _helpers(self, body: Sequence[str]) -> list[str]:
        needed = [OUTPUT_LEN] if any("_output_len(" in line for line in body) else []
        # The function that checks during steps comes before the drain, which calls it.
        helpers = self._checks.helpers
        looking = [source for source in helpers if source.startswith("def _step(")]
        return [*needed, *looking, self._checks.drain(), *(source for source in helpers if source not in looking)]

    def _test_case(self) -> str:
        words = _words(self._finding)
        lines = [f"class Test{words.title().replace('_', '')}(ScriptedTestCase):"]
        lines += call_lines("    ENGINE_KWARGS = dict", _engine_kwargs(self._script.config), indent=0)
        lines += [""]
        if self._cause is not None:
            cause = in_docstring(f"Open bug: {' '.join(self._cause.split())}")
            lines += [f"    # {line}" for line in wrap(cause, WIDTH - 6)]
            lines += ["    # Once it is mended, this fails; then the call alone should stay."]
        lines += [f"    def test_{words}(self):", *self._call()]
        return "\n".join(lines)

    def _call(self) -> list[str]:
        call = f"self.server.execute_script({SCRIPT_FUNCTION})"
        if self._cause is None:
            return [f"        {call}"]
        # Not unittest.expectedFailure: any error would be the expected one, that of a server that does not start too.
        parts = literal(self._checks.says, WIDTH - len("        complaint = "))
        said = [f"        complaint = {parts[0]}"]
        if len(parts) > 1:
            said = ["        complaint = (", *(f"            {part}" for part in parts), "        )"]
        checked = f"        with self.assertRaisesRegex({self._checks.raises}, complaint):"
        return [*said, checked, f"            {call}"]


def _engine_kwargs(config: EngineConfig) -> dict[str, str]:
    """Return ``ServerArgs`` as source: sizes always, since SGLang's defaults differ; other fields where they differ."""
    sizes = ("page_size", "max_total_tokens", "max_running_requests", "chunked_prefill_size")
    values = {name: getattr(config, name) for name in sizes}
    values |= {name: value for name, value in msgspec.to_builtins(config).items() if name not in sizes}
    if config.schedule_policy == "random":
        values["random_seed"] = 0
    shown = {name: f'"{value}"' if isinstance(value, str) else repr(value) for name, value in values.items()}
    return {"model_path": f'"{MODEL}"', **shown}


def _drain_steps(script: Script) -> int:
    steps = 0
    for start in (action for action in script.actions if isinstance(action, StartReq)):
        chunk = script.config.chunked_prefill_size
        prefills = 1 if chunk < 0 else -(-start.prompt.length // chunk)
        steps += prefills + max(1, min(start.max_new_tokens, script.config.max_total_tokens))
    return _REWORK * steps + _SLACK
