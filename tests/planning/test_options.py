"""Options: one object for everything that plans, checked in one place, in plain words."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import graphexec as gx
from graphexec.machine.costs import CPU
from graphexec.planning.options import OptionKeywords, Options, options_of, parse_bytes
from graphexec.planning.pipeline import alternative_plans, plan_graph


def two_products() -> gx.Graph:
    g = gx.Graph("two")
    x = g.input("x", (240, 240), "f32")
    g.output(a=g.gemm(x, x, alpha=0.5), b=g.gemm(x, x, alpha=2.0))
    return g


def test_the_keywords_are_the_fields() -> None:
    assert list(OptionKeywords.__annotations__) == [field.name for field in fields(Options)]
    text = Options.__doc__ or ""
    assert all(f"\n    * `{field.name}` (" in text for field in fields(Options))
    assert get_type_hints(OptionKeywords).keys() == get_type_hints(Options).keys()


def test_options_are_frozen_and_equal_by_value() -> None:
    options = Options(streams=2, no_rewrite=("all",))
    assert options == Options(streams=2, no_rewrite=("all",)) != Options()
    with pytest.raises(FrozenInstanceError):
        options.streams = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"streams": "4"}, {"streams": 4}),
        ({"streams": np.int64(3)}, {"streams": 3}),
        ({"streams": "auto"}, {"streams": "auto"}),
        ({"streams": 100_000}, {"streams": 256}),
        ({"memory_limit": "1MiB"}, {"memory_limit": 1 << 20}),
        ({"memory_limit": "1.5GB"}, {"memory_limit": 1_500_000_000}),
        ({"memory_limit": 0}, {"memory_limit": 0}),
        ({"no_rewrite": "all"}, {"no_rewrite": ("all",)}),
        ({"rewrite": ["b", "a", "b"]}, {"rewrite": ("b", "a")}),
        ({"costs": "p.json"}, {"costs": "p.json"}),
        ({"costs": Path("p.json")}, {"costs": Path("p.json")}),
        ({"costs": CPU}, {"costs": CPU}),
        ({"timeout": 2}, {"timeout": 2.0}),
    ],
)
def test_what_the_command_line_takes_is_taken(given: Any, kept: Any) -> None:
    assert Options(**given) == Options(**kept) == options_of(None, given)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("streams", 0, "an integer of at least 1, or 'auto', not 0"),
        ("streams", True, "an integer of at least 1, or 'auto', not True"),
        ("streams", 2.0, "an integer of at least 1, or 'auto', not 2.0"),
        ("streams", "²", "an integer of at least 1, or 'auto', not '²'"),
        ("streams", "9" * 5000, "an integer of at least 1, or 'auto', not '999"),
        ("memory_limit", "1 parsec", "bytes such as 1048576, 512MiB or 1.5GB, not '1 parsec'"),
        ("memory_limit", -1, "bytes such as 1048576, '512MiB' or '1.5GB', not -1"),
        ("memory_limit", 1.5, "bytes such as 1048576, '512MiB' or '1.5GB', not 1.5"),
        ("rewrite", 3, "the name of a rewrite, or several, not 3"),
        ("no_rewrite", [1], "the name of a rewrite, or several, not [1]"),
        ("costs", 1.0, "a CostModel, a Profile, or the path of a profile, not 1.0"),
        ("timeout", 0, "a number of seconds above 0, not 0"),
        ("timeout", float("nan"), "a number of seconds above 0, not nan"),
        ("timeout", "1", "a number of seconds, not '1'"),
        ("resident", "no", "True or False, not 'no'"),
        ("verify", None, "True or False, not None"),
        ("use_profile", 1, "True or False, not 1"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_wanted(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(gx.InputError) as caught:
        Options(**{name: value})
    assert str(caught.value).startswith(f"error: {name} must be {wanted}")


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(gx.InputError) as caught:
        gx.make_plan(two_products(), streams=0, memory_limit="x", timeout=-1)
    assert len(caught.value.diagnostics) == 3


def test_an_unknown_option_is_named_with_a_suggestion() -> None:
    with pytest.raises(gx.InputError, match=r"there is no option 'stream'(.|\n)*mean 'streams'"):
        gx.make_plan(two_products(), stream=3)
    with pytest.raises(gx.InputError, match="options must be Options, not"):
        gx.make_plan(two_products(), options={"streams": 3})


@pytest.mark.parametrize("call", [gx.make_plan, gx.compile, gx.tune, plan_graph])
def test_a_path_is_no_graph(call: Any) -> None:
    with pytest.raises(gx.InputError) as caught:
        call("x.yaml")
    assert "a Graph is wanted, not the str 'x.yaml'" in str(caught.value)
    assert "gx.load(path)" in str(caught.value)


@pytest.mark.parametrize("text", ["", "MiB", "1.2345678", "-1", "1 PiB", "0x10", "1e3"])
def test_no_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="bytes such as"):
        parse_bytes(text)


def test_keywords_replace_options_wherever_a_graph_is_planned() -> None:
    options = gx.Options(streams=1, no_rewrite="all")
    graph = two_products()
    one = gx.make_plan(graph, options=options)
    assert len(one.streams) == 1
    assert one == gx.make_plan(graph, streams="1", no_rewrite="all")
    two = gx.make_plan(graph, options=options, streams=2)
    assert two == gx.make_plan(graph, streams=2, no_rewrite=["all"]) != one
    assert len(two.streams) == 2
    assert plan_graph(graph, options=options, streams=2).plan == two
    with gx.compile(graph, device="cpu", options=options, streams=2) as exe:
        assert exe.plan == two
    plans = alternative_plans(graph, 3, device="cpu", options=options, streams=2)
    assert two in [compiled.plan for compiled in plans]
    assert len(plans[-1].plan.streams) == 1


def test_compile_passes_every_option_on() -> None:
    graph = two_products()
    smallest = gx.make_plan(graph, streams=1, no_rewrite="all").stats.arena_bytes
    options = gx.Options(
        streams=2, no_rewrite="all", resident=True, memory_limit=smallest, timeout=30, costs=CPU
    )
    with gx.compile(graph, device="cpu", options=options) as exe:
        assert exe.timeout == 30
        assert not [b for b in exe.plan.buffers if b.space == "host"]
        assert exe.plan.stats.costs == CPU.name


def test_a_plan_for_a_device_is_the_one_that_compile_makes() -> None:
    device = gx.CpuDevice()
    with gx.compile(two_products(), device=device, streams=2) as exe:
        assert gx.make_plan(two_products(), device=device, streams=2) == exe.plan


def test_load_ops_takes_strings_and_paths() -> None:
    folder = Path(__file__).parents[2] / "docs" / "examples"
    found = [gx.load_ops(f) for f in ([str(folder)], [folder], str(folder), folder)]
    assert all("relu" in ops and "gemm" in ops for ops in found)
