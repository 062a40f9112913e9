"""Motifs about sessions: what a session keeps between two turns meets aborts, retractions, flushes and its own end."""

from __future__ import annotations

from sr_fuzz.strategies.actions import STAGES_TO_AIM_AT, STEPS, Draft, strike, until
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

# A turn adds to a history that has to fit with it.
_TURN_TOKENS = (1, 2, 3, 5, 8, 12, 16, 24)
_NEW_TOKENS = (4, 1, 2, 3, 6, 8, 12, 20)


def _turn(draft: Draft, session: str, **more: object) -> str:
    """One more turn, usually short, once the one before has ended."""
    before = draft.sessions.get(session)
    if before is not None and not draft.turns_at_once:
        if draft.paused:
            draft.add(Continue())
        until(draft, before, "finished")
    length, new, family = draft.digits(len(_TURN_TOKENS), len(_NEW_TOKENS), FAMILIES)
    tokens = min(_TURN_TOKENS[length], sizes_of(draft.config).longest)
    return draft.start(
        prompt=Prompt(family=family, length=tokens),
        max_new_tokens=_NEW_TOKENS[new],
        session=SessionParams(session, **more),  # type: ignore[arg-type]
    )


def _first_turn(draft: Draft, session: str) -> str:
    """A turn with a prompt of one to three chunks, whose beginning others share."""
    chunks, extra, new, family = draft.digits(4, 4, len(_NEW_TOKENS), FAMILIES)
    sizes = sizes_of(draft.config)
    length = min(max(1, (sizes.chunk * (1 + chunks)) // 2 + extra), max(1, sizes.longest // 3))
    prompt = Prompt(family=family, length=length, unique_tail=min(extra, length))
    return draft.start(prompt=prompt, max_new_tokens=_NEW_TOKENS[new], session=SessionParams(session))


def _kept(draft: Draft) -> str:
    """A streaming session that has run a turn, so that it keeps KV; an older one half of the time."""
    (fresh,) = draft.digits(2)
    if draft.sessions and not fresh:
        return list(draft.sessions)[-1]
    session = draft.open_session()
    until(draft, _first_turn(draft, session), "finished")
    return session


@motif("sessions", weight=6)
def conversation(draft: Draft) -> None:
    """Turn after turn, with something done in between: the history cut or doubled, KV of another history reused."""
    session = draft.open_session(streaming=draft.digits(4)[0] != 3)
    for index in range(2 + draft.digits(3)[0]):
        name = _first_turn(draft, session) if index == 0 else _turn(draft, session)
        until(draft, name, "finished")
        between, turns = draft.digits(8, 8)
        if between == 0 and draft.has("flush_cache"):
            draft.add(FlushCache())
        elif between == 1 and draft.has("evict_radix"):
            draft.add(EvictRadix())
        elif between == 2:
            draft.start()
        elif between == 3:
            draft.add(Step(STEPS[turns]))


@motif("sessions", weight=8)
def turn_struck(draft: Draft) -> None:
    """A later turn reaches a stage and is aborted, retracted or flushed there, then another turn comes: what the
    session kept freed under the turn, freed twice, or never."""
    session = _kept(draft)
    stage, after = draft.digits(len(STAGES_TO_AIM_AT), 4)
    name = _turn(draft, session)
    until(draft, name, STAGES_TO_AIM_AT[stage])
    strike(draft, name)
    if after:
        _turn(draft, session)
        draft.step()


@motif("sessions", weight=4)
def first_turn_struck(draft: Draft) -> None:
    """The first turn ends by an abort or is retracted before anything was kept: row and lock change owners then."""
    session = draft.open_session()
    stage, after = draft.digits(len(STAGES_TO_AIM_AT), 4)
    name = _first_turn(draft, session)
    until(draft, name, STAGES_TO_AIM_AT[stage])
    strike(draft, name)
    if after:
        until(draft, _turn(draft, session), "finished")


@motif("sessions", "turns_at_once", weight=6)
def turns_at_once(draft: Draft) -> None:
    """A turn comes while another of its session runs, waits or has just been retracted: both on the same row."""
    session = _kept(draft)
    gap, second, more, retract = draft.digits(4, 4, 3, 4)
    _turn(draft, session)
    if gap:
        draft.add(Step(gap))
    if not retract and draft.has("pause"):
        draft.add(Pause("retract"), Continue())
    for _ in range(1 + more):
        _turn(draft, session)
        if second:
            draft.add(Step(second))


@motif("sessions", weight=4)
def closed_while_running(draft: Draft) -> None:
    """A session is closed in the middle of a turn, in a pause, or twice, perhaps opened again: its KV freed under the
    turn, or kept for ever."""
    session = _kept(draft)
    stage, how, wait, again = draft.digits(len(STAGES_TO_AIM_AT), 4, 8, 4)
    name = _turn(draft, session)
    until(draft, name, STAGES_TO_AIM_AT[stage])
    if how == 1 and draft.has("pause"):
        draft.add(Pause("retract"))
    draft.add(CloseSession(session))
    if how == 2 and draft.has("abort"):
        draft.add(Abort(name))
    if how == 3:
        draft.add(CloseSession(session))
    draft.add(Step(STEPS[wait]))
    if draft.paused:
        draft.add(Continue())
    if again:
        draft.add(Step(8 + again))
        _turn(draft, session)
        draft.step()


@motif("sessions", weight=4)
def sessions_fill_the_pool(draft: Draft) -> None:
    """Several sessions keep KV that nobody can evict while others want the pool: starvation, or a crash where it
    should have waited."""
    count, longer = draft.digits(3, 2)
    kept = []
    for _ in range(1 + count):
        session = draft.open_session()
        until(draft, _first_turn(draft, session), "finished")
        kept.append(session)
    burst(draft)
    for session in kept[: 1 + longer]:
        _turn(draft, session)
    draft.step()


@motif("sessions", "flush_cache", weight=3)
def flush_while_kept(draft: Draft) -> None:
    """A flush takes what a session keeps, perhaps with its next turn waiting in a pause: the turn runs on freed KV."""
    session = _kept(draft)
    before, paused, wait, after = draft.digits(3, 3, 4, 4)
    if paused and draft.has("pause"):
        _turn(draft, session)
        draft.add(Step(1 + before), Pause("retract"), Step(1))
    draft.add(FlushCache())
    if wait:
        draft.add(Step(wait))
    if draft.paused:
        draft.add(Continue())
    for _ in range(1 + (after == 3)):
        until(draft, _turn(draft, session), "finished")


@motif("sessions", weight=2)
def idle_session_ends(draft: Draft) -> None:
    """A session's time is over between two turns or while one runs or waits: closed under the turn."""
    seconds, new, wait = draft.digits(4, 3, 8)
    session = draft.open_session(timeout=(0.5, 1.0, 1.5, 2.0)[seconds])
    _first_turn(draft, session)
    if new:
        draft.start()
    draft.add(Step(2 * STEPS[wait] + 2))
    _turn(draft, session)
    draft.add(Step(8))


@motif("sessions", weight=2)
def branches(draft: Draft) -> None:
    """A plain session's requests continue, replace or cut each other: the wrong history, or a request aborted that
    nobody replaced."""
    session = draft.open_session(streaming=False)
    names = [_first_turn(draft, session)]
    until(draft, names[0], "finished")
    for _ in range(1 + draft.digits(3)[0]):
        how, parent, offset, wait = draft.digits(8, 4, 16, 4)
        rid = names[-1 - parent % len(names)]
        # Without `rid` a replacement is known to end the scheduler, so it is rare.
        fields: dict[str, object] = (
            {"rid": rid}, {"rid": rid}, {"rid": rid, "drop_previous_output": True}, {"rid": rid, "offset": offset},
            {"rid": rid, "replace": True}, {}, {"rid": rid, "replace": True, "drop_previous_output": True},
            {"replace": True} if offset == 15 else {"rid": rid},
        )[how]  # fmt: skip
        names.append(_turn(draft, session, **fields))
        if wait:
            until(draft, names[-1], "finished" if wait > 1 else "mid_decode")
