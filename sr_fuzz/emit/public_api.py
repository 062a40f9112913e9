"""Translates a script to the public API of SGLang's own scripted runtime, as far as that API can express it.

The API sends prompts of equal tokens over HTTP and waits for the arrival of each message. So prompts become uniform,
and a message that the tokenizer manager would not pass on at that moment (a request while paused, a second abort of one
request) is moved or dropped. What the API cannot express raises `NotExpressible`.

The result is a different script. The caller has to run it to see whether it still shows the violation.
"""

from __future__ import annotations

from msgspec.structs import replace

from sr_fuzz.oracle.function import all_prompt_tokens, continuation, prompt_tokens, uniform_token
from sr_fuzz.oracle.settings import output_window
from sr_fuzz.script import (
    EOS_TOKEN_ID,
    VOCAB_SIZE,
    Abort,
    AbortAll,
    Action,
    CloseSession,
    Continue,
    EngineConfig,
    EvictRadix,
    ExhaustKv,
    ExhaustLockRefs,
    ExhaustRows,
    FlushCache,
    OpenSession,
    Pause,
    Prompt,
    Release,
    Script,
    StartReq,
    Step,
    StepUntil,
)
from sr_fuzz.script.defaults import defaults_of
from sr_fuzz.script.text import action_text

_TOKENS = VOCAB_SIZE - 3
"""Tokens that a uniform prompt may consist of."""


class NotExpressible(ValueError):
    """SGLang's public API cannot express this. The message is one line: what, and why."""


def to_public_api(script: Script, *, share_prefixes: bool = True) -> Script:
    """Rewrite ``script`` so that SGLang's ``ScriptedContext`` can play it; one that it can play is returned unchanged.

    ``share_prefixes``: prompts of a family stay in one family, so that the shorter one is a prefix of the longer one;
    otherwise each request gets its own family. Raises `NotExpressible`.
    """
    if script.config.world_size > 1:
        raise NotExpressible(f"config: only one scheduler process can be driven, not {script.config.world_size}")
    if script.config.model != "dense":
        raise NotExpressible(f"config.model: the tests there name a model of full attention, not {script.config.model}")
    if script.config.is_embedding:
        raise NotExpressible("config.is_embedding: SGLang's scripted runtime starts generate requests only")
    if script.config.enable_lora:
        raise NotExpressible("config.enable_lora: a test there needs adapters in folders, made for the model it names")
    translation = _Translation(script.config)
    for index, action in enumerate(script.actions):
        try:
            translation.add(action)
        except NotExpressible as error:
            raise NotExpressible(f"actions[{index}] {action_text(action)}: {error}") from None
    return Script(script.config, _prompts_set(translation.end(), script.config, share_prefixes), script.format)


# -- prompts ---------------------------------------------------------------------------------------------------


def _prompts_set(actions: list[Action], config: EngineConfig, share_prefixes: bool) -> tuple[Action, ...]:
    """Replace all prompts by uniform ones; each family gets its own token."""
    groups: dict[int, list[StartReq]] = {}
    families: dict[str, int] = {}
    tokens = all_prompt_tokens(actions, output_window(config.model))
    for index, action in enumerate(actions):
        if isinstance(action, StartReq):
            # A prompt with ``after`` shares a prefix with that request, as a prompt of its family would.
            families[action.name] = families.get(action.prompt.after or "", action.prompt.family)
            groups.setdefault(families[action.name] if share_prefixes else index, []).append(action)
    prompts: dict[str, Prompt] = {}
    taken: set[int] = set()
    for asked, starts in groups.items():
        family = _family(starts, tokens, config, taken, first=asked if share_prefixes else 0)
        taken.add(uniform_token(family))
        prompts |= {s.name: Prompt(family=family, length=s.prompt.length, uniform=True) for s in starts}
    return tuple(replace(a, prompt=prompts[a.name]) if isinstance(a, StartReq) else a for a in actions)


def _family(
    starts: list[StartReq], tokens: dict[str, list[int]], config: EngineConfig, taken: set[int], *, first: int
) -> int:
    """Return the unused family with which these requests end most nearly where they ended before.

    On the oracle the prompt decides when EOS or a stop token comes, and so which requests share a batch.
    """
    wanted = [_output_length(start, tokens[start.name], config) for start in starts]

    def distance(family: int) -> int:
        prompts = [Prompt(family=family, length=start.prompt.length, uniform=True) for start in starts]
        uniform = [prompt_tokens(prompt, "") for prompt in prompts]
        found = [_output_length(start, prompt, config) for start, prompt in zip(starts, uniform, strict=True)]
        return sum(abs(a - b) for a, b in zip(wanted, found, strict=True))

    # With more families than tokens, some families must share a token.
    free = [f for f in (first, *range(_TOKENS)) if uniform_token(f) not in taken] or [first]
    best, least = first, None
    for family in free:
        far = distance(family)
        if least is None or far < least:
            best, least = family, far
        if not far:
            break
    return best


def _output_length(start: StartReq, prompt: list[int], config: EngineConfig) -> int:
    """Return the number of output tokens on the oracle when the request runs alone; the pool is the upper bound."""
    longest = min(start.max_new_tokens, config.max_total_tokens)
    if start.ignore_eos:
        return longest
    stops = {EOS_TOKEN_ID, *start.stop_token_ids}
    output = continuation(prompt)
    return next((count for count in range(1, longest) if next(output) in stops), longest)


# -- actions ---------------------------------------------------------------------------------------------------


# The fields that the API's ``start_req`` takes, and ``stream``: its requests always stream.
_START_FIELDS = {
    "name", "prompt", "max_new_tokens", "ignore_eos", "stop_token_ids", "priority", "return_logprob",
    "logprob_start_len", "top_logprobs_num", "stream",
}  # fmt: skip


def _check_fields(start: StartReq) -> None:
    for field, default in defaults_of(start).items():
        value = getattr(start, field)
        if field not in _START_FIELDS and value != default:
            shown = "a session" if field == "session" else f"{field}={value}"
            raise NotExpressible(f"SGLang's scripted runtime starts no request with {shown}")


class _Translation:
    """The translated actions so far, and the state of the tokenizer manager at that point."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._actions: list[Action] = []
        self._started: set[str] = set()
        self._aborted: set[str] = set()
        self._paused = False
        self._held_back: list[StartReq] = []
        self._late: list[Abort | AbortAll] = []
        self._flushed_in_step = False
        self._holding = False
        self._released = False

    def add(self, action: Action) -> None:
        if self._released and not isinstance(action, Release):
            raise NotExpressible("what an exhauster holds is only given back when the script is over")
        if isinstance(action, StartReq):
            _check_fields(action)
        match action:
            case OpenSession() | CloseSession():
                raise NotExpressible("SGLang's scripted runtime has no call for sessions")
            case StartReq():
                self._start(replace(action, stream=True))
            case Step():
                self._step(action)
            case StepUntil():
                self._step_until(action)
            case Pause(mode="abort") | AbortAll(await_arrival=True):
                # In mode ``abort`` the tokenizer manager aborts all requests and pauses only itself, not the scheduler.
                self._abort_all()
            case Abort(await_arrival=True):
                self._abort(action.name)
            case Abort() | AbortAll():
                self._late.append(action)
            case Pause():
                self._paused = True
                self._actions.append(action)
            case Continue():
                self._continue(action)
            case FlushCache():
                # A second flush waits in the tokenizer manager for the reply to the first one.
                if not self._flushed_in_step:
                    self._actions.append(action)
                self._flushed_in_step = True
            case Release():
                self._released = self._holding
            case _:
                self._exhaust(action)
                self._holding = True

    def end(self) -> list[Action]:
        """Return all actions, after the last one was added."""
        if self._late:
            self._one_step()
        if self._held_back:
            self._continue(Continue())
        return self._actions

    def _start(self, action: StartReq) -> None:
        if self._paused:
            self._held_back.append(action)
            return
        self._started.add(action.name)
        self._actions.append(action)

    def _continue(self, action: Continue) -> None:
        self._actions.append(action)
        self._paused = False
        held, self._held_back = self._held_back, []
        for start in held:
            self._start(start)

    def _abort(self, name: str) -> None:
        self._held_back = [start for start in self._held_back if start.name != name]
        # The tokenizer manager passes on one abort per request, and only for a request that it has sent.
        if name in self._started - self._aborted:
            self._aborted.add(name)
            self._actions.append(Abort(name))

    def _abort_all(self) -> None:
        self._held_back.clear()
        self._aborted |= self._started
        self._actions.append(AbortAll())

    def _step(self, action: Step) -> None:
        left = action.n
        if self._late:
            self._one_step()
            left -= 1
        if left:
            self._actions.append(Step(left))
        self._flushed_in_step = False

    def _one_step(self) -> None:
        """Add one step, after which the messages sent with ``await_arrival=False`` arrive."""
        self._actions.append(Step(1))
        self._flushed_in_step = False
        late, self._late = self._late, []
        for action in late:
            if isinstance(action, Abort):
                self._abort(action.name)
            else:
                self._abort_all()

    def _step_until(self, action: StepUntil) -> None:
        # No request makes progress while paused, and a request that was never started reaches no stage.
        if self._paused or action.name not in self._started:
            return self._step(Step(action.max_steps))
        if self._late:
            self._one_step()
        self._actions.append(action)
        self._flushed_in_step = False

    def _exhaust(self, action: Action) -> None:
        match action:
            case ExhaustKv(leave_pages=pages):
                if pages <= self._config.max_total_tokens // self._config.page_size:
                    self._actions.append(action)
            case ExhaustLockRefs():
                self._actions.append(action)
            case ExhaustRows() if self._paused:
                raise NotExpressible("a paused server holds new requests back, ballast too")
            case ExhaustRows():
                self._actions.append(action)
            case EvictRadix():
                raise NotExpressible("the API evicts by flushing the whole cache, not through the tree's evict")
            case _:
                raise NotExpressible("no such call in the API")
