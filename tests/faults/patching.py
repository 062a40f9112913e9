"""Replacing functions of SGLang while a fault is on, and the few facts about a request that differ by release."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def wrapped(owner: Any, name: str, wrapper: Callable[..., Any]) -> Iterator[None]:
    """While inside, calling ``owner.name`` calls ``wrapper(original, …)`` with the same arguments.

    ``owner`` is a class, or a module that calls the function by that name. Raises `AttributeError` where this SGLang
    has no such function: a fault that is not there must not look like one that nobody saw.
    """
    original = getattr(owner, name)

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    with patch.object(owner, name, replacement):
        yield


def was_aborted(req: Any) -> bool:
    """Whether the request has ended by an abort."""
    return req.finished() and req.finished_reason.to_json().get("type") == "abort"


def drop_lock(tree_cache: Any, req: Any) -> None:
    """Release the request's lock on the prefix tree, but leave the request in the belief that it holds it."""
    if hasattr(req, "lock"):
        tree_cache.unlock(req.lock)
        return
    receipt = getattr(req, "lock_receipt", None)
    tree_cache.dec_lock_ref(req.last_node, *([] if receipt is None else [receipt]))
