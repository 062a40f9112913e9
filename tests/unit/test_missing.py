"""What excuses an error: a name that the contract says is missing, read by us; nothing else."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from sr_fuzz.script.errors import UnsupportedVersion
from sr_fuzz.sglang_api.contract_table import Name
from sr_fuzz.sglang_api.missing import MissingNames
from sr_fuzz.sglang_api.partial import Partial
from sr_fuzz.sglang_api.requests import Request

PRIORITY = Name("srt.managers.schedule_batch", ("Req.priority",), "view", "", unchecked=("priority",))
MODULE = Name("json.tool_that_is_not_there", ("",), "view", "lost")
MISSING = MissingNames([PRIORITY])


def raised(read) -> BaseException:
    with pytest.raises((AttributeError, ImportError, UnsupportedVersion)) as caught:
        read()
    return caught.value


def ours() -> object:
    """What has no priority, read by our own code."""
    return Request(SimpleNamespace(rid="r0")).priority


def test_a_missing_name_read_by_us_is_excused():
    assert MISSING.excuse(raised(ours)) == "this SGLang has no Req.priority"


def test_without_the_row_it_is_a_mistake_of_ours():
    assert MissingNames().excuse(raised(ours)) is None


def test_another_name_is_no_excuse():
    assert MISSING.excuse(raised(lambda: Request(SimpleNamespace()).rid)) is None


def test_sglangs_own_error_is_a_finding():
    """The same name, missing in a frame that is not ours."""
    namespace = {"__name__": "sglang.srt.managers.scheduler"}
    exec("def step(req):\n    return req.priority\n", namespace)
    assert MISSING.excuse(raised(lambda: namespace["step"](SimpleNamespace()))) is None


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("from sglang_gone.io_struct import Pause", Name("io_struct", ("Pause",), "", "lost")),
        ("from sglang_gone import io_struct", Name("io_struct", ("",), "", "lost")),
        ("import sglang_gone.io_struct", Name("io_struct", ("",), "", "lost")),
    ],
)
def test_imports_are_excused_by_name_module_and_package(monkeypatch: pytest.MonkeyPatch, statement: str, row: Name):
    """``sglang_gone`` stands for SGLang; the frame that imports is made one of ours."""
    package, module = ModuleType("sglang"), ModuleType("sglang.io_struct")
    package.__path__ = []
    source = statement.replace("sglang_gone", "sglang")
    modules = {"sglang": package} | ({"sglang.io_struct": module} if "Pause" in source else {})
    for name, stand_in in modules.items():
        monkeypatch.setitem(sys.modules, name, stand_in)
    if "Pause" not in source:
        monkeypatch.delitem(sys.modules, "sglang.io_struct", raising=False)
    error = raised(lambda: exec(source, {"__name__": "sr_fuzz.sglang_api.reader"}))
    assert MissingNames([row]).excuse(error) is not None
    assert MissingNames([Name("other", ("Other",), "", "lost")]).excuse(error) is None


def test_a_default_takes_the_place_of_what_is_missing_alone():
    assert MISSING.or_default(ours, 3) == 3
    with pytest.raises(AttributeError):
        MissingNames().or_default(ours, 3)


def test_an_action_of_another_release_is_excused_in_its_own_words():
    assert MISSING.excuse(UnsupportedVersion("this SGLang has no message Pause")) == "this SGLang has no message Pause"


def test_a_field_that_could_not_be_read_raises_where_it_is_asked_for():
    partial = Partial()
    partial.take("there", lambda: 1)
    partial.take("gone", ours)
    assert partial.there == 1
    assert MISSING.excuse(raised(lambda: partial.gone)) == "this SGLang has no Req.priority"
    assert MISSING.excuse(raised(lambda: partial.never)) is None
