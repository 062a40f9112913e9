"""What a fault records: reached and triggered, counted for the fault that the code belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sr_fuzz.faults import api as faults
from sr_fuzz.faults import fault, reached, triggered, wrapped


class Counter:
    def add(self, number: int) -> int:
        return number

    def take(self, number: int) -> int:
        return -number


@fault("wrong_sum", stands_for="a test", expected=("sums",), sets=("paged",))
def wrong_sum():
    def add(original, counter, number):
        if number > 2:
            triggered()
            return original(counter, number) + 1
        return original(counter, number)

    return wrapped(Counter, "add", add)


@fault("wrong_difference", stands_for="a test", expected=("sums",))
def wrong_difference():
    def take(original, counter, number):
        counter.add(1)
        triggered()
        return original(counter, number)

    return wrapped(Counter, "take", take)


@contextmanager
def bare() -> Iterator[None]:
    def take(self: Counter, number: int) -> int:
        reached()
        if number:
            triggered()
        return 0

    honest, Counter.take = Counter.take, take
    try:
        yield
    finally:
        Counter.take = honest


def test_a_fault_is_reached_where_it_is_patched_in_and_triggered_where_it_says_so():
    with wrong_sum():
        assert faults.counts() == {"wrong_sum": (0, 0)}
        assert [Counter().add(number) for number in (1, 2, 3)] == [1, 2, 4]
        assert faults.counts() == {"wrong_sum": (3, 1)}
        faults.reset_counts()
        assert faults.counts() == {"wrong_sum": (0, 0)}
    assert Counter().add(3) == 3 and faults.counts() == {}


def test_each_of_several_faults_is_counted_for_itself():
    with wrong_sum(), wrong_difference():
        Counter().take(1)
        assert faults.counts() == {"wrong_sum": (1, 0), "wrong_difference": (1, 1)}


@pytest.fixture
def nothing_stays_active(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(faults, "_active", {})
    yield
    for manager in faults._active.values():
        manager.__exit__(None, None, None)


def test_a_bare_context_manager_is_a_fault_named_after_itself(nothing_stays_active: None):
    path = f"{__name__}:bare"
    faults.activate([path, path])
    Counter().take(0)
    Counter().take(1)
    assert faults.counts() == {"bare": (2, 1)}
    assert (faults.as_fault(path).name, faults.as_fault(path).sets) == ("bare", ("default",))


def test_what_nobody_can_attribute_is_not_counted():
    with wrong_sum(), wrong_difference():
        triggered()
        reached("no such fault")
        triggered("wrong_sum")
        assert faults.counts() == {"wrong_sum": (1, 1), "wrong_difference": (0, 0)}


def test_a_function_that_this_sglang_does_not_have_is_an_error():
    with pytest.raises(AttributeError, match="multiply"):
        with wrapped(Counter, "multiply", lambda original: 0):
            pass


def test_the_name_of_a_fault_is_that_of_its_function():
    """Who reads an outcome knows the import path of a fault and not what is written in it."""
    with pytest.raises(ValueError, match="fault 'another': its name must be that of its function, 'mine'"):

        @fault("another", stands_for="a test", expected=())
        def mine():
            yield
