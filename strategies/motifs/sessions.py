"""Motifs about sessions: what a session keeps between two turns meets aborts, retractions, flushes and its close."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STAGES_TO_AIM_AT, STEPS, ScriptBuilder, strike, until
from sr_fuzz.strategies.motifs.base import motif
from sr_fuzz.strategies.profiles import burst
from sr_fuzz.strategies.requests import FAMILIES, sizes_of

from sr_fuzz.script import (
    Abort,
    CloseSession,
    Continue,
    EvictRadix,
    FlushCache,
    Pause,
    Prompt,
    SessionParams,
    Step,
)  # fmt: skip

# A turn extends a history, and both together have to fit.
_TURN_TOKENS = (1, 2, 3, 5, 8, 12, 16, 24)
_NEW_TOKENS = (4, 1, 2, 3, 6, 8, 12, 20)


def _turn(builder: ScriptBuilder, session: str, **more: object) -> str:
    """Start one more turn, usually a short one, once the previous turn has ended."""
    before = builder.sessions.get(session)
    if before is not None and not builder.turns_at_once:
        if builder.paused:
            builder.add(Continue())
        until(builder, before, "finished")
    length, new, family = builder.digits(len(_TURN_TOKENS), len(_NEW_TOKENS), FAMILIES)
    tokens = min(_TURN_TOKENS[length], sizes_of(builder.config).longest)
    return builder.start(
        prompt=Prompt(family=family, length=tokens),
        max_new_tokens=_NEW_TOKENS[new],
        session=SessionParams(session, **more),  # type: ignore[arg-type]
    )


def _first_turn(builder: ScriptBuilder, session: str) -> str:
    """Start a turn with a prompt of one to three chunks, whose beginning other prompts share."""
    chunks, extra, new, family = builder.digits(4, 4, len(_NEW_TOKENS), FAMILIES)
    sizes = sizes_of(builder.config)
    length = min(max(1, (sizes.chunk * (1 + chunks)) // 2 + extra), max(1, sizes.longest // 3))
    prompt = Prompt(family=family, length=length, unique_tail=min(extra, length))
    return builder.start(prompt=prompt, max_new_tokens=_NEW_TOKENS[new], session=SessionParams(session))


def _kept(builder: ScriptBuilder) -> str:
    """A streaming session that has run a turn, so that it keeps KV; half of the time an older session."""
    (fresh,) = builder.digits(2)
    if builder.sessions and not fresh:
        return list(builder.sessions)[-1]
    session = builder.open_session()
    until(builder, _first_turn(builder, session), "finished")
    return session


@motif("sessions", weight=6)
def conversation(builder: ScriptBuilder) -> None:
    """Several turns with other actions in between: the history is cut or doubled, or KV of another history is
    reused."""
    session = builder.open_session(streaming=builder.digits(4)[0] != 3)
    for index in range(2 + builder.digits(3)[0]):
        name = _first_turn(builder, session) if index == 0 else _turn(builder, session)
        until(builder, name, "finished")
        between, turns = builder.digits(8, 8)
        if between == 0 and builder.has("flush_cache"):
            builder.add(FlushCache())
        elif between == 1 and builder.has("evict_radix"):
            builder.add(EvictRadix())
        elif between == 2:
            builder.start()
        elif between == 3:
            builder.add(Step(STEPS[turns]))


@motif("sessions", weight=8)
def turn_struck(builder: ScriptBuilder) -> None:
    """A later turn reaches a stage and is aborted, retracted or flushed there, then another turn comes: the KV that the
    session kept is freed under the turn, freed twice, or never freed."""
    session = _kept(builder)
    stage, after = builder.digits(len(STAGES_TO_AIM_AT), 4)
    name = _turn(builder, session)
    until(builder, name, STAGES_TO_AIM_AT[stage])
    strike(builder, name)
    if after:
        _turn(builder, session)
        builder.step()


@motif("sessions", weight=4)
def first_turn_struck(builder: ScriptBuilder) -> None:
    """The first turn is aborted or retracted before any KV was kept: the row and the lock change owners at that
    point."""
    session = builder.open_session()
    stage, after = builder.digits(len(STAGES_TO_AIM_AT), 4)
    name = _first_turn(builder, session)
    until(builder, name, STAGES_TO_AIM_AT[stage])
    strike(builder, name)
    if after:
        until(builder, _turn(builder, session), "finished")


@motif("sessions", "turns_at_once", weight=6)
def turns_at_once(builder: ScriptBuilder) -> None:
    """A turn arrives while another turn of its session runs, waits or has just been retracted: both use the same
    row."""
    session = _kept(builder)
    gap, second, more, retract = builder.digits(4, 4, 3, 4)
    _turn(builder, session)
    if gap:
        builder.add(Step(gap))
    if not retract and builder.has("pause"):
        builder.add(Pause("retract"), Continue())
    for _ in range(1 + more):
        _turn(builder, session)
        if second:
            builder.add(Step(second))


@motif("sessions", weight=4)
def closed_while_running(builder: ScriptBuilder) -> None:
    """A session is closed in the middle of a turn, in a pause, or twice, and perhaps opened again: its KV is freed
    under the turn, or kept forever."""
    session = _kept(builder)
    stage, how, wait, again = builder.digits(len(STAGES_TO_AIM_AT), 4, 8, 4)
    name = _turn(builder, session)
    until(builder, name, STAGES_TO_AIM_AT[stage])
    if how == 1 and builder.has("pause"):
        builder.add(Pause("retract"))
    builder.add(CloseSession(session))
    if how == 2 and builder.has("abort"):
        builder.add(Abort(name))
    if how == 3:
        builder.add(CloseSession(session))
    builder.add(Step(STEPS[wait]))
    if builder.paused:
        builder.add(Continue())
    if again:
        builder.add(Step(8 + again))
        _turn(builder, session)
        builder.step()


@motif("sessions", weight=4)
def sessions_fill_the_pool(builder: ScriptBuilder) -> None:
    """Several sessions keep KV that cannot be evicted while other requests need the pool: starvation, or a crash where
    a request should have waited."""
    count, longer = builder.digits(3, 2)
    kept = []
    for _ in range(1 + count):
        session = builder.open_session()
        until(builder, _first_turn(builder, session), "finished")
        kept.append(session)
    burst(builder)
    for session in kept[: 1 + longer]:
        _turn(builder, session)
    builder.step()


@motif("sessions", "flush_cache", weight=3)
def flush_while_kept(builder: ScriptBuilder) -> None:
    """A flush frees what a session keeps, perhaps while its next turn waits in a pause: the turn runs on freed KV."""
    session = _kept(builder)
    before, paused, wait, after = builder.digits(3, 3, 4, 4)
    if paused and builder.has("pause"):
        _turn(builder, session)
        builder.add(Step(1 + before), Pause("retract"), Step(1))
    builder.add(FlushCache())
    if wait:
        builder.add(Step(wait))
    if builder.paused:
        builder.add(Continue())
    for _ in range(1 + (after == 3)):
        until(builder, _turn(builder, session), "finished")


@motif("sessions", weight=2)
def idle_session_ends(builder: ScriptBuilder) -> None:
    """A session's time-out expires between two turns, or while a turn runs or waits: it is closed under the turn."""
    seconds, new, wait = builder.digits(4, 3, 8)
    session = builder.open_session(timeout=(0.5, 1.0, 1.5, 2.0)[seconds])
    _first_turn(builder, session)
    if new:
        builder.start()
    builder.add(Step(2 * STEPS[wait] + 2))
    _turn(builder, session)
    builder.add(Step(8))


@motif("sessions", weight=2)
def branches(builder: ScriptBuilder) -> None:
    """Requests of a plain session continue, replace or cut each other: the history is wrong, or a request is aborted
    that was not replaced."""
    session = builder.open_session(streaming=False)
    names = [_first_turn(builder, session)]
    until(builder, names[0], "finished")
    for _ in range(1 + builder.digits(3)[0]):
        how, parent, offset, wait = builder.digits(8, 4, 16, 4)
        rid = names[-1 - parent % len(names)]
        # Without `rid` a replacement is known to crash the scheduler, so it is rare.
        fields: dict[str, object] = (
            {"rid": rid}, {"rid": rid}, {"rid": rid, "drop_previous_output": True}, {"rid": rid, "offset": offset},
            {"rid": rid, "replace": True}, {}, {"rid": rid, "replace": True, "drop_previous_output": True},
            {"replace": True} if offset == 15 else {"rid": rid},
        )[how]  # fmt: skip
        names.append(_turn(builder, session, **fields))
        if wait:
            until(builder, names[-1], "finished" if wait > 1 else "mid_decode")
