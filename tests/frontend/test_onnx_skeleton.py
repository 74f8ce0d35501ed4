"""A model without the elements of its weights: nothing else is lost, and the places are right."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx.helper import make_graph, make_model, make_node

from graphexec.frontend.onnx.skeleton import Damaged, skeleton


def model(sizes, external=False):
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal(n).astype(np.float32), f"w{i}")
               for i, n in enumerate(sizes)]  # fmt: skip
    nodes = [make_node("Add", ["w0", "w0"], ["y"])]
    return make_model(make_graph(nodes, "g", [], [], weights), producer_name="test")


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=6))
def test_elements_are_found_and_nothing_else_is_lost(sizes):
    whole = model(sizes)
    data = whole.SerializeToString()
    message, places = skeleton(data)
    bare = onnx.ModelProto.FromString(message)
    for tensor, original in zip(bare.graph.initializer, whole.graph.initializer, strict=True):
        if tensor.name in places:
            place = places[tensor.name]
            assert not tensor.raw_data
            tensor.raw_data = data[place.offset : place.offset + place.length]
        assert tensor.raw_data == original.raw_data
    assert bare == whole
    assert len(places) == sum(4 * n > 1024 for n in sizes)


def test_the_skeleton_of_large_weights_is_small():
    assert len(skeleton(model([10**6]).SerializeToString())[0]) < 200


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_damaged(data):
    try:
        message, places = skeleton(data)
    except Damaged:
        return
    assert len(message) + sum(p.length for p in places.values()) <= len(data) + 20


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.99])
def test_a_cut_is_damage(keep):
    data = model([500, 500]).SerializeToString()
    with pytest.raises(Damaged):
        skeleton(data[: int(len(data) * keep)])
