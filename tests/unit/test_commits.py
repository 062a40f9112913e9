"""The commits of a git repository, and the sources of each; the repositories have no more in them than git needs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.commits import Commits, commits_between
from tests.repositories import Repository

SCHEDULER = "sglang/srt/managers/scheduler.py"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "sglang")
    made.commit("first", {f"python/{SCHEDULER}": "first\n", "python/pyproject.toml": ""})
    return made


def subjects(commits: Commits) -> list[str]:
    return [commit.subject for commit in commits.line]


def test_the_line_begins_with_the_older_end_and_leaves_out_what_changes_no_sources(repository: Repository):
    repository.commit("readme", {"README.md": "words"})
    repository.commit("second", {f"python/{SCHEDULER}": "second\n"})
    repository.commit("words", {"README.md": "other words"})
    found = commits_between(repository.folder, "HEAD~3", "HEAD")
    assert subjects(found) == ["first", "second"] and not found.is_reversed
    turned = commits_between(repository.folder, "HEAD", "HEAD~3")
    assert subjects(turned) == ["first", "second"] and turned.is_reversed


def test_a_merge_stands_for_what_it_brought(repository: Repository):
    repository.git("checkout", "-q", "-b", "side")
    repository.commit("on the side", {"python/side.py": ""})
    repository.git("checkout", "-q", "-")
    repository.commit("on the line", {"python/line.py": ""})
    repository.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    assert subjects(commits_between(repository.folder, "HEAD~2", "HEAD")) == ["first", "on the line", "merge"]


def test_a_commit_is_written_out_alone_and_removed(repository: Repository):
    repository.commit("second", {f"python/{SCHEDULER}": "second\n", "python/new.py": "", "README.md": "words"})
    before = repository.state()
    found = commits_between(repository.folder, "HEAD~1", "HEAD")
    for commit, content in zip(found.line, ("first\n", "second\n")):
        with found.exported(commit) as folder:
            assert (folder / SCHEDULER).read_text() == content
            assert (folder / "new.py").exists() == (content == "second\n")
            assert not (folder / "README.md").exists()
        assert not folder.parent.exists()
    assert repository.state() == before, "the repository is only read"


def test_it_is_removed_after_an_interrupt_and_though_something_was_written_there(repository: Repository):
    repository.commit("second", {"python/new.py": ""})
    found = commits_between(repository.folder, "HEAD~1", "HEAD")
    with pytest.raises(KeyboardInterrupt), found.exported(found.line[0]) as folder:
        (folder / "sglang" / "__pycache__").mkdir()
        raise KeyboardInterrupt
    assert not folder.parent.exists()


def test_a_package_at_the_top_links_and_a_repository_without_a_working_tree(tmp_path: Path):
    made = Repository(tmp_path / "flat")
    made.commit("first", {SCHEDULER: "first\n", "sglang/link.py": tmp_path / "elsewhere.py"})
    made.commit("second", {SCHEDULER: "second\n"})
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(made.folder), str(bare)], check=True)
    for place in (made.folder, made.folder / "sglang", bare):
        found = commits_between(place, "HEAD~1", "HEAD")
        with found.exported(found.line[1]) as folder:
            assert (folder / SCHEDULER).read_text() == "second\n"
            assert os.readlink(folder / "sglang" / "link.py") == str(tmp_path / "elsewhere.py")


def test_git_variables_of_another_repository_do_not_matter(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    repository.commit("second", {"python/new.py": ""})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert subjects(commits_between(repository.folder, "HEAD~1", "HEAD")) == ["first", "second"]


@pytest.mark.parametrize(
    ("one", "other", "complaint"),
    [
        ("HEAD", "no-such", "'no-such': no commit of"),
        ("--all", "HEAD", "'--all': no commit of"),
        ("", "HEAD", "'': no commit of"),
        ("HEAD\0", "HEAD", "no commit of"),
        ("HEAD", "HEAD", "HEAD and HEAD are one commit"),
        ("HEAD~1", "HEAD", "has changed python/"),
        ("side", "HEAD", "side and HEAD lie on two lines: neither comes before the other"),
    ],
)
def test_bad_ends_are_one_line(repository: Repository, one: str, other: str, complaint: str):
    repository.git("branch", "side")
    repository.commit("readme", {"README.md": "words"})
    repository.git("checkout", "-q", "side")
    repository.commit("aside", {"python/x.py": ""})
    repository.git("checkout", "-q", "-")
    with pytest.raises(EngineError) as caught:
        commits_between(repository.folder, one, other)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_repository_of_sglang_is_one_line(tmp_path: Path):
    with pytest.raises(EngineError, match="there is no such folder"):
        commits_between(tmp_path / "nowhere", "a", "b")
    with pytest.raises(EngineError, match="not a git repository"):
        commits_between(tmp_path, "a", "b")
    made = Repository(tmp_path / "other")
    made.commit("first", {"README.md": "words"})
    made.commit("second", {"README.md": "other words"})
    with pytest.raises(EngineError, match="no repository of SGLang: there is no python/sglang/srt"):
        commits_between(made.folder, "HEAD~1", "HEAD")


def test_without_git_it_says_so(repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="there is no program called git"):
        commits_between(repository.folder, "HEAD~1", "HEAD")


def test_a_branch_beside_the_older_end_is_left_out(repository: Repository):
    """Of a history that was merged in, commits may be older than the older end, and lack what it has."""
    repository.git("checkout", "-q", "-b", "side")
    repository.commit("on the side", {"python/side.py": ""})
    repository.git("checkout", "-q", "-")
    repository.commit("older end", {"python/line.py": ""})
    repository.git("tag", "older")
    repository.git("checkout", "-q", "side")
    repository.git("merge", "-q", "--no-ff", "-m", "merge of the line", "older")
    assert subjects(commits_between(repository.folder, "older", "HEAD")) == ["older end", "merge of the line"]


def test_hooks_of_the_repository_are_not_run(repository: Repository, tmp_path: Path):
    repository.commit("second", {f"python/{SCHEDULER}": "second\n"})
    hook = repository.folder / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'run'}\n")
    hook.chmod(0o755)
    found = commits_between(repository.folder, "HEAD~1", "HEAD")
    with found.exported(found.line[0]):
        assert not (tmp_path / "run").exists()
