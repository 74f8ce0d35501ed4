"""The graph and the memory as text and as data."""

import json
import re

import graphexec as gx
from graphexec.planning.pipeline import plan_graph
from graphexec.views.listing import graph_to_text, memory_to_dict, memory_to_text
from graphexec.views.outline import of_graph, to_dict
from graphexec.views.recovered import of_plan


def test_the_graph_of_multi_head_attention(golden):
    typed = plan_graph(gx.load("graphs/multi_head_attention.yaml")).graph
    golden("views/multi_head_graph.txt", graph_to_text(of_graph(typed)))


def test_the_memory_of_attention(golden, attention):
    golden("views/attention_memory.txt", memory_to_text(attention))


def test_the_memory_of_attention_as_data(golden, attention):
    golden("views/attention_memory.json", json.dumps(memory_to_dict(attention), indent=1) + "\n")


def test_the_graph_of_attention_as_data(golden, attention):
    golden("views/attention_graph.json", json.dumps(to_dict(of_plan(attention)), indent=1) + "\n")


def test_the_plan_of_attention_as_data(golden, attention):
    golden("views/attention.json", attention.to_json())


def test_rows_that_share_bytes_do_not_overlap_in_time():
    plan = plan_graph(gx.load("graphs/parallel_branches.yaml")).plan
    found = memory_to_dict(plan)
    tensors = found["tensors"]
    assert len(tensors) > 10
    assert found["peak_bytes"] <= found["arena_bytes"] == plan.stats.arena_bytes
    shared = 0
    for n, a in enumerate(tensors):
        for b in tensors[n + 1 :]:
            low, high = max(a["offset"], b["offset"]), min(
                a["offset"] + a["bytes"], b["offset"] + b["bytes"])  # fmt: skip
            if low < high and a["buffer"] == b["buffer"]:
                shared += 1
                handed_over = a["last_user"] == b["writer"] or b["last_user"] == a["writer"]
                assert a["end_us"] <= b["begin_us"] or b["end_us"] <= a["begin_us"] or handed_over
    assert shared


def test_every_tensor_that_a_launch_writes_is_listed(attention):
    names = {t["name"] for t in memory_to_dict(attention)["tensors"]}
    assert names >= {"q", "k", "v", "scores", "probs", "ctx"}


def test_awkward_names_stay_in_their_rows(awkward):
    for text in (graph_to_text(of_plan(awkward)), memory_to_text(awkward)):
        assert "\x1b" not in text
        assert re.search("подграф|层", text)
