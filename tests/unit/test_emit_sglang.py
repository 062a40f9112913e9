"""What a user relies on: a finding becomes a test that SGLang's own suite can take unchanged."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import msgspec
import pytest

from sr_fuzz.emit.public_api import NotExpressible
from sr_fuzz.emit.sglang_repro import WIDTH, emit_sglang
from sr_fuzz.outcome import Finding, StepRecord, Violation
from sr_fuzz.script import (
    Abort,
    AbortAll,
    Continue,
    EngineConfig,
    ExhaustKv,
    ExhaustLockRefs,
    ExhaustRows,
    FlushCache,
    Pause,
    Prompt,
    Script,
    StartReq,
    Step,
    StepUntil,
)

SCRIPT = Script(
    EngineConfig(max_total_tokens=64, schedule_policy="lof", enable_priority_scheduling=True),
    (
        StartReq("r0", Prompt(5, 40, uniform=True), 4, ignore_eos=True, stop_token_ids=(7,), priority=2),
        StepUntil("r0", "nth_chunk", nth=2),
        Abort("r0"),
        Step(3),
    ),
)

FINDING = Finding(
    signature="kv_pages:leaked:radix+overlap:1a2b3c",
    script=SCRIPT,
    violation=Violation(
        "kv_pages", "leaked", "pages 5, 6 are neither free nor in the tree", 6, "end",
        ("managers/scheduler.py:abort_request: self.chunked_req = None",),
    ),
    sglang_version="0.5.23",
)  # fmt: skip

TRACE = (StepRecord(2, ("abort(r0)",), free_pages=48, free_rows=3, sent=("r0 abort",)),)

EXPECTED = '''\
"""kv_pages: leaked.

pages 5, 6 are neither free nor in the tree

Found by sr_fuzz on SGLang 0.5.23 with this script:

    [max_total_tokens=64 schedule_policy=lof enable_priority_scheduling=True] r0 =
    start_req(5:40, uniform, new=4, ignore_eos, stop_token_ids=(7,), priority=2);
    step_until(r0, nth_chunk, nth=2); abort(r0); step(3)
`[…]` names what differs from the default engine; `r0 = start_req(1:40+3, new=8)` starts
request r0: a prompt of family 1 (prompts of a family begin alike) of 40 tokens, the
last 3 of them its own (`+3`), and at most 8 new tokens; `step_until(r0, stage)` makes
scheduler steps until r0 is at that stage; `step(3)` makes three scheduler steps.

Last steps:
          | abort(r0)
       2  -                             free  48p  3r  -> r0 abort
A line is a step: its number, the kind of batch with its requests, free pages (p) and
rows (r), who waits, whose prompt is in chunks, and what was sent (`r0 +2`: two tokens).
`|`: what the script did before that step; `epilogue`: what ends each script.

Cause candidates in SGLang, innermost first:
    managers/scheduler.py:abort_request: self.chunked_req = None

To run it, where Qwen/Qwen3-0.6B can be loaded:
    python3 FILE
"""

import unittest

from sglang.srt.environ import envs
from sglang.test.ci.ci_register import register_cuda_ci
from sglang.test.scripted_runtime.context import ScriptedContext
from sglang.test.scripted_runtime.test_case import ScriptedTestCase

register_cuda_ci(est_time=60, stage="extra-a", runner_config="1-gpu-small")

# More steps than a healthy engine needs for what the script leaves undone.
MAX_DRAIN_STEPS = 122


def _output_len(r):
    """Output tokens so far; 0 before it arrives and after it has left."""
    return len(r.req.output_ids) if r.req is not None else 0


def _drain(t):
    """Step until nothing is queued, running or in flight."""
    for _ in range(MAX_DRAIN_STEPS):
        yield
        if t.is_fully_idle:
            break
    else:
        waiting = [req.rid for req in t.scheduler.waiting_queue]
        raise AssertionError(
            f"still busy after {MAX_DRAIN_STEPS} steps: "
            f"{t.batch_composition()}, waiting {waiting}, {t.engine_stats()}"
        )
    yield  # an idle step


def _check_pages(t):
    """An idle engine: each page of the KV pool is free or in the tree, once."""
    allocator = t.scheduler.token_to_kv_pool_allocator
    pages = allocator.get_all_free_pages().tolist()
    cached = t.scheduler.tree_cache.all_values_flatten()
    pages += (cached[:: allocator.page_size] // allocator.page_size).tolist()
    twice = sorted({page for page in pages if pages.count(page) > 1})
    assert not twice, f"pages with two owners: {twice}"
    total = allocator.size // allocator.page_size
    lost = sorted(set(range(1, total + 1)) - set(pages))
    assert not lost, f"pages without an owner: {lost}"
    assert len(pages) == total, f"{len(pages)} pages, the pool has {total}"


def _script(t: ScriptedContext):
    # SGLang's own idle check would end the server over what is checked below.
    envs.SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE.set(False)
    r0 = t.start_req(
        prompt_len=40,
        prompt_token=8,
        max_new_tokens=4,
        ignore_eos=True,
        stop_token_ids=[7],
        priority=2,
    )
    # until r0 is at: chunk 2
    for _ in range(40):
        if r0.finished or _output_len(r0) >= 1 or r0.chunks_done >= 2:
            break
        yield
    if not r0.finished:
        t.abort(r0)
    for _ in range(3):
        yield

    yield from _drain(t)
    _check_pages(t)


class TestKvPagesLeaked(ScriptedTestCase):
    ENGINE_KWARGS = dict(
        model_path="Qwen/Qwen3-0.6B",
        page_size=1,
        max_total_tokens=64,
        max_running_requests=6,
        chunked_prefill_size=16,
        schedule_policy="lof",
        enable_priority_scheduling=True,
    )

    def test_kv_pages_leaked(self):
        self.server.execute_script(_script)


if __name__ == "__main__":
    unittest.main()
'''


def test_the_test_reads_like_this(tmp_path: Path):
    path = emit_sglang(FINDING, tmp_path / "new" / "folder", trace=TRACE)
    assert path.name.startswith("test_sglang_kv_pages_leaked_")
    assert path.read_text() == EXPECTED.replace("FILE", path.name)


def test_a_known_cause_marks_it_as_an_expected_failure(tmp_path: Path):
    source = emit_sglang(FINDING, tmp_path, known_cause="#1: pages of a\n parked chunk " + "very " * 30).read_text()
    assert "    # Open bug: #1: pages of a parked chunk very" in source
    [test] = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.With)]
    assert ast.unparse(test.items[0]) == "self.assertRaisesRegex(AssertionError, complaint)"
    assert "unittest.expectedFailure" not in source, "any error would be the expected one"
    assert "self.server.execute_script(_script)" in ast.unparse(test)


ALL = Script(
    EngineConfig(page_size=4, max_total_tokens=64, schedule_policy="random"),
    (
        StartReq("t", Prompt(1, 30), 9), StartReq("if", Prompt(1, 30), 9, return_logprob=True, top_logprobs_num=2),
        StartReq("seen", Prompt(2, 5), 4), StartReq("r3", Prompt(3, 1), 4096),
        *(StepUntil("t", stage) for stage in ("first_chunk", "last_chunk", "first_decode", "mid_decode")),
        *(StepUntil("if", stage) for stage in ("last_decode", "waiting", "retracted", "finished")),
        ExhaustKv(3), ExhaustLockRefs(1), ExhaustRows(1), Step(1), Abort("t"), FlushCache(), Step(4), AbortAll(),
        Step(1), Pause("retract"), Step(1), Continue(), Step(1), Pause("in_place"), Step(3),
    ),
)  # fmt: skip

RULES = [
    ("kv_pages", "leaked"), ("kv_pages", "use_after_free"), ("kv_pages", "lost_at_flush"), ("request_rows", "leaked"),
    ("tree_locks", "locked_at_end"), ("kv_content", "wrong_content"), ("oracle_output", "wrong_token"),
    ("paused_frozen", "output_moved"), ("nobody_lost", "lost"), ("liveness", "stuck_waiting"),
    ("liveness", "stuck_nowhere"), ("liveness", "flush_refused"), ("aborts", "too_many_tokens"),
    ("sglang_busy_check", "failed"), ("sglang_tree_check", "failed"), ("sglang_idle_check", "failed"),
    ("exception", "KeyError"), ("crash", "SIGSEGV"), ("hang", "timeout"),
]  # fmt: skip


@pytest.mark.parametrize(("invariant", "rule"), RULES)
@pytest.mark.parametrize("radix", [True, False])
def test_it_needs_sglang_and_the_standard_library_only(tmp_path: Path, invariant: str, rule: str, radix: bool):
    config = msgspec.structs.replace(ALL.config, disable_radix_cache=not radix)
    violation = Violation(invariant, rule, "a message", 3)
    finding = Finding("a:b", Script(config, ALL.actions), violation, "0.5.23")
    source = emit_sglang(finding, tmp_path).read_text()
    tree = ast.parse(source)
    assert _imported(tree) <= {"sglang", *sys.stdlib_module_names}
    assert not _undefined(tree)
    assert max(map(len, source.splitlines())) <= WIDTH


DEADLY = ("exception", "crash", "hang", "sglang_idle_check")
"""Of these SGLang's runtime says that its server died, or that it does not answer."""


@pytest.mark.parametrize(("invariant", "rule"), [rule for rule in RULES if rule[0] not in DEADLY])
def test_what_an_open_bug_is_told_by_is_what_its_test_says(tmp_path: Path, invariant: str, rule: str):
    """The expression matches the message of its check, or the function of SGLang that the check calls."""
    violation = Violation(invariant, rule, "a message", 3)
    source = emit_sglang(Finding("a:b", ALL, violation, "0.5.23"), tmp_path, known_cause="why").read_text()
    [assigned] = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)
                  and ast.unparse(node.targets[0]) == "complaint"]  # fmt: skip
    complaint = ast.literal_eval(assigned.value)
    said = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    called = [ast.unparse(n) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call | ast.JoinedStr)]
    own = [text for text in said if isinstance(text, str) and text != complaint]
    assert any(re.search(complaint, text) for text in [*own, *called])


def _imported(tree: ast.Module) -> set[str]:
    nodes = list(ast.walk(tree))
    names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {name.partition(".")[0] for name in names}


def _undefined(tree: ast.Module) -> set[str]:
    """Names that are read and not bound anywhere; scopes are ignored."""
    nodes = list(ast.walk(tree))
    read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    return read - bound - set(dir(__builtins__) if not isinstance(__builtins__, dict) else __builtins__)


def test_no_request_takes_the_name_of_something_else(tmp_path: Path):
    actions = tuple(StartReq(name) for name in ("t", "t_", "if", "seen", "r0"))
    finding = msgspec.structs.replace(FINDING, script=Script(EngineConfig(), actions))
    variables = re.findall(r"    (\w+) = t\.start_req\(", emit_sglang(finding, tmp_path).read_text())
    assert variables == ["t__", "t_", "if_", "seen_", "r0"]


@pytest.mark.parametrize(
    ("invariant", "rule", "reason"),
    [
        ("streams", "finished_twice", "what is streamed to a client cannot be seen"),
        ("aborts", "ended_otherwise", "how a request ends is told to its client only"),
    ],
)
def test_what_the_api_does_not_show_is_refused_in_one_line(tmp_path: Path, invariant: str, rule: str, reason: str):
    finding = msgspec.structs.replace(FINDING, violation=Violation(invariant, rule, "a message", 3))
    with pytest.raises(NotExpressible, match=f"^{invariant}: {rule}: {reason}.*$"):
        emit_sglang(finding, tmp_path / "out")
    assert not (tmp_path / "out").exists()


HOSTILE = 'it says """done""" and C:\\new\\x41 and \x00\x1b[31m, and ends in \\'


@pytest.mark.parametrize(
    "message", [HOSTILE, HOSTILE * 20, "x" * 1000, '"' * 500, "two\nlines", "", "é" * 300, "{braces} %s"]
)
def test_no_message_breaks_the_file(tmp_path: Path, message: str):
    violation = Violation("exception", message[:40] or "?", message, 3, location=(message,))
    trace = (StepRecord(1, (message,), batch=(message,) * 9, mode="decode"),)
    finding = msgspec.structs.replace(FINDING, violation=violation)
    ast.parse(emit_sglang(finding, tmp_path, known_cause=message, trace=trace).read_text())
