"""The script function of a test for SGLang's own scripted runtime: a line for each action, loops for stages, checks."""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Sequence

from sr_fuzz.emit.sglang_checks import Checks
from sr_fuzz.oracle.function import uniform_token
from sr_fuzz.play.stages import condition
from sr_fuzz.script import (
    Abort,
    AbortAll,
    Action,
    Continue,
    EngineConfig,
    ExhaustKv,
    ExhaustLockRefs,
    ExhaustRows,
    FlushCache,
    Pause,
    Script,
    StartReq,
    Step,
    StepUntil,
)
from sr_fuzz.script.text import action_text

WIDTH = 88
"""Line width in columns, as in SGLang's code."""

# Names of other variables of the script function and of the functions that it calls.
_RESERVED = frozenset(
    "t r n seen aborted ballast rows new_tokens rid req name runs node pool locks lost free allocator output reason "
    "complete alone expected extra length unaborted envs len range sorted set dict list max REQUESTS".split()
)


def script_lines(script: Script, checks: Checks) -> list[str]:
    """Return the body of the script function, indented by 4; ``script`` is translated to SGLang's public API."""
    return _Body(script, checks).lines()


class _Body:
    """The lines of the script function."""

    def __init__(self, script: Script, checks: Checks) -> None:
        self._script = script
        self._checks = checks
        self._lines: list[str] = []
        self._starts: dict[str, StartReq] = {}
        self._unaborted: dict[str, None] = {}
        self._paused = False
        self._pause_taken = False
        self._handles = _handles(script.names)

    def lines(self) -> list[str]:
        """Return the whole body. Call it once."""
        exhausts = any(isinstance(a, ExhaustKv | ExhaustLockRefs | ExhaustRows) for a in self._script.actions)
        ballast = any(isinstance(a, ExhaustRows) for a in self._script.actions)
        if self._checks.lenient or any(isinstance(a, ExhaustKv) for a in self._script.actions):
            reason = "what is checked below" if self._checks.lenient else "pages held on purpose"
            self._add(f"# SGLang's own idle check would end the server over {reason}.")
            self._add("envs.SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE.set(False)")
        self._add(*self._checks.begin)
        if ballast:
            self._add("ballast = []")
        for action in self._script.actions:
            self._action(action)
        self._end(exhausts, ballast)
        return self._lines

    def _add(self, *lines: str) -> None:
        self._lines += [f"    {line}" if line else "" for line in lines]

    def _action(self, action: Action) -> None:
        match action:
            case StartReq():
                self._start(action)
            case Step(n=n):
                self._step(n)
            case StepUntil():
                self._step_until(action)
            case Pause(mode=mode):
                self._paused, self._pause_taken = True, False
                self._add(f't.pause_generation(mode="{mode}")')
            case Continue():
                self._paused = False
                self._add("t.continue_generation()")
            case Abort(name=name):
                self._abort(self._handles[name])
                self._unaborted.pop(name, None)
            case AbortAll():
                self._add(*self._checks.abort_all, "t.abort_all()")
                self._unaborted.clear()
            case FlushCache():
                self._add("t.flush_cache()")
            case ExhaustKv(leave_pages=pages):
                self._add(f"t.exhaust_kv(leave_pages={pages})")
            case ExhaustLockRefs(leave_refs=refs):
                self._add(f"t.exhaust_lock_refs(leave_refs={refs})")
            case ExhaustRows(leave_rows=rows):
                self._exhaust_rows(rows)
            case _:
                raise ValueError(f"{action_text(action)}: not in the public API; translate the script first")

    def _start(self, start: StartReq) -> None:
        self._starts[start.name] = start
        self._unaborted[start.name] = None
        call = f"{self._handles[start.name]} = t.start_req"
        if self._checks.compares_outputs:
            self._add(f'{call}(**REQUESTS["{start.name}"])')
        else:
            self._add(*call_lines(call, start_arguments(start), indent=0, before=4))

    def _step(self, n: int) -> None:
        if self._paused and self._checks.paused_step is not None:
            if not self._pause_taken:
                self._add("yield  # takes the pause, and delivers what was in flight")
                n -= 1
            self._pause_taken = True
            if n:
                self._add(f"yield from {self._checks.paused_step.format(n=n)}")
        else:
            self._add(*self._checks.steps(n))

    def _step_until(self, action: StepUntil) -> None:
        handle = self._handles[action.name]
        stage = f"chunk {action.nth}" if action.stage == "nth_chunk" else action.stage.replace("_", " ")
        condition = _reached(action, self._starts[action.name], self._script.config, handle)
        self._add(
            f"# until {handle} is at: {stage}",
            f"for _ in range({action.max_steps}):",
            f"    if {condition}:",
            "        break",
            *(f"    {line}" for line in self._checks.steps(1)),
        )

    def _abort(self, handle: str) -> None:
        self._add(f"if not {handle}.finished:")
        before = [line.format(handle=handle) for line in self._checks.abort]
        self._add(*(f"    {line}" for line in before), f"    t.abort({handle})")

    def _exhaust_rows(self, leave: int) -> None:
        config = self._script.config
        self._add(
            "# Ballast takes the rows; together at most half of the pool.",
            f'rows = t.engine_stats()["req_pool_free"] - {leave}',
            "for _ in range(rows):",
            f"    new_tokens = max(8, {config.max_total_tokens // 2} // rows)",
            "    ballast.append(",
            "        t.start_req(prompt_len=1, max_new_tokens=new_tokens, ignore_eos=True)",
            "    )",
        )

    def _end(self, exhausts: bool, ballast: bool) -> None:
        self._add("")
        if exhausts:
            self._add("t._release_exhausted_pools()  # as the runtime does between scripts")
        if ballast:
            self._add("for r in ballast:", "    if not r.finished:", "        t.abort(r)")
        if self._paused:
            self._add("t.continue_generation()")
        self._add("yield from _drain(t, seen)" if self._checks.keeps_requests else "yield from _drain(t)")
        if self._checks.compares_outputs:
            self._add(*_collection("runs", [f'"{name}": {self._handles[name]}' for name in self._starts], "{}"))
        if any("unaborted" in line for line in self._checks.end):
            self._add(*_collection("unaborted", [self._handles[name] for name in self._unaborted], "[]"))
        self._add(*self._checks.end)


# -- pieces ----------------------------------------------------------------------------------------------------


def _handles(names: Sequence[str]) -> dict[str, str]:
    """Return a variable name for each request of the script."""
    handles: dict[str, str] = {}
    for name in names:
        variable = name
        while variable in _RESERVED or keyword.iskeyword(variable) or variable in {*names, *handles.values()} - {name}:
            variable += "_"
        handles[name] = variable
    return handles


def start_arguments(start: StartReq) -> dict[str, str]:
    """Return the arguments of ``start_req`` as source."""
    arguments = {
        "prompt_len": start.prompt.length,
        "prompt_token": uniform_token(start.prompt.family),
        "max_new_tokens": start.max_new_tokens,
    }
    optional = {
        "ignore_eos": start.ignore_eos or None,
        "stop_token_ids": list(start.stop_token_ids) or None,
        "priority": start.priority,
        "return_logprob": start.return_logprob or None,
        "logprob_start_len": start.logprob_start_len if start.return_logprob else None,
        "top_logprobs_num": start.top_logprobs_num if start.return_logprob else None,
    }
    arguments |= {name: value for name, value in optional.items() if value is not None}
    return {name: repr(value) for name, value in arguments.items()}


def _reached(action: StepUntil, start: StartReq, config: EngineConfig, r: str) -> str:
    """Return a condition on the handle ``r``, as source; see `sr_fuzz.play.stages`."""
    wanted = condition(action, start, config)
    terms = {
        f"{r}.finished": wanted.ended,
        f"_output_len({r}) >= {wanted.tokens}": wanted.tokens is not None,
        f"{r}.chunks_done >= {wanted.chunks}": wanted.chunks is not None,
        f'{r}.status == "waiting"': wanted.waiting,
        f"({r}.req is not None and {r}.req.retraction_count > 0)": wanted.retracted,
    }
    return " or ".join(term for term, wants in terms.items() if wants)


def call_lines(function: str, arguments: dict[str, str], *, indent: int, before: int = 0, after: str = "") -> list[str]:
    """Return a call on one line if it fits after ``before`` columns, else with one argument per line."""
    pairs = [f"{name}={value}" for name, value in arguments.items()]
    pad = " " * indent
    flat = f"{pad}{function}({', '.join(pairs)}){after}"
    if before + len(flat) <= WIDTH:
        return [flat]
    inner = pad + " " * (len(function) - len(function.lstrip()))
    return [f"{pad}{function}(", *(f"{inner}    {pair}," for pair in pairs), f"{inner}){after}"]


def _collection(name: str, items: Sequence[str], brackets: str) -> list[str]:
    """Return an assignment of a list or a dictionary, in lines that fit into a function."""
    flat = f"{name} = {brackets[0]}{', '.join(items)}{brackets[1]}"
    if len(flat) <= WIDTH - 4:
        return [flat]
    inner = textwrap.wrap(", ".join(items) + ",", WIDTH - 8)
    return [f"{name} = {brackets[0]}", *(f"    {line}" for line in inner), brackets[1]]


def wrap(words: str, width: int = WIDTH) -> list[str]:
    return [part for line in words.splitlines() for part in textwrap.wrap(line, width) or [""]]
