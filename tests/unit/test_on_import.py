"""Importing SGLang's modules in a test file, where the import fails without a GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sr_fuzz.cpu import import_hook, standins

NAME = "sr_fuzz_test_vision"


@pytest.fixture
def mends(monkeypatch, tmp_path):
    """One entry for each patch of the imports, which also leaves a file beside the imported module."""
    log = []

    def mend():
        log.append("mended")
        (tmp_path / "mended").touch()

    monkeypatch.setattr(import_hook, "_FAILS", NAME)
    monkeypatch.setattr(standins, "mend_imports", mend)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.syspath_prepend(tmp_path)
    import_hook.mend_when_imported()
    import_hook.mend_when_imported()
    yield log
    sys.modules.pop(NAME, None)


def test_an_import_that_goes_well_is_left_alone(mends, tmp_path):
    (tmp_path / f"{NAME}.py").write_text("value = 1\n")
    assert __import__(NAME).value == 1
    assert mends == []


def test_an_import_that_fails_is_mended_and_tried_once_more(mends, tmp_path):
    source = "import pathlib\nif not (pathlib.Path(__file__).parent / 'mended').exists():\n    raise RuntimeError\n"
    (tmp_path / f"{NAME}.py").write_text(source + "value = 1\n")
    assert __import__(NAME).value == 1
    assert mends == ["mended"]


def test_an_import_that_fails_again_fails(mends, tmp_path):
    (tmp_path / f"{NAME}.py").write_text("raise RuntimeError('still broken')\n")
    with pytest.raises(RuntimeError, match="still broken"):
        __import__(NAME)
    assert mends == ["mended"]


def test_a_module_that_is_not_there_is_still_not_found(mends):
    with pytest.raises(ModuleNotFoundError):
        __import__(NAME)


def test_a_test_file_imports_what_every_test_of_sglang_imports():
    code = "import sr_fuzz.testing.scripted_runtime; from sglang.test.ci.ci_register import register_cuda_ci"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
