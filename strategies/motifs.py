"""Motifs: short compositions of actions that aim at a state of the scheduler.

Blind random schedules seldom meet the states where bugs live: a request that is in none of the obvious lists
(parked between chunks, its result in flight, just retracted or preempted) when an abort, a pause or a flush
arrives. A motif brings one about on purpose. Each stands for a class of bug that schedulers have had; its
docstring names the class. All of them append plain actions to a `Draft`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from sr_fuzz.script import (
    Abort,
    AbortAll,
    Action,
    Continue,
    EngineConfig,
    EvictRadix,
    ExhaustKv,
    ExhaustLockRefs,
    ExhaustRows,
    FlushCache,
    Pause,
    Prompt,
    Release,
    Step,
)  # fmt: skip
from strategies.actions import STAGES_TO_AIM_AT, TURNS, Draft, advance_clock, reprise, strike, until
from strategies.profiles import burst, overflow, settle
from strategies.requests import FAMILIES, Draw, draw_prompt, draw_relative, going_on, sizes_of, unique_tail


@dataclass(frozen=True)
class Motif:
    """A named composition."""

    name: str
    why: str
    needs: frozenset[str]
    """It applies to drafts with all of these among their `Draft.abilities`."""
    weight: int
    play: Callable[[Draft], None]


MOTIFS: dict[str, Motif] = {}
"""All motifs by name; ``why`` says what class of bug each stands for."""


def motif(*needs: str, weight: int = 2) -> Callable[[Callable[[Draft], None]], Callable[[Draft], None]]:
    def register(play: Callable[[Draft], None]) -> Callable[[Draft], None]:
        name = play.__name__
        MOTIFS[name] = Motif(name, " ".join((play.__doc__ or "").split()), frozenset(needs), weight, play)
        return play

    return register


motif(weight=1)(burst)


def _keep_busy(draft: Draft) -> None:
    """Start something when the engine has probably run dry: a burst, or one or two requests."""
    if draft.work > draft.busy:
        return
    (few,) = draft.digits(3)
    if few == 0 and draft.busy:
        burst(draft)
        return
    for _ in range(max(1, few)):
        draft.start(max_new_tokens=sizes_of(draft.config).pool // 4)
    draft.step()


def _make_room(draft: Draft) -> None:
    """Let the engine come to rest, so that what starts now is served now; not always, since it is not always so."""
    (still_busy,) = draft.digits(3)
    if still_busy:
        settle(draft)


def _aim(draft: Draft, stage: str) -> str:
    """A request that will soon be at ``stage``: a new one, made for it, as a rule; now and then any."""
    sizes = sizes_of(draft.config)
    any_other, size, new, family, room = draft.digits(4, 3, 4, FAMILIES, 2)
    if any_other == 0 and draft.names:
        return draft.victim()
    if stage == "retracted":
        settle(draft)
        return overflow(draft)[-1]
    if stage == "waiting":
        # Behind one that takes most of the pool.
        length = max(1, sizes.longest - sizes.chunk - size)
        draft.start(prompt=Prompt(family, length), max_new_tokens=4 + new)
        return draft.start()
    if room:
        settle(draft)
    length = max(1, sizes.chunk // 2 + size)
    if stage in ("first_chunk", "nth_chunk", "last_chunk"):
        length = min((2 + size) * sizes.chunk + new, sizes.longest)
    return draft.start(prompt=Prompt(family, length, length // 2), max_new_tokens=5 + 3 * new)


@motif("step_until", weight=8)
def strike_at_stage(draft: Draft) -> None:
    """Abort, pause or flush in the turn in which a request reaches a stage: pages or rows freed twice or never."""
    _keep_busy(draft)
    stage, nth = draft.digits(len(STAGES_TO_AIM_AT), 3)
    victim = _aim(draft, STAGES_TO_AIM_AT[stage])
    until(draft, victim, STAGES_TO_AIM_AT[stage], nth + 1)
    strike(draft, victim)


@motif("step_until", weight=4)
def parked_chunk(draft: Draft) -> None:
    """A long prompt parked between chunks beside decoding requests, when something strikes: the chunked request is
    in no queue, and is forgotten, leaked, or scheduled twice."""
    sizes = sizes_of(draft.config)
    _make_room(draft)
    decoders, first, extra, chunks, nth, family = draft.digits(4, 4, 8, 4, 4, FAMILIES)
    for index in range(decoders):
        prompt = Prompt(family=(family + index) % FAMILIES, length=max(1, sizes.chunk // 2))
        draft.start(prompt=prompt, max_new_tokens=max(4, sizes.pool // (3 * decoders)))
    if decoders:
        draft.add(Step(1 + first))
    length = min((2 + chunks) * sizes.chunk + extra - 1, sizes.longest)
    long = draft.start(prompt=Prompt(family=family, length=length, unique_tail=length // 2), max_new_tokens=4 + extra)
    until(draft, long, "nth_chunk", nth + 1)
    strike(draft, long)


@motif("step_until", weight=4)
def retracted_victim(draft: Draft) -> None:
    """A request is retracted for lack of memory and meets an abort or a pause before it runs again: its KV or its
    output so far is lost, or its finish is reported twice."""
    settle(draft)
    last, (other,) = overflow(draft)[-1], draft.digits(6)
    # SGLang retracts those with the shortest output, so the last comer.
    victim = last if other else draft.victim()
    until(draft, victim, "retracted")
    strike(draft, victim)


@motif("step_until", "chunks", "mixed", weight=2)
def starved_chunk(draft: Draft) -> None:
    """Decoding requests grow into the memory that the next chunk of a long prompt needs: the chunk is parked, or
    others are retracted for it, and something strikes the one or the others."""
    sizes = sizes_of(draft.config)
    _make_room(draft)
    decoders, short, nth, family, turns = draft.digits(3, 3, 3, FAMILIES, 4)
    others = []
    for index in range(2 + decoders):
        prompt = Prompt(family=(family + index) % FAMILIES, length=1 + short + index)
        others.append(draft.start(prompt=prompt, max_new_tokens=sizes.pool // 2, ignore_eos=False))
        draft.add(Step(1))
    length = max(sizes.chunk + 1, sizes.longest * 3 // 4)
    long = draft.start(prompt=Prompt((family + 3) % FAMILIES, length, length // 2), max_new_tokens=4)
    until(draft, long, "nth_chunk", nth + 1)
    draft.add(Step(1 + turns))
    strike(draft, long if nth else others[-1])


@motif("step_until", "preemption", weight=2)
def preempted_victim(draft: Draft) -> None:
    """A request has given its row to a higher priority, is back in the queue with what it has sent, and is struck
    there, or by a still higher one: its output is repeated, or its KV freed twice."""
    config, sizes = draft.config, sizes_of(draft.config)
    direction = -1 if config.schedule_low_priority_values_first else 1
    _make_room(draft)
    first, new, urgent, again = draft.digits(3, 4, 3, 3)
    rows = min(config.max_running_requests, 6)
    low = [
        draft.start(
            prompt=Prompt(index % FAMILIES, max(1, sizes.chunk // 2)), max_new_tokens=sizes.pool // rows, priority=0
        )
        for index in range(rows)
    ]
    until(draft, low[-1], "first_decode")
    draft.add(Step(1 + first))
    for index in range(1 + urgent):
        above = min(config.priority_scheduling_preemption_threshold + 1 + index, 1000)
        draft.start(max_new_tokens=2 + 2 * new, priority=above * direction)
    # The least urgent that came last goes first.
    until(draft, low[-1], "retracted")
    strike(draft, low[-1])
    if again:
        above = min(2 * config.priority_scheduling_preemption_threshold + 5, 1000)
        draft.start(max_new_tokens=2, priority=above * direction)
        draft.step()


@motif("abort")
def abort_twice(draft: Draft) -> None:
    """The second abort meets a request that is already marked, or already gone: double free, two finishes."""
    _keep_busy(draft)
    gap, victim = draft.digits(4)[0], draft.victim()
    draft.add(Abort(victim))
    if gap:
        draft.add(Step(gap))
    draft.add(Abort(victim), Step(1 + gap))


@motif("abort")
def abort_on_arrival(draft: Draft) -> None:
    """The abort comes in the turn of the start, before or after it, awaited or not: an abort lost, or too late."""
    order, awaited, first = draft.digits(3, 2, 3)
    name = draft.next_name()
    if order == 1:
        draft.add(Abort(name, await_arrival=bool(awaited)))
    draft.start()
    if order == 2:
        draft.start()
    if order != 1:
        draft.add(Abort(name, await_arrival=bool(awaited)))
    draft.add(Step(1 + first))


@motif("abort")
def unknown_name(draft: Draft) -> None:
    """Aborts of a request that does not exist yet, or no longer: state of a stranger touched, or a newcomer of that
    name killed."""
    later, gone, turns = draft.digits(3, 2, 4)
    draft.add(Abort(f"r{len(draft.names) + later}"))
    if gone and draft.names:
        draft.add(Abort(draft.names[0], await_arrival=False))
    if turns:
        draft.add(Step(turns))
    draft.start()
    draft.step()


@motif("pause")
def pause_window(draft: Draft) -> None:
    """Requests start, and others are aborted or flushed, while the engine stands still: admitted under pause, lost
    across it, or never woken up."""
    _keep_busy(draft)
    mode, before, inside, after = draft.digits(4, 4, 4, 8)
    if before:
        draft.add(Step(before))
    draft.add(Pause(("retract", "in_place", "retract", "abort")[mode]))
    for _ in range(1 + inside):
        choice, turns = draft.digits(8, 3)
        if choice == 0 and draft.has("abort"):
            draft.add(Abort(draft.victim()))
        elif choice == 1 and draft.has("flush_cache"):
            draft.add(FlushCache())
        elif choice == 2 and draft.has("evict_radix"):
            draft.add(EvictRadix())
        elif choice == 3:
            draft.add(Pause("retract"))
        elif choice < 6:
            draft.start()
        if turns:
            draft.add(Step(turns))
    draft.add(Continue(), Step(TURNS[after]))


@motif("pause", "step_until", weight=3)
def long_pause(draft: Draft) -> None:
    """A pause in place of several turns over requests that decode, with a result in flight at its begin: delivered in
    the pause, lost, or delivered twice after it."""
    _make_room(draft)
    count, stage, before, hold, inside, then = draft.digits(3, 3, 3, 6, 6, 8)
    names = [draft.start(max_new_tokens=12 + 4 * index) for index in range(1 + count)]
    until(draft, names[-1], ("first_decode", "first_decode", "first_chunk")[stage])
    if before:
        draft.add(Step(before))
    draft.add(Pause("in_place"), Step(2 + hold))
    if inside == 0:
        draft.start()
    elif inside == 1 and draft.has("abort"):
        draft.add(Abort(names[0]))
    elif inside == 2:
        draft.add(Pause("in_place"))
    elif inside == 3:
        draft.add(Pause("retract"))
    draft.add(Step(1 + hold), Continue(), Step(TURNS[then]))


@motif("pause", "abort")
def abort_under_pause(draft: Draft) -> None:
    """The victim is paused in the running batch or back in the queue when it is aborted, perhaps before the pause
    was even handled: never reported, or its memory held for good."""
    _keep_busy(draft)
    mode, gap, late, hold = draft.digits(3, 3, 3, 4)
    victim = draft.victim()
    draft.add(Pause(("in_place", "retract", "in_place")[mode]))
    if gap:
        draft.add(Step(gap))
    draft.add(Abort(victim))
    if late == 2:
        draft.add(Pause("retract"))
    if hold:
        draft.add(Step(hold))
    draft.add(Continue())
    draft.step()


@motif("continue", weight=1)
def stray_continue(draft: Draft) -> None:
    """Continue without a pause, or twice: a state switched that was never left."""
    (times,) = draft.digits(2)
    draft.add(*[Continue()] * (1 + times), Step(1))


@motif("step_until")
def prefix_right_after(draft: Draft) -> None:
    """The same prefix comes back in the turn in which its first owner finishes, shorter or longer, perhaps after an
    eviction: pages in the tree freed by their owner, or locks counted wrongly."""
    length_change, new, turns, evict, stage = draft.digits(8, 4, 8, 4, 4)
    prompt = draw_prompt(draft.draw, draft.config)
    owner = draft.start(prompt=prompt, max_new_tokens=new)
    until(draft, owner, ("finished", "finished", "last_decode", "first_decode")[stage])
    if evict == 1 and draft.has("evict_radix"):
        draft.add(EvictRadix(1 + prompt.length // 2))
    elif evict == 2 and draft.has("flush_cache"):
        draft.add(FlushCache())
    length = min(max(1, prompt.length + (0, 1, -1, 8, -8, 16, 0, 2)[length_change]), sizes_of(draft.config).longest)
    draft.start(prompt=Prompt(family=prompt.family, length=length, unique_tail=min(length, new)))
    draft.add(Step(TURNS[turns]))


@motif("step_until", "radix", weight=3)
def next_turn(draft: Draft) -> None:
    """A chat: the next prompt is the last one, its answer and something new. Pages of generated tokens are shared, and
    the last of them is not written yet: shared one too far, or freed with the answer."""
    _make_room(draft)
    turns, stage, new, early, struck = draft.digits(3, 6, 4, 4, 4)
    name = draft.start(prompt=draw_prompt(draft.draw, draft.config), max_new_tokens=4 + 3 * new)
    stages = ("finished", "finished", "finished", "finished", "last_decode", "mid_decode")
    for _ in range(1 + turns):
        until(draft, name, stages[stage])
        if early == 1 and draft.has("evict_radix"):
            draft.add(EvictRadix(1 + new))
        prompt = draw_relative(draft.draw, draft.config, draft.request(name))
        name = draft.start(prompt=prompt, max_new_tokens=3 + 2 * new)
    if struck == 0:
        strike(draft, name)
    draft.step()


@motif("step_until", "radix", weight=3)
def diverge(draft: Draft) -> None:
    """One prompt is cached whole; others leave it at a page, a token beside it, or in the middle, all in one turn: a
    node is split while it is locked, matched or evicted."""
    sizes, page = sizes_of(draft.config), draft.config.page_size
    _make_room(draft)
    family, size, new, between, followers, struck, turns = draft.digits(FAMILIES, 3, 4, 6, 3, 4, 8)
    length = min(max(2, (2 + size) * max(page, sizes.chunk // 2) + new - 1), sizes.longest)
    base = draft.start(prompt=Prompt(family, length), max_new_tokens=1 + new)
    until(draft, base, "finished" if between else "first_decode")
    name = base
    for index in range(2 + followers):
        at, beside, tail = draft.digits(8, 3, 6)
        shared = (length * at // 8) // page * page + (0, 1, -1)[beside]
        own = (1, 2, page, 3, sizes.chunk // 2, 0)[tail]
        prompt = going_on(draft.request(base), min(max(1, shared), length), min(own, sizes.longest - length))
        name = draft.start(prompt=prompt, max_new_tokens=2 + new)
        if index == 0 and between == 1 and draft.has("evict_radix"):
            draft.add(EvictRadix(1 + length // 2))
    if struck == 0:
        draft.add(Step(1))
        strike(draft, name)
    draft.add(Step(TURNS[turns]))


@motif("step_until", "radix", weight=2)
def stolen_prefix(draft: Draft) -> None:
    """A request whose prefix is cached waits behind one that needs the memory of that prefix: it is evicted between
    the match and the admission, and still used, or counted as free twice."""
    sizes = sizes_of(draft.config)
    _make_room(draft)
    family, size, less, new, order, turns = draft.digits(FAMILIES - 1, 3, 8, 4, 2, 8)
    cached = min((1 + size) * max(sizes.chunk // 2, draft.config.page_size) + 1, sizes.longest // 2 + 1)
    owner = draft.start(prompt=Prompt(family, cached), max_new_tokens=1 + new)
    until(draft, owner, "finished")
    thief = Prompt(FAMILIES - 1, max(1, sizes.longest - less), unique_tail=max(0, sizes.longest - less) // 2)
    wanting = going_on(draft.request(owner), cached, min(3, sizes.longest - cached))
    for prompt in (thief, wanting) if order else (wanting, thief):
        draft.start(prompt=prompt, max_new_tokens=2 + 2 * new)
    draft.start(prompt=wanting)
    draft.add(Step(TURNS[turns]))


@motif(weight=1)
def twins(draft: Draft) -> None:
    """The same prompt two or three times in one turn: each prefills pages that the tree can keep only once."""
    more, same, turns = draft.digits(2, 2, 8)
    prompt = draw_prompt(draft.draw, draft.config)
    for index in range(2 + more):
        grown = min(prompt.length + index, sizes_of(draft.config).pool)
        draft.start(prompt=prompt if same else Prompt(family=prompt.family, length=grown))
    draft.add(Step(TURNS[turns]))


@motif()
def near_capacity(draft: Draft) -> None:
    """A prompt of the pool minus a few tokens, alone or behind decoding requests: admitted though it never fits,
    never admitted though it does, or blocking all others."""
    sizes = sizes_of(draft.config)
    decoders, below, family, new, first, tail, behind = draft.digits(3, 8, FAMILIES, 4, 4, 4, 2)
    held = 0
    for index in range(decoders):
        length = sizes.chunk + index
        draft.start(prompt=Prompt(family=(family + 1) % FAMILIES, length=length), max_new_tokens=8)
        held += length
    if decoders:
        draft.add(Step(1 + first))
    length = max(1, sizes.longest - held - below + 1)
    prompt = Prompt(family=family, length=length, unique_tail=unique_tail(length, 2 * tail))
    draft.start(prompt=prompt, max_new_tokens=(1, 4, 8, sizes.pool)[new])
    if behind:
        draft.start()
    draft.add(Step(2 + first))


@motif(weight=1)
def ends_in_prefill(draft: Draft) -> None:
    """Requests for no token or one finish in the very batch that prefills them, beside others that go on: filtered
    out of the batch with their neighbour's result."""
    others, first, second, turns = draft.digits(2, 2, 2, 8)
    draft.start(max_new_tokens=first)
    if others:
        draft.start()
    draft.start(max_new_tokens=1 - second)
    draft.add(Step(TURNS[turns]))


@motif("flush_cache", weight=5)
def flush_and_again(draft: Draft) -> None:
    """A flush while busy must change nothing, one while idle must forget all: stale nodes and pages either way."""
    busy, wait, turns = draft.digits(3, 3, 8)
    if busy == 2:
        _keep_busy(draft)
    else:
        settle(draft)
        draft.add(Step(1 + wait))
    draft.add(FlushCache())
    if draft.names:
        reprise(draft, draft.victim())
    draft.add(Step(TURNS[turns]))


@motif("evict_radix")
def evict_while_waiting(draft: Draft) -> None:
    """A waiting request has matched a prefix that it has not locked when the prefix is evicted: use after free."""
    family, amount, turns = draft.digits(FAMILIES, 8, 8)
    shared = sizes_of(draft.config).chunk + 1
    draft.start(prompt=Prompt(family=family, length=shared), max_new_tokens=2)
    draft.add(Step(TURNS[turns]))
    for tail in range(3):
        draft.start(prompt=Prompt(family=family, length=shared + tail, unique_tail=tail))
    draft.add(Step(1), EvictRadix(None if amount == 0 else amount * shared // 4 + 1), Step(1 + turns))


@motif("priority")
def preempt(draft: Draft) -> None:
    """Urgent requests arrive while less urgent ones hold every row, and something strikes in that turn: a preempted
    request is in no queue for a moment."""
    config = draft.config
    direction = -1 if config.schedule_low_priority_values_first else 1
    first, urgent, new, victim, struck = draft.digits(4, 2, 4, 4, 2)
    low = [
        draft.start(max_new_tokens=8 + 4 * new, priority=0 if index else None)
        for index in range(min(config.max_running_requests, 6))
    ]
    draft.add(Step(2 + 2 * first))
    for index in range(1 + urgent):
        above = config.priority_scheduling_preemption_threshold + index
        draft.start(max_new_tokens=4, priority=min(above + 1, 1000) * direction)
    if struck:
        draft.add(Step(1))
    strike(draft, low[victim % len(low)])


@motif("queue_limit", weight=1)
def queue_full(draft: Draft) -> None:
    """More requests than rows and queue together, with room made in between: one refused twice, or refused and
    still run."""
    config = draft.config
    over, room, turns = draft.digits(3, 4, 8)
    total = min(config.max_running_requests + (config.max_queued_requests or 0), 12) + 1 + over
    for index in range(total):
        draft.start()
        # Without a turn in between nothing leaves the queue for a row, and the limit is met early.
        if index == config.max_running_requests - 1 and room:
            draft.add(Step(1 + room))
    if draft.has("abort") and room > 1:
        draft.add(Abort(draft.victim()))
    draft.start()
    draft.add(Step(TURNS[turns]))


@motif("logprobs")
def logprob_mates(draft: Draft) -> None:
    """A request with logprobs from inside a cached prefix beside one without: cut at the wrong place after a
    retraction, or shifted by the neighbour."""
    start, top, turns, struck = draft.digits(4, 3, 8, 2)
    prompt = draw_prompt(draft.draw, draft.config)
    draft.start(prompt=prompt)
    draft.add(Step(TURNS[turns]))
    first = (0, prompt.length // 2, prompt.length - 1, -1)[start]
    name = draft.start(prompt=prompt, return_logprob=True, logprob_start_len=first, top_logprobs_num=(0, 1, 4)[top])
    draft.start()
    draft.add(Step(1))
    if struck:
        strike(draft, name)


@motif("logprobs", "step_until")
def logprobs_retracted(draft: Draft) -> None:
    """A request with logprobs is retracted, by a pause or for lack of memory, and prefilled again with what it has
    generated: logprobs of the prompt sent twice, those of the output cut or shifted."""
    _make_room(draft)
    start, top, by_pause, new, turns = draft.digits(4, 3, 2, 4, 8)
    prompt = draw_prompt(draft.draw, draft.config)
    first = (0, prompt.length // 2, prompt.length - 1, -1)[start]
    name = draft.start(
        prompt=prompt, max_new_tokens=6 + 4 * new, return_logprob=True, logprob_start_len=first,
        top_logprobs_num=(0, 1, 4)[top], ignore_eos=False,
    )  # fmt: skip
    if by_pause and draft.has("pause"):
        until(draft, name, "mid_decode")
        draft.add(Pause("retract"), Step(1), Continue())
    else:
        overflow(draft)
        until(draft, name, "retracted")
    draft.add(Step(TURNS[turns]))


@motif("abort_all")
def abort_all_and_start(draft: Draft) -> None:
    """Everything is aborted in the turn in which new requests arrive, before or after: the wrong ones survive."""
    _keep_busy(draft)
    awaited, before, after = draft.digits(2, 2, 3)
    if before:
        draft.start()
    draft.add(AbortAll(await_arrival=bool(awaited)))
    for _ in range(after):
        draft.start()
    draft.step()


def _with_nothing_promised(draft: Draft, hold: Action) -> None:
    """Hold memory while no chunk is on its way and no flush is queued: what admission has promised to a chunk and
    the script takes away would be missed later, and that crash would be the script's own doing."""
    if not draft.actions:
        draft.add(hold)
    elif draft.digits(2)[0]:
        draft.add(Pause("retract"), Step(2), hold, Continue())
    else:
        draft.add(Continue(), AbortAll(), Step(6), hold)
    draft.add(Step(1))


@motif("exhausters")
def hold_kv(draft: Draft) -> None:
    """Requests arrive while free pages are held: the engine should wait, park or retract, not fail."""
    leave, count, turns, struck = draft.digits(8, 4, 8, 2)
    pages = max(1, sizes_of(draft.config).chunk // draft.config.page_size)
    _with_nothing_promised(draft, ExhaustKv((0, 1, 2, 4, pages - 1, pages, pages + 1, 3 * pages)[leave]))
    names = [draft.start() for _ in range(1 + count)]
    draft.add(Step(TURNS[turns]))
    if struck:
        strike(draft, names[0])
    draft.add(Release())
    draft.step()


@motif("exhausters")
def hold_rows(draft: Draft) -> None:
    """Requests arrive while ballast holds the rows: a request waits for ever, or takes a row twice."""
    leave, count, turns, struck = draft.digits(3, 3, 8, 2)
    draft.add(ExhaustRows(leave), Step(2))
    names = [draft.start() for _ in range(1 + count)]
    draft.add(Step(TURNS[turns]))
    if struck:
        strike(draft, names[-1])
    draft.add(Release())
    draft.step()


@motif("exhausters", "radix")
def hold_locks(draft: Draft) -> None:
    """Cached prefixes that count as free are locked: admission relies on an eviction that cannot happen."""
    leave, count, turns = draft.digits(4, 3, 8)
    draft.start(max_new_tokens=2)
    draft.start(max_new_tokens=2)
    draft.add(Step(10))
    _with_nothing_promised(draft, ExhaustLockRefs((0, 0, 1, 2)[leave]))
    for _ in range(1 + count):
        draft.start()
    draft.add(Step(TURNS[turns]), Release())
    draft.step()


@motif("timeouts", weight=6)
def time_out(draft: Draft) -> None:
    """Time passes while requests wait, run, or are between two chunks; then more of them come: what an abort of that
    kind frees is freed twice or never, and who is taken out of a queue is still in another."""
    _keep_busy(draft)
    stage, passes, turns, struck = draft.digits(len(STAGES_TO_AIM_AT), 3, 8, 3)
    victim = draft.victim()
    until(draft, victim, STAGES_TO_AIM_AT[stage])
    for _ in range(passes):
        advance_clock(draft)
        draft.add(Step(TURNS[turns]))
    advance_clock(draft)
    if struck == 0:
        strike(draft, victim)
    reprise(draft, victim)
    draft.step()


@st.composite
def motif_actions(draw: Draw, config: EngineConfig, name: str) -> tuple[Action, ...]:
    """Strategy: the actions of one motif, as a script of its own would begin. Raises `KeyError` for no such motif."""
    draft = Draft(draw, config)
    MOTIFS[name].play(draft)
    return tuple(draft.actions)
