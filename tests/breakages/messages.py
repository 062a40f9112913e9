"""Breakages of what the scheduler sends: streams, usage, ends, replies, the load report."""

from __future__ import annotations

from typing import Any

from sr_fuzz.faults import triggered
from sr_fuzz.script import Action, EngineConfig, FlushCache, Prompt, StartReq, Step
from tests.breakages import sessions
from tests.breakages.breaking import ONE, call
from tests.breakages.lifecycle import RETRACTED
from tests.breakages.pools import FLUSH

_STREAMER, _REQ = "managers.scheduler_components.output_streamer", "managers.schedule_batch:Req"
_TOKENS, _VECTORS = "BatchTokenIDOutput", "BatchEmbeddingOutput"

EMBEDDING = EngineConfig(max_total_tokens=64, max_running_requests=4, is_embedding=True)

LOGPROBS: tuple[Action, ...] = (
    StartReq("r0", return_logprob=True, logprob_start_len=2, top_logprobs_num=2, ignore_eos=True), Step(12),
)  # fmt: skip

# Two requests of one batch, of which one asks for logprobs.
ONE_ASKS: tuple[Action, ...] = (
    StartReq("r0", ignore_eos=True), StartReq("r1", Prompt(family=1), return_logprob=True, ignore_eos=True), Step(12),
)  # fmt: skip

# -- streams ---------------------------------------------------------------------------------------------------


@call("streams:unknown_request", _STREAMER, _TOKENS)
def to_nobody(original, *args, rids, finished_reasons, **kwargs):
    """A message about a request that goes on is sent to somebody else."""
    if not any(finished_reasons):
        triggered()
        rids = ["nobody." for _ in rids]
    return original(*args, rids=rids, finished_reasons=finished_reasons, **kwargs)


@call("streams:tokens_missing", _STREAMER, _TOKENS)
def without_last_token(original, *args, output_ids, finished_reasons, **kwargs):
    """The message with the end of a request lacks its last token."""
    if any(finished_reasons):
        triggered()
        output_ids = [list(tokens)[:-1] for tokens in output_ids]
    return original(*args, output_ids=output_ids, finished_reasons=finished_reasons, **kwargs)


@call("streams:wrong_count", _STREAMER, _TOKENS)
def counted_one_more(original, *args, completion_tokens, **kwargs):
    """``completion_tokens`` is one too large."""
    triggered()
    return original(*args, completion_tokens=[count + 1 for count in completion_tokens], **kwargs)


_late: list[Any] = []


def _send_late(original, scheduler, messages):
    original(scheduler, messages)
    while _late:
        triggered()
        scheduler.ipc_channels.send_to_detokenizer.send_output(_late.pop())


_NEXT_STEP = {("managers.scheduler:Scheduler", "process_input_requests"): _send_late}


@call("streams:sent_after_finish", _STREAMER, _TOKENS, also=_NEXT_STEP)
def sent_after_finish(original, *args, finished_reasons, **kwargs):
    """The message with the end of a request is sent once more, without the end."""
    if any(finished_reasons):
        _late.append(original(*args, finished_reasons=[None for _ in finished_reasons], **kwargs))
    return original(*args, finished_reasons=finished_reasons, **kwargs)


@call("sessions:kv_beyond_history", _STREAMER, _TOKENS, sessions.NOT_STREAMED, sessions.CONFIG)
def told_nothing(original, *args, output_ids, **kwargs):
    """The client gets no token of a turn of which the session keeps the KV."""
    triggered()
    return original(*args, output_ids=[[] for _ in output_ids], **kwargs)


@call("sessions:kv_without_history", _STREAMER, _TOKENS, sessions.ONE_TURN, sessions.CONFIG)
def told_as_aborted(original, *args, finished_reasons, **kwargs):
    """The end of a turn, of which the session keeps the KV, is told to the client as an abort."""
    if any(finished_reasons):
        triggered()
        finished_reasons = [reason and {"type": "abort", "message": ""} for reason in finished_reasons]
    return original(*args, finished_reasons=finished_reasons, **kwargs)


@call("embeddings:no_vector", _STREAMER, _VECTORS, (StartReq("r0"), Step(2)), EMBEDDING)
def without_vector(original, *args, embeddings, **kwargs):
    """An embedding is sent without its vector."""
    triggered()
    return original(*args, embeddings=[None for _ in embeddings], **kwargs)


# -- usage -----------------------------------------------------------------------------------------------------


@call("usage:unasked_logprobs", _STREAMER, _TOKENS, ONE_ASKS)
def logprobs_for_all(original, *args, output_token_logprobs_val, output_token_logprobs_idx, **kwargs):
    """A request that did not ask for logprobs gets one with those of its batch."""
    if output_token_logprobs_val:
        triggered()
        output_token_logprobs_val = [part or [0.0] for part in output_token_logprobs_val]
        output_token_logprobs_idx = [part or [1] for part in output_token_logprobs_idx]
    return original(
        *args,
        output_token_logprobs_val=output_token_logprobs_val,
        output_token_logprobs_idx=output_token_logprobs_idx,
        **kwargs,
    )


@call("usage:wrong_cached_tokens@impossible", _STREAMER, _TOKENS)
def all_cached(original, *args, prompt_tokens, cached_tokens, **kwargs):
    """The whole prompt is said to be cached."""
    triggered()
    return original(*args, prompt_tokens=prompt_tokens, cached_tokens=prompt_tokens, **kwargs)


@call("usage:wrong_top_logprobs", _STREAMER, _TOKENS, LOGPROBS)
def without_top(original, *args, output_top_logprobs_val, **kwargs):
    """The top logprobs of the output are missing."""
    triggered()
    return original(*args, output_top_logprobs_val=[[] for _ in output_top_logprobs_val], **kwargs)


def _of_other_tokens(rule: str, name: str) -> None:
    @call(rule, _STREAMER, _TOKENS, LOGPROBS)
    def of_other_tokens(original, *args, **kwargs):
        """Logprobs are sent with other token ids."""
        kwargs[name] = [[token ^ 1 for token in part or ()] for part in kwargs[name]]
        triggered()
        return original(*args, **kwargs)


_of_other_tokens("usage:input_logprobs_of_other_tokens", "input_token_logprobs_idx")
_of_other_tokens("usage:output_logprobs_of_other_tokens", "output_token_logprobs_idx")

# -- outputs and ends ------------------------------------------------------------------------------------------


@call("oracle_output:prompt_changed", _REQ, "reset_for_retract", RETRACTED)
def other_prompt(original, req):
    """A retraction changes the first token of the prompt."""
    original(req)
    triggered()
    req.origin_input_ids[0] ^= 1


@call("oracle_output:wrong_length", _REQ, "update_finish_state")
def ended_early(original, req, *args, **kwargs):
    """A request ends one token before its limit."""
    limit = req.sampling_params.max_new_tokens
    req.sampling_params.max_new_tokens = limit - 1
    triggered()
    try:
        return original(req, *args, **kwargs)
    finally:
        req.sampling_params.max_new_tokens = limit


@call("oracle_output:stop_without_cause", _REQ, "_check_token_based_finish")
def stopped(original, req, *args, **kwargs):
    """A request stops at its third token, whatever it is."""
    from sglang.srt.managers.schedule_batch import FINISH_MATCHED_TOKEN

    if len(req.output_ids) < 3:
        return original(req, *args, **kwargs)
    triggered()
    req.finished_reason = FINISH_MATCHED_TOKEN(matched=req.output_ids[-1])
    req.finished_len = len(req.output_ids)
    return True


# -- replies ---------------------------------------------------------------------------------------------------

_FLUSHED: tuple[Action, ...] = (*ONE, FlushCache(), Step(2))


@call("control_replies:unasked_reply", FLUSH, "handle", _FLUSHED)
def two_replies(original, wrapper, message):
    """A flush is answered twice."""
    reply = original(wrapper, message)
    triggered()
    wrapper._send_output(reply, message)
    return reply


@call("liveness:flush_unanswered", FLUSH, "handle", alone="control_replies: the reply is missing")
def silent_flush(original, wrapper, message):
    """A flush is not answered."""
    original(wrapper, message)
    triggered()


@call("liveness:flush_refused", FLUSH, "handle")
def refused_flush(original, wrapper, message):
    """A flush is refused, although the engine is idle."""
    from sglang.srt.managers.io_struct import FlushCacheReqOutput

    triggered()
    return FlushCacheReqOutput(success=False)


def _misreported(field: str) -> None:
    @call(f"load:wrong_{field}", "managers.scheduler_components.load_inquirer:SchedulerLoadInquirer", "get_loads")
    def misreported(original, *args, **kwargs):
        """One number of the load report is one too large."""
        load = original(*args, **kwargs)
        triggered()
        setattr(load, field, getattr(load, field) + 1)
        return load


for _field in ("num_waiting_reqs", "num_running_reqs", "num_total_tokens", "token_usage"):
    _misreported(_field)


@call("sessions:two_turns_at_once", "session.session_controller:Session", "create_req", sessions.TWO_TURNS,
      sessions.CONFIG, alone="kv_pages: both turns take the row of the session")  # fmt: skip
def not_in_flight(original, session, *args, **kwargs):
    """A session takes a turn while another one is under way."""
    triggered()
    session._inflight = False
    return original(session, *args, **kwargs)
