"""The guarantees of the version-adapting module: which releases run, and the same answers from every release.

SGLang is not imported: small stand-ins imitate the layouts of its releases.
"""

from __future__ import annotations

import json
import sys
from inspect import Parameter, Signature
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from sr_fuzz.engine import settings
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.errors import UnsupportedVersion
from sr_fuzz.sglang_api import request_state, seams, versions

# -- which releases --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", ["0.5.16", "0.5.19", "0.5.20.post1", "0.5.22rc1", "0.5.23", "0.5.23+cpu"])
def test_nothing_is_said_of_a_version_that_was_tested(found):
    assert versions.untested(found) is None


@pytest.mark.parametrize(
    "found",
    ["0.5.15", "0.5.15.post2", "0.5.24.dev137+g1a2b3c4", "0.6.0", "1!0.5.20", "0.0.0.dev0", "unknown (tree /x)"],
)
def test_any_other_version_is_worth_one_line(found):
    remark = versions.untested(found)
    assert "\n" not in remark and "tested with 0.5.16 to 0.5.23" in remark and found.split()[0] in remark


def test_a_bug_of_some_releases_may_be_in_a_tree_without_a_version():
    found = ["0.5.21", "0.5.24.dev3+gabc", "unknown (tree /x)", None]
    assert [versions.is_among(version, "<0.5.22") for version in found] == [True, False, None, None]


def _package(folder: Path, version: str | None, name: str = "somepackage") -> Path:
    """A package's folder; ``version`` is the content of its ``_version.py``, None for a package without one."""
    (folder / name).mkdir(parents=True)
    if version:
        (folder / name / "_version.py").write_text(f"__version__ = version = {version!r}\n__version_tuple__ = (0, 5)\n")
    return folder / name


def _distribution(folder: Path, version: str, name: str = "somepackage", editable: Path | None = None) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if editable is not None:
        (info / "direct_url.json").write_text(json.dumps({"url": editable.as_uri(), "dir_info": {"editable": True}}))


def test_the_version_is_that_of_the_imported_package_not_of_the_installed_one(tmp_path, monkeypatch):
    _distribution(tmp_path / "installed", "0.5.23")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    assert versions.version_in(_package(tmp_path / "unpacked", "0.5.16")) == "0.5.16"


def test_without_a_version_file_the_distribution_beside_the_package_tells(tmp_path, monkeypatch):
    _distribution(tmp_path / "installed", "0.5.23")
    _distribution(tmp_path / "unpacked", "0.5.18")
    for folder in ("unpacked", "installed"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    assert versions.version_in(_package(tmp_path / "unpacked", None)) == "0.5.18"


@pytest.mark.parametrize("project", ["a tree", "a tree/python"])
def test_a_tree_that_is_installed_editable_has_the_version_it_was_installed_with(tmp_path, monkeypatch, project):
    """The project is the folder with ``pyproject.toml``: ``python`` in SGLang's checkout."""
    _distribution(tmp_path / "installed", "0.5.24.dev3", editable=tmp_path / project)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    assert versions.version_in(_package(tmp_path / "a tree" / "python", None)) == "0.5.24.dev3"
    assert versions.version_in(_package(tmp_path / "another", None)) == f"unknown (tree {tmp_path / 'another'})"


def test_whatever_a_tree_says_is_one_short_line(tmp_path):
    package = _package(tmp_path / "odd", "0.5")
    (package / "_version.py").write_text("__version__ = '\x1b[31m" + "9" * 300_000 + "'\n")
    found = versions.version_in(package)
    assert found.isprintable() and len(found) <= 80
    assert "\n" not in versions.untested(found) and versions.is_among("9" * 5000, "<0.5.22") is None


def test_a_source_tree_that_does_not_say_its_version_has_none_of_another_installation(tmp_path, monkeypatch):
    _distribution(tmp_path / "installed", "0.5.23")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    tree = _package(tmp_path / "checkout", None)
    assert versions.version_in(tree) == f"unknown (tree {tmp_path / 'checkout'})"


# -- booting ---------------------------------------------------------------------------------------------------


def _args_class(known: set[str], *, resolves: bool) -> type:
    """``ServerArgs`` of a release that has the settings in ``known`` and no others."""

    class Args:
        __signature__ = Signature([Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in sorted(known)])

        def __init__(self, **given):
            assert set(given) <= known
            self.given, self.done = given, []

        def check_server_args(self) -> None:
            self.done.append("checked")

    if resolves:
        Args.resolve_once = lambda self: self.done.append("resolved")
    return Args


_FIXED = {
    "model_path", "device", "load_format", "skip_tokenizer_init", "attention_backend", "sampling_backend", "dtype",
    "random_seed", "log_level", "watchdog_timeout", "mem_fraction_static",
}  # fmt: skip


@pytest.fixture
def release(monkeypatch):
    """Install a mock of SGLang: ``release("sglang.srt.server_args", ServerArgs=…)`` adds a module with these names."""

    def install(name: str, **attributes: object) -> None:
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in made:
                made[path] = ModuleType(path)
                monkeypatch.setitem(sys.modules, path, made[path])
                if end > 1:
                    setattr(made[".".join(parts[: end - 1])], parts[end - 1], made[path])
        for key, value in attributes.items():
            setattr(made[name], key, value)

    made: dict[str, ModuleType] = {}
    for taken in [name for name in sys.modules if name == "sglang" or name.startswith("sglang.")]:
        monkeypatch.delitem(sys.modules, taken)
    return install


@pytest.fixture
def server_args_of(release):
    """``server_args_of(without=…)`` makes a mock release whose ``ServerArgs`` lacks these settings."""

    def install(*, without: set[str] = frozenset(), resolves: bool = True, policies: tuple[str, ...] = ("lof",)):
        known = (set(EngineConfig.__struct_fields__) | _FIXED) - without
        policy = [SimpleNamespace(value=name) for name in ("fcfs", *policies)]
        release("sglang.srt.server_args", ServerArgs=_args_class(known, resolves=resolves))
        release("sglang.srt.managers.schedule_policy", CacheAwarePolicy=policy[:1], CacheAgnosticPolicy=policy[1:])

    return install


@pytest.mark.parametrize(("resolves", "done"), [(True, ["resolved", "checked"]), (False, ["checked"])])
def test_a_configuration_reaches_the_server_args_checked(server_args_of, resolves, done):
    server_args_of(resolves=resolves)
    args = settings.build(EngineConfig(max_total_tokens=64, schedule_policy="lof"))
    assert args.given["max_total_tokens"] == 64
    assert args.given["schedule_policy"] == "lof"
    assert "mem_fraction_static" not in args.given
    assert args.done == done


def test_without_chunking_the_pool_is_sized_by_hand(server_args_of):
    server_args_of()
    assert settings.build(EngineConfig(chunked_prefill_size=-1)).given["mem_fraction_static"] == 0.5


def test_a_setting_that_the_release_lacks_is_refused_not_dropped(server_args_of):
    server_args_of(without={"stream_interval", "enable_mixed_chunk"})
    with pytest.raises(UnsupportedVersion, match="has no enable_mixed_chunk, stream_interval"):
        settings.build(EngineConfig())


def test_a_schedule_policy_that_the_release_lacks_is_refused(server_args_of):
    server_args_of(policies=("lof", "random"))
    with pytest.raises(UnsupportedVersion, match="no schedule policy 'hrrn'; it has fcfs, lof, random"):
        settings.build(EngineConfig(schedule_policy="hrrn"))


class _Scheduler:
    """Records the arguments it was built with; the parameters differ by release."""

    def __init__(self, server_args, port_args):
        self.built_with = (server_args, port_args)


class _SchedulerOfMany(_Scheduler):
    def __init__(self, server_args, port_args, gpu_id, tp_rank, moe_ep_rank, pp_rank, attn_cp_rank, dp_rank):
        super().__init__(server_args, port_args)
        self.ranks = (gpu_id, tp_rank, moe_ep_rank, pp_rank, attn_cp_rank, dp_rank)


def _with_scheduler(release, scheduler: type) -> SimpleNamespace:
    release("sglang.srt.managers.scheduler", Scheduler=scheduler)
    release("sglang.srt.server_args", PortArgs=SimpleNamespace(init_new=lambda args: "ports"))
    return SimpleNamespace(device="cuda")


def test_a_scheduler_of_many_arguments_gets_rank_zero_everywhere(release):
    args = _with_scheduler(release, _SchedulerOfMany)
    # The mock has no `runtime_context`: up to 0.5.16 the constructor publishes.
    scheduler = seams.make_scheduler(args)
    assert scheduler.built_with == (args, "ports")
    assert scheduler.ranks == (0, 0, 0, 0, 0, None)


def test_a_scheduler_of_two_arguments_finds_its_ranks_published(release):
    args = _with_scheduler(release, _Scheduler)
    published = []
    release(
        "sglang.srt.runtime_context",
        publish=lambda *given, **named: published.append((given, named)),
        SpawnRanks=lambda **ranks: ranks,
    )
    assert seams.make_scheduler(args).built_with == (args, "ports")
    ranks = {"world_rank": 0, "dp_rank": None, "gpu_id": 0}
    assert published == [((args,), {"role": "scheduler", "ranks": ranks})]


def test_ranks_are_not_published_where_they_are_passed(release):
    args = _with_scheduler(release, _SchedulerOfMany)
    published = []
    release("sglang.srt.runtime_context", publish=lambda *given, **named: published.append(named))
    seams.make_scheduler(args)
    assert published == [{"role": "scheduler"}]


# -- a request's KV bookkeeping --------------------------------------------------------------------------------


def _req_up_to_18(row, *, protected=0, committed=0, allocated=None, last_node=None):
    kv = None if allocated is None else SimpleNamespace(kv_allocated_len=allocated, swa_evicted_seqlen=0)
    return SimpleNamespace(
        req_pool_idx=row, cache_protected_len=protected, kv_committed_len=committed, kv=kv, last_node=last_node
    )


def _req_from_19(row, *, protected=0, committed=0, allocated=0, **more):
    kv = SimpleNamespace(
        req_pool_idx=row, cache_protected_len=protected, kv_committed_len=committed, kv_allocated_len=allocated
    )
    return SimpleNamespace(kv=kv, **more)


@pytest.mark.parametrize("layout", [_req_up_to_18, _req_from_19])
def test_kv_state_reads_both_layouts(layout):
    req = layout(3, protected=4, committed=9, allocated=10)
    assert request_state.kv_state(req) == request_state.KvState(row=3, protected=4, committed=9, allocated=10)


@pytest.mark.parametrize("layout", [_req_up_to_18, _req_from_19])
def test_a_request_without_a_row_holds_no_kv(layout):
    assert request_state.kv_state(layout(None, allocated=7)) is None


def test_a_row_before_its_first_allocation_holds_nothing():
    state = request_state.kv_state(_req_up_to_18(0))
    assert state == request_state.KvState(row=0, protected=0, committed=0, allocated=0)


def test_the_lock_follows_from_the_last_node_of_whoever_holds_kv():
    node = object()
    assert request_state.lock_node(_req_up_to_18(2, allocated=5, last_node=node)) is node
    assert request_state.lock_node(_req_from_19(2, allocated=5, last_node=17)) == 17


def test_a_match_without_kv_is_no_lock():
    assert request_state.lock_node(_req_up_to_18(None, last_node=object())) is None
    assert request_state.lock_node(_req_from_19(None, last_node=17)) is None


def test_a_lock_object_decides_where_there_is_one():
    held = _req_from_19(None, last_node=17, lock=SimpleNamespace(node=23))
    assert request_state.lock_node(held) == 23
    assert request_state.lock_node(_req_from_19(2, allocated=5, last_node=17, lock=None)) is None


# -- eviction --------------------------------------------------------------------------------------------------


class _Tree:
    def __init__(self, evictable) -> None:
        self.evictable, self.evicted = evictable, []

    def evictable_size(self):
        return self.evictable

    def evict(self, params) -> None:
        self.evicted.append(params)


@pytest.mark.parametrize("evictable", [12, (12, 5)])
def test_none_evicts_whatever_is_evictable(release, evictable):
    release("sglang.srt.mem_cache.base_prefix_cache", EvictParams=lambda num_tokens: num_tokens)
    tree = _Tree(evictable)
    request_state.evict(tree, None)
    request_state.evict(tree, 3)
    assert tree.evicted == [12, 3]


def test_an_empty_tree_is_left_alone(release):
    release("sglang.srt.mem_cache.base_prefix_cache", EvictParams=lambda num_tokens: num_tokens)
    tree = _Tree(0)
    request_state.evict(tree, None)
    assert tree.evicted == []


def test_a_cache_that_is_switched_off_is_left_alone():
    tree = _Tree(12)
    tree.disable = True
    request_state.evict(tree, 3)
    assert tree.evicted == []


# -- hybrid caches ---------------------------------------------------------------------------------------------


def _receipt_of_today(skipped=(), end=4):
    return SimpleNamespace(skipped_lock_components=skipped, component_lock_uuids={"full": None, "swa": end})


def _receipt_of_0_5_20(skipped=(), end=4):
    return SimpleNamespace(skipped_lock_components=skipped, swa_uuid_for_lock=end)


@pytest.mark.parametrize("receipt", [_receipt_of_today, _receipt_of_0_5_20])
def test_a_receipt_says_what_a_lock_covers(receipt):
    assert request_state.receipt_parts(receipt()) == (4, True, True)
    assert request_state.receipt_parts(receipt(end=None)) == (None, True, True)
    assert request_state.receipt_parts(receipt(skipped=("mamba",))) == (4, True, False)
    assert request_state.receipt_parts(receipt(), released=True) == (4, False, False)


@pytest.mark.parametrize(
    "req",
    [
        SimpleNamespace(kv=SimpleNamespace(swa_dead_lo=lambda page: 8, component_evicted_seqlens={"swa": 12})),
        SimpleNamespace(kv=SimpleNamespace(swa_dead_lo=lambda page: 8, swa_evicted_seqlen=12)),
        SimpleNamespace(kv=SimpleNamespace(swa_evicted_seqlen=12), cache_protected_len=8, swa_evict_floor=5),
    ],
    ids=["0.5.21 and later", "0.5.19 and 0.5.20", "before"],
)
def test_what_left_the_window_is_read_from_every_layout(req):
    assert request_state.window_freed(req, 4) == (8, 12)


def test_nothing_has_left_the_window_while_the_cursor_is_in_the_prefix():
    req = SimpleNamespace(kv=SimpleNamespace(swa_dead_lo=lambda page: 8, component_evicted_seqlens={}))
    assert request_state.window_freed(req, 4) == (8, 8)


def _states(**fields):
    return SimpleNamespace(mamba_cow_src_index=None, mamba_needs_clear=False, **fields)


def test_state_slots_are_read_from_both_layouts():
    fields = {"mamba_pool_idx": 5, "mamba_ping_pong_track_buffer": SimpleNamespace(tolist=lambda: [7, -1])}
    assert request_state.state_slots(SimpleNamespace(kv=_states(**fields))) == [5, 7]
    assert request_state.state_slots(SimpleNamespace(kv=None, **fields)) == [5, 7]
    none = {"mamba_pool_idx": None, "mamba_ping_pong_track_buffer": None}
    assert request_state.state_slots(SimpleNamespace(kv=_states(**none))) == []


def test_a_state_that_is_still_to_be_copied_or_cleared_says_nothing():
    req = SimpleNamespace(kv=_states(mamba_pool_idx=5))
    assert not request_state.state_pending(req)
    req.kv.mamba_needs_clear = True
    assert request_state.state_pending(req)
    req.kv.mamba_needs_clear, req.kv.mamba_cow_src_index = False, 3
    assert request_state.state_pending(req)


@pytest.mark.parametrize(
    ("size", "rows", "kept", "spare"), [(15, 5, None, 4), (3, 1, None, 0), (24, 4, 2, 7), (4, 1, 1, 0), (8, 8, None, 0)]
)
def test_spare_states_are_what_rows_cannot_want(size, rows, kept, spare):
    pool = SimpleNamespace(
        mamba_allocator=SimpleNamespace(size=size),
        size=rows,
        enable_mamba_extra_buffer=kept is not None,
        mamba_ping_pong_track_buffer_size=kept or 2,
    )
    assert request_state.spare_states(pool) == spare


def test_a_model_without_recurrent_states_has_none_to_spare():
    assert request_state.spare_states(SimpleNamespace(size=5)) is None
