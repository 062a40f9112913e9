"""The checks of a test for SGLang's own scripted runtime, by the violated invariant, as source text.

A check there must not import our code, so it reads only what SGLang itself offers (its ``ScriptedContext``, the
scheduler's pools). Each check is the part of our invariant that can be observed this way, at the end of the script or
after each step.
"""

from __future__ import annotations

from msgspec import Struct

from sr_fuzz.emit.public_api import NotExpressible
from sr_fuzz.outcome import Violation
from sr_fuzz.script import EngineConfig


class Checks(Struct, frozen=True, kw_only=True):
    """Source that a test needs for one invariant. Lines have no indentation; helpers are whole functions."""

    helpers: tuple[str, ...] = ()
    """Functions, in the order in which they appear in the file."""
    step: str | None = None
    """A call that makes ``{n}`` steps and checks after each of them; None for plain yields."""
    paused_step: str | None = None
    """The same for steps of a paused engine, except the first step, in which the pause takes effect."""
    begin: tuple[str, ...] = ()
    abort: tuple[str, ...] = ()
    """Lines before the abort of ``{handle}``."""
    abort_all: tuple[str, ...] = ()
    """Lines before an abort of all requests."""
    end: tuple[str, ...] = ()
    """Lines after the drain."""
    compares_outputs: bool = False
    """Whether requests are data of the module, because each one runs a second time alone; greedy sampling, for any
    model."""
    says: str = "still busy after"
    """A regular expression for what the test fails with while the bug is there, by which an expected failure is told
    from any other. By default the drain does not end."""
    raises: str = "AssertionError"
    """The exception of SGLang's runtime: of an assertion of the script, of a server that died, of one that hangs."""
    lenient: bool = False
    """Whether SGLang's idle check must not be strict, as it would kill the server before this check reports the
    problem."""

    @property
    def keeps_requests(self) -> bool:
        """Whether the step function, and so the drain, takes the dictionary ``seen``."""
        return self.step is not None and "seen" in self.step

    def steps(self, n: int) -> tuple[str, ...]:
        """Return the source of ``n`` steps."""
        if self.step is not None:
            call = self.step.format(n=n)
            # One step is the default argument.
            return (f"yield from {call.removesuffix(', 1)') + ')' if n == 1 else call}",)
        return ("yield",) if n == 1 else (f"for _ in range({n}):", "    yield")

    def drain(self) -> str:
        """Return the source of the function that drains the engine."""
        (step,) = self.steps(1)
        return DRAIN.format(step=step, seen=", seen" if self.keeps_requests else "")


def checks_for(violation: Violation, config: EngineConfig) -> Checks:
    """Return the checks for the violated rule. Raises `NotExpressible` for a rule that the API cannot observe."""
    name, rule = violation.invariant, violation.rule
    if name in ("exception", "crash", "sglang_idle_check"):
        return Checks(says="server process died", raises="RuntimeError")  # the runtime does not tell of what
    if name == "hang":
        return Checks(says="", raises="TimeoutError")  # it never answers
    if rule in ("flush_refused", "flush_unanswered", "lost_at_flush"):
        return Checks(end=_FLUSH, says="tokens are free", lenient=True)
    if name == "liveness" and "nowhere" not in rule:
        return Checks()  # the drain does not end
    match name:
        case "kv_pages":
            helper = _PAGES if config.disable_radix_cache else _PAGES_AND_TREE
            said = "pages with two owners|pages without an owner|pages, the pool has"
            in_use = Checks(
                helpers=(helper, _FREE_IN_USE), step="_step(t, {n})", end=_PAGES_END, says=f"uses free pages|{said}",
                lenient=True,
            )  # fmt: skip
            at_end = Checks(helpers=(helper,), end=_PAGES_END, says=said, lenient=True)
            return in_use if rule == "use_after_free" else at_end
        case "request_rows":
            return Checks(end=_ROWS, says="a row is free twice|rows are free", lenient=True)
        case "tree_locks":
            return Checks(end=_LOCKS, says="has locked tree nodes", lenient=True)
        case "kv_content" | "oracle_output":
            return Checks(
                helpers=(_SEEN, _ALONE), step=_SEEN_STEP, begin=_SEEN_BEGIN, end=_OUTPUTS, compares_outputs=True,
                says=", alone ",
            )  # fmt: skip
        case "paused_frozen":
            return Checks(helpers=(_FROZEN,), paused_step="_frozen(t, {n})", says="while paused")
        case "nobody_lost" | "liveness":
            said = "in no queue or batch any more"
            return Checks(helpers=(_SEEN,), step=_SEEN_STEP, begin=_SEEN_BEGIN, end=_LOST, says=said)
        case "aborts" if rule == "too_many_tokens":
            return Checks(
                helpers=(_SEEN,), step=_SEEN_STEP, begin=(*_SEEN_BEGIN, "aborted = {}  # output length at the abort"),
                abort=_ABORTED, abort_all=_ABORTED_ALL, end=_ABORTS, says="tokens after its abort",
            )  # fmt: skip
        case "sglang_busy_check" | "sglang_tree_check":
            checked_by = "self_check_during_busy" if name == "sglang_busy_check" else "sanity_check"
            return Checks(helpers=(_SELF_CHECK[name],), step="_step(t, {n})", says=checked_by)
    raise NotExpressible(f"{name}: {rule}: {_UNSEEN.get(name, 'nothing in the API shows it')}")


_UNSEEN = {
    "streams": "what is streamed to a client cannot be seen through SGLang's scripted runtime",
    "aborts": "how a request ends is told to its client only, not to a script",
    "admission": "that a request waits can be seen through the API, not that there is room for it",
}

OUTPUT_LEN = '''\
def _output_len(r):
    """Output tokens so far; 0 before it arrives and after it has left."""
    return len(r.req.output_ids) if r.req is not None else 0'''

DRAIN = '''\
def _drain(t{seen}):
    """Step until nothing is queued, running or in flight."""
    for _ in range(MAX_DRAIN_STEPS):
        {step}
        if t.is_fully_idle:
            break
    else:
        waiting = [req.rid for req in t.scheduler.waiting_queue]
        raise AssertionError(
            f"still busy after {{MAX_DRAIN_STEPS}} steps: "
            f"{{t.batch_composition()}}, waiting {{waiting}}, {{t.engine_stats()}}"
        )
    {step}  # an idle step'''
"""``{step}`` is one step; a drain that checks after each step takes the data for that as a further argument."""

# -- memory ----------------------------------------------------------------------------------------------------

_CENSUS = '''\
    allocator = t.scheduler.token_to_kv_pool_allocator
    pages = allocator.get_all_free_pages().tolist()
{tree}    twice = sorted({{page for page in pages if pages.count(page) > 1}})
    assert not twice, f"pages with two owners: {{twice}}"
    total = allocator.size // allocator.page_size
    lost = sorted(set(range(1, total + 1)) - set(pages))
    assert not lost, f"pages without an owner: {{lost}}"
    assert len(pages) == total, f"{{len(pages)}} pages, the pool has {{total}}"'''

_TREE_PAGES = """\
    cached = t.scheduler.tree_cache.all_values_flatten()
    pages += (cached[:: allocator.page_size] // allocator.page_size).tolist()
"""

_PAGES = f'''\
def _check_pages(t):
    """An idle engine: each page of the KV pool is free, once."""
{_CENSUS.format(tree="")}'''

_PAGES_AND_TREE = f'''\
def _check_pages(t):
    """An idle engine: each page of the KV pool is free or in the tree, once."""
{_CENSUS.format(tree=_TREE_PAGES)}'''

_PAGES_END = ("_check_pages(t)",)

_FREE_IN_USE = '''\
def _step(t, n=1):
    """``n`` steps; after each, no page in use may be in the free list."""
    allocator = t.scheduler.token_to_kv_pool_allocator
    table = t.scheduler.req_to_token_pool.req_to_token
    for _ in range(n):
        yield
        free = set(allocator.get_all_free_pages().tolist())
        for req in t.list_active_reqs():
            if not req.kv.holds_kv:
                continue
            row = table[req.kv.req_pool_idx, : req.kv.kv_allocated_len]
            stale = sorted(free & set((row // allocator.page_size).tolist()))
            assert not stale, f"{req.rid} uses free pages {stale}"'''

_ROWS = (
    "pool = t.scheduler.req_to_token_pool",
    "rows = sorted(pool.free_slots)",
    'assert len(rows) == len(set(rows)), f"a row is free twice: {rows}"',
    'assert len(rows) == pool.size, f"{len(rows)} of {pool.size} rows are free: {rows}"',
)

_LOCKS = (
    "locks = {node: n for node, n in t.get_all_node_lock_refs().items() if n}",
    'assert not locks, f"an idle engine has locked tree nodes (id: locks): {locks}"',
)

_FLUSH = (
    "# The engine is idle: it must flush when asked to, and everything is free then.",
    "t.flush_cache()",
    "for _ in range(3):",
    "    yield",
    "allocator = t.scheduler.token_to_kv_pool_allocator",
    "free = allocator.available_size()",
    'assert free == allocator.size, f"{free} of {allocator.size} tokens are free"',
)

# -- requests --------------------------------------------------------------------------------------------------

_SEEN = '''\
def _step(t, seen, n=1):
    """``n`` steps. ``seen`` keeps each request, for when it has left the queues."""
    for _ in range(n):
        yield
        seen.update((req.rid, req) for req in t.list_active_reqs())'''

_SEEN_STEP = "_step(t, seen, {n})"
_SEEN_BEGIN = ("seen = {}",)

_ALONE = '''\
def _alone(t, **request):
    """Output of a request that has the engine to itself, and an empty cache."""
    t.flush_cache()
    yield
    seen = {}
    r = t.start_req(**request)
    yield from _drain(t, seen)
    return list(seen[r.rid].output_ids)'''

_OUTPUTS = (
    "# Whoever ran to its end has the output that it has alone; the others a part of it.",
    "for name, r in runs.items():",
    "    if r.rid not in seen:",
    "        continue",
    "    output, reason = list(seen[r.rid].output_ids), seen[r.rid].finished_reason",
    '    complete = reason is not None and reason.to_json()["type"] != "abort"',
    "    alone = yield from _alone(t, **REQUESTS[name])",
    "    expected = alone if complete else alone[: len(output)]",
    '    assert output == expected, f"{name}: {output}, alone {alone}"',
)

_LOST = (
    "lost = [r.rid for r in unaborted if r.rid in seen and not seen[r.rid].finished()]",
    'assert not lost, f"in no queue or batch any more, but not finished: {lost}"',
)

_ABORTED = ("aborted[{handle}.rid] = _output_len({handle})",)
_ABORTED_ALL = (
    "for rid, req in seen.items():",
    "    if not req.finished():",
    "        aborted[rid] = len(req.output_ids)",
)

_ABORTS = (
    "for rid, length in aborted.items():",
    "    extra = len(seen[rid].output_ids_through_stop) - length if rid in seen else 0",
    '    assert extra <= 3, f"{rid} got {extra} tokens after its abort"',
)

_FROZEN = '''\
def _frozen(t, n):
    """``n`` steps of a paused engine: no forward, and no request gets a token."""
    reqs, forwards = t.list_active_reqs(), t.scheduler.forward_ct
    lengths = {req.rid: len(req.output_ids) for req in reqs}
    for _ in range(n):
        yield
        assert t.scheduler.forward_ct == forwards, "a batch ran while paused"
        now = {req.rid: len(req.output_ids) for req in reqs}
        assert now == lengths, f"output moved while paused: {lengths}, now {now}"'''

# -- SGLang's own checks ---------------------------------------------------------------------------------------

_SELF_CHECK = {
    "sglang_busy_check": '''\
def _step(t, n=1):
    """``n`` steps, each followed by the scheduler's own memory check."""
    for _ in range(n):
        yield
        if not t.scheduler._engine_paused:
            with envs.SGLANG_CHECK_KV_PAGE_INVARIANTS.override(True):
                t.scheduler.invariant_checker.self_check_during_busy()''',
    "sglang_tree_check": '''\
def _step(t, n=1):
    """``n`` steps, each followed by the tree's own check."""
    for _ in range(n):
        yield
        t.scheduler.tree_cache.sanity_check()''',
}
