"""Motifs: short compositions of actions that aim at a state of the scheduler.

Blind random schedules seldom meet the states where bugs live: a request that is in none of the obvious lists
(parked between chunks, its result in flight, just retracted or preempted) when an abort, a pause or a flush
arrives. A motif brings one about on purpose. Each stands for a class of bug that schedulers have had; its
docstring names the class. All of them append plain actions to a `Draft`.
"""

from __future__ import annotations

import math
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
from strategies.requests import FAMILIES, Draw, draw_prompt, sizes_of, unique_tail


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


# Where one request did not fit, SGLang admits no further one until another leaves, and within one batch it counts
# whole outputs. So a pool runs over, and requests are retracted, when they arrive one by one or a chunk takes one
# at a time; a crowd in one turn waits in the queue instead. Both are wanted.
_ARRIVALS = (None, None, 1, 1, 2)


@motif(weight=1)
def burst(draft: Draft) -> None:
    """Three to eight requests, in one turn or one after another, that want 1.5 to 4 times the pool: retraction, and
    admission that promises the same pages twice."""
    sizes = sizes_of(draft.config)
    wanted, more, shape, arrival, families, family, turns = draft.digits(6, 6, 8, len(_ARRIVALS), 3, FAMILIES, 8)
    ratio, apart = (1.5, 1.75, 2.0, 2.5, 3.0, 4.0)[wanted], _ARRIVALS[arrival]
    # One that wants half the pool is admitted alone.
    count = min(8, max(3 + more, math.ceil(2.5 * ratio)))
    share = math.ceil(ratio * sizes.pool / count)
    for index in range(count):
        jitter, tail = draft.digits(8, 8)
        # Short prompts are admitted together, and run out of memory together later.
        length = share * (3, 3, 4, 4, 8, 12, 16)[shape % (4 if apart else 7)] // 24 + (jitter - 3) * share // 24
        if shape == 7 and not apart:
            length = sizes.chunk
        length = min(max(1, length), max(1, share * 3 // 4))
        own = unique_tail(length, tail)
        prompt = Prompt(family=(family + index % (families + 1)) % FAMILIES, length=length, unique_tail=own)
        # A shared prefix costs nothing the second time: what it saves goes into the output.
        spent = length if draft.config.disable_radix_cache else own
        draft.start(prompt=prompt, max_new_tokens=max(1, share - spent))
        if apart and index % apart == 0:
            draft.add(Step(1))
    draft.add(Step(TURNS[turns]))


def _keep_busy(draft: Draft) -> None:
    """Start something when the engine has probably run dry: a burst, or one or two requests."""
    if draft.work > 2:
        return
    (few,) = draft.digits(3)
    if few == 0:
        burst(draft)
        return
    for _ in range(few):
        draft.start(max_new_tokens=sizes_of(draft.config).pool // 4)
    draft.step()


@motif("step_until", weight=8)
def strike_at_stage(draft: Draft) -> None:
    """Abort, pause or flush in the turn in which a request reaches a stage: pages or rows freed twice or never."""
    _keep_busy(draft)
    stage, nth = draft.digits(len(STAGES_TO_AIM_AT), 3)
    # Only a newcomer is surely in the queue, if the engine is as full as it should be.
    victim = draft.start() if STAGES_TO_AIM_AT[stage] == "waiting" else draft.victim()
    until(draft, victim, STAGES_TO_AIM_AT[stage], nth + 1)
    strike(draft, victim)


@motif("step_until", weight=4)
def parked_chunk(draft: Draft) -> None:
    """A long prompt parked between chunks beside decoding requests, when something strikes: the chunked request is
    in no queue, and is forgotten, leaked, or scheduled twice."""
    sizes = sizes_of(draft.config)
    decoders, first, extra, chunks, nth, family = draft.digits(4, 4, 8, 4, 4, FAMILIES)
    for index in range(decoders):
        prompt = Prompt(family=(family + index) % FAMILIES, length=max(1, sizes.chunk // 2))
        draft.start(prompt=prompt, max_new_tokens=sizes.pool // 3)
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
    sizes = sizes_of(draft.config)
    fewer, extra, new, family, other = draft.digits(3, 4, 4, FAMILIES, 4)
    if draft.work > 10:
        draft.add(Step(20))
    count = max(2, min(draft.config.max_running_requests, 7) - fewer)
    length = max(1, sizes.pool // 24) + extra
    # Each fits beside what the others hold when it comes; together they do not fit when they have grown.
    output = math.ceil((1.4 + new / 4) * sizes.pool / count)
    for _ in range(count):
        prompt = Prompt(family=family, length=length, unique_tail=length // 2)
        last = draft.start(prompt=prompt, max_new_tokens=min(output, sizes.pool * 2 // 3), ignore_eos=False)
        draft.add(Step(1))
    # SGLang retracts those with the shortest output, so the last comer.
    victim = last if other else draft.victim()
    until(draft, victim, "retracted")
    strike(draft, victim)


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


@motif("flush_cache")
def flush_and_again(draft: Draft) -> None:
    """A flush while busy must change nothing, one while idle must forget all: stale nodes and pages either way."""
    busy, wait, turns = draft.digits(2, 3, 8)
    if busy:
        _keep_busy(draft)
    else:
        draft.add(Step((12, 20, 30)[wait]))
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
