"""Plays a script through the public API of the scripted runtime only, SGLang's or ours, and records what it observes.

The same function on two engines gives two records; if they differ, the engines differ. It takes scripts that
`sr_fuzz.emit.public_api.to_public_api` has rewritten.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from sr_fuzz import script as s
from sr_fuzz.oracle.function import uniform_token
from sr_fuzz.play.stages import Progress, condition, reached
from sr_fuzz.script.text import action_text

# More steps than a script of a few hundred tokens needs, including retractions.
_DRAIN_STEPS = 2000


def play(t: Any, script_json: str, record_path: str) -> Generator:
    """Play the script; write to ``record_path``, as JSON, ``steps`` and ``outputs``.

    ``steps``: for each step the forward mode of the last batch and `batch_composition`, by name. ``outputs``: the
    output token ids of each request that was ever in a queue or a batch, by name.
    """
    player = _Player(t, s.from_json(script_json))
    yield from player.play()
    record = {"steps": player.steps, "outputs": player.outputs}
    Path(record_path).write_text(json.dumps(record))


class _Player:
    def __init__(self, t: Any, script: s.Script) -> None:
        self.steps: list[dict[str, Any]] = []
        self._t = t
        self._script = script
        self._handles: dict[str, Any] = {}
        self._starts: dict[str, s.StartReq] = {}
        self._ballast: list[Any] = []
        self._seen: dict[str, Any] = {}

    @property
    def outputs(self) -> dict[str, list[int]]:
        handles = {name: self._seen.get(handle.rid) for name, handle in self._handles.items()}
        return {name: list(req.output_ids) for name, req in handles.items() if req is not None}

    def play(self) -> Generator:
        for action in self._script.actions:
            match action:
                case s.Step(n=n):
                    for _ in range(n):
                        yield from self._step()
                case s.StepUntil():
                    yield from self._step_until(action)
                case _:
                    self._send(action)
        yield from self._end()

    def _step(self) -> Generator:
        yield
        self._seen.update((req.rid, req) for req in self._t.list_active_reqs())
        names = {handle.rid: name for name, handle in self._handles.items()}
        batches = {
            kind: [names.get(rid, "ballast") for rid in rids] for kind, rids in self._t.batch_composition().items()
        }
        self.steps.append({"mode": self._t.last_batch_forward_mode, **batches})

    def _step_until(self, action: s.StepUntil) -> Generator:
        for _ in range(action.max_steps):
            if self._reached(action):
                return
            yield from self._step()

    def _end(self) -> Generator:
        self._t._release_exhausted_pools()
        for handle in self._ballast:
            if not handle.finished:
                self._t.abort(handle)
        self._t.continue_generation()
        for _ in range(_DRAIN_STEPS):
            yield from self._step()
            if self._t.is_fully_idle:
                return
        raise AssertionError(f"still busy after {_DRAIN_STEPS} steps: {self._t.batch_composition()}")

    # -- sending -----------------------------------------------------------------------------------------------

    def _send(self, action: s.Action) -> None:
        t = self._t
        match action:
            case s.StartReq():
                self._start(action)
            case s.Pause(mode=mode):
                t.pause_generation(mode=mode)
            case s.Continue():
                t.continue_generation()
            case s.Abort(name=name):
                # The tokenizer manager does not pass on an abort of a finished request, so its arrival would never
                # come.
                if not self._handles[name].finished:
                    t.abort(self._handles[name])
            case s.AbortAll():
                t.abort_all()
            case s.FlushCache():
                t.flush_cache()
            case s.ExhaustKv(leave_pages=pages):
                t.exhaust_kv(leave_pages=pages)
            case s.ExhaustLockRefs(leave_refs=refs):
                t.exhaust_lock_refs(leave_refs=refs)
            case s.ExhaustRows(leave_rows=rows):
                self._exhaust_rows(rows)
            case _:
                raise ValueError(f"{action_text(action)}: not in the public API; translate the script first")

    def _start(self, start: s.StartReq) -> None:
        logprobs: dict[str, Any] = {}
        if start.return_logprob:
            logprobs = {"logprob_start_len": start.logprob_start_len, "top_logprobs_num": start.top_logprobs_num}
        self._starts[start.name] = start
        self._handles[start.name] = self._t.start_req(
            # No explicit rid: two seconds after a stream's end SGLang aborts its rid again, even if a new request uses
            # it.
            prompt_len=start.prompt.length,
            prompt_token=uniform_token(start.prompt.family),
            max_new_tokens=start.max_new_tokens,
            ignore_eos=start.ignore_eos,
            stop_token_ids=list(start.stop_token_ids) or None,
            priority=start.priority,
            return_logprob=start.return_logprob,
            **logprobs,
        )

    def _exhaust_rows(self, leave: int) -> None:
        rows = self._t.engine_stats()["req_pool_free"] - leave
        for _ in range(rows):
            new_tokens = max(8, self._script.config.max_total_tokens // (2 * rows))
            self._ballast.append(self._t.start_req(prompt_len=1, max_new_tokens=new_tokens, ignore_eos=True))

    # -- stages ------------------------------------------------------------------------------------------------

    def _reached(self, action: s.StepUntil) -> bool:
        handle, start = self._handles[action.name], self._starts[action.name]
        now = Progress(
            chunks=handle.chunks_done,
            tokens=len(handle.req.output_ids) if handle.req is not None else 0,
            waiting=handle.status == "waiting",
            retracted=handle.req is not None and handle.req.retraction_count > 0,
            ended=handle.finished,
        )
        clipped = handle.req.sampling_params.max_new_tokens if handle.req is not None else None
        wanted = condition(action, start, self._script.config, max_new_tokens=clipped)
        return reached(wanted, now)
