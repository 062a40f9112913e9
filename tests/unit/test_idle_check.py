"""While pages are held, SGLang's idle check is lenient; afterwards it is restored to the user's setting."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("torch")

from sr_fuzz.runtime.exhausters import _IDLE_CHECK, _IdleCheck


@pytest.mark.parametrize("users", [None, "true", "0"])
def test_the_users_setting_comes_back(monkeypatch: pytest.MonkeyPatch, users: str | None):
    monkeypatch.delenv(_IDLE_CHECK, raising=False)
    if users is not None:
        monkeypatch.setenv(_IDLE_CHECK, users)
    check = _IdleCheck()
    check.restore()
    assert os.environ.get(_IDLE_CHECK) == users, "nothing was held"
    for _ in range(2):
        check.be_lenient()
        check.be_lenient()
        assert os.environ[_IDLE_CHECK] == "false"
        check.restore()
        assert os.environ.get(_IDLE_CHECK) == users
