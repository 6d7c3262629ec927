"""Islands: which operators they are made of, and which are put together for a budget."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.int8 import islands
from converters.int8.islands import GAP, OVERSPENT, PARTED, UNIONS, Alike, Island, parted
from converters.int8.prepare import Prepared
from converters.int8.sensitivity import logits
from converters.int8.simulator import Simulator

from .networks import name_of, position

pytestmark = pytest.mark.parametrize("mobile", ["dense"], indirect=True)

INFINITE = float("inf")


def named(simulator: Simulator, nodes: frozenset[int]) -> set[str]:
    """By the names of their operations; those that Keras names itself differ from one session to the next."""
    return {name_of(simulator, node) for node in nodes} - unnamed(simulator)


def unnamed(simulator: Simulator) -> set[str]:
    gate = position(simulator, "gate")
    return {name_of(simulator, gate - 1), name_of(simulator, gate + 1)}


def test_operators_are_every_node_once(mobile: Prepared) -> None:
    simulator = mobile.simulator
    operators = islands.operators(simulator)
    every = sorted(node for one in operators for node in one)
    assert every == list(range(len(simulator.steps)))
    assert [max(one) for one in operators] == sorted(max(one) for one in operators)


def test_operators_are_a_layer_with_what_is_fused_into_it(mobile: Prepared) -> None:
    simulator = mobile.simulator
    found = [named(simulator, one) for one in islands.operators(simulator)]
    for together in (
        {"stem"},
        {"stem_swish"},
        {"down_pad", "down", "down_relu"},
        {"trunk"},
        {"wide", "wide_relu"},
        {"squeeze", "squeeze_activation"},
        {"excite", "gate"},
        {"residual"},
    ):
        assert together in found
    gate = next(one for one in islands.operators(simulator) if position(simulator, "gate") in one)
    assert len(gate) == 3, "the shift is fused into the gate"


def test_around_a_point_are_its_operator_and_its_readers(mobile: Prepared) -> None:
    simulator = mobile.simulator

    def around(name: str) -> set[str]:
        return named(simulator, islands.around(simulator, position(simulator, name)))

    assert around("trunk") == {"trunk", "wide", "wide_relu", "residual"}
    assert around("deep_swish") == {"deep_swish", "pool", "gated"}
    assert around("stem_swish") == {"stem_swish", "down_pad", "down", "down_relu"}
    assert around("gated") == {"gated", "narrow"}
    assert around("features") == {"features"}, "the classifier reads float as it is"


def test_the_operators_of_layers(mobile: Prepared) -> None:
    simulator = mobile.simulator
    assert named(simulator, islands.of_layers(simulator, ["down"])) == {"down_pad", "down", "down_relu"}
    assert named(simulator, islands.of_layers(simulator, ["excite", "trunk"])) == {"excite", "gate", "trunk"}
    assert islands.of_layers(simulator, []) == frozenset()


def test_no_such_layer(mobile: Prepared) -> None:
    with pytest.raises(KeyError, match="nowhere"):
        islands.of_layers(mobile.simulator, ["trunk", "nowhere"])


def test_names_are_those_of_layers_in_order(mobile: Prepared) -> None:
    simulator = mobile.simulator
    kept = islands.of_layers(simulator, ["excite", "residual", "stem", "down"])
    assert islands.names(simulator, kept) == ("stem", "down", "excite")
    assert islands.names(simulator, frozenset()) == ()
    swish = [position(simulator, name) for name in ("pool", "deep_swish")]
    assert islands.names(simulator, frozenset(swish)) == ("deep_swish", "pool"), "an island without a name"


def test_islands_are_built_around_the_costliest(mobile: Prepared) -> None:
    simulator = mobile.simulator
    noise = {point: 1e-3 * i for i, point in enumerate(simulator.points, start=1)}
    found = islands.smallest(simulator, noise, 6)
    scores = position(simulator, "scores")
    costliest = [point for point in reversed(simulator.points) if point != scores]
    distinct = list(dict.fromkeys(islands.around(simulator, point) for point in costliest))
    assert [one.nodes for one in found] == distinct[:6], "the logits are never an island"
    every = islands.smallest(simulator, noise, 1000)
    assert [one.nodes for one in every] == distinct, "each is measured once"


def test_an_island_saves_what_all_its_tensors_cost(mobile: Prepared) -> None:
    """In float with a hard swish's answer is what it reads, if that is computed in float, too."""
    simulator = mobile.simulator
    stem, swish = (position(simulator, name) for name in ("deep", "deep_swish"))
    nodes = islands.around(simulator, stem)
    inside = simulator.float_points(nodes) - simulator.float_points()
    assert stem in inside
    noise = {point: 1e-3 * i for i, point in enumerate(simulator.points, start=1)}
    (one,) = (one for one in islands.smallest(simulator, noise, 1000) if one.nodes == nodes)
    assert one.noise == pytest.approx(sum(noise[point] for point in inside))
    behind = islands.around(simulator, swish)
    assert simulator.float_points(behind) - simulator.float_points() >= {swish}


# --- unions -----------------------------------------------------------------------------------------------------------


def at(simulator: Simulator, *operators: int, noise: float = 1e-3) -> Island:
    """An island made of some operators, by their places in the order."""
    groups = islands.operators(simulator)
    return Island(frozenset(node for i in operators for node in groups[i]), noise)


def costs(singles: list[Island], *ms: float) -> dict[Island, float]:
    return dict(zip(singles, ms, strict=True))


def places(simulator: Simulator, nodes: frozenset[int]) -> list[int]:
    groups = islands.operators(simulator)
    inside = [i for i, one in enumerate(groups) if one <= nodes]
    assert nodes == frozenset(node for i in inside for node in groups[i]), "whole operators alone"
    return inside


def test_best_value_comes_first(mobile: Prepared) -> None:
    simulator = mobile.simulator
    singles = [at(simulator, 0, noise=1e-3), at(simulator, 5, noise=4e-3), at(simulator, 10, noise=2e-3)]
    found = islands.unions(simulator, costs(singles, 0.1, 0.8, 0.1), 1.0)
    assert [places(simulator, one) for one in found] == [[10], [0, 10], [0, 5, 10]]


def test_what_is_beyond_the_budget_is_left_out(mobile: Prepared) -> None:
    """What is cheaper may still follow; costs below zero, which are noise of the clock, count as none."""
    simulator = mobile.simulator
    singles = [at(simulator, i, noise=noise) for i, noise in ((0, 9e-3), (5, 8e-3), (10, 1e-3), (14, 1e-4))]
    found = islands.unions(simulator, costs(singles, 1.5, 1.4, -0.5, 0.4), 1.0)
    assert [places(simulator, one) for one in found] == [[10], [0, 10], [0, 10, 14]]


@pytest.mark.parametrize("gap", range(1, GAP + 3))
def test_islands_that_nearly_touch_are_bridged(mobile: Prepared, gap: int) -> None:
    simulator = mobile.simulator
    found = islands.unions(simulator, {at(simulator, 3): 0.1, at(simulator, 3 + gap): 0.1}, 1.0)
    whole = list(range(3, 4 + gap)) if gap <= GAP + 1 else [3, 3 + gap]
    assert places(simulator, found[-1]) == whole


def test_the_largest_unions_are_measured(mobile: Prepared) -> None:
    simulator = mobile.simulator
    singles = [at(simulator, 2 * i) for i in range(UNIONS + 3)]
    found = islands.unions(simulator, dict.fromkeys(singles, 0.01), 1.0)
    assert len(found) == UNIONS
    assert len(set(found)) == UNIONS
    assert places(simulator, found[-1]) == list(range(2 * len(singles) - 1))


def test_no_budget(mobile: Prepared) -> None:
    simulator = mobile.simulator
    assert islands.unions(simulator, {at(simulator, 3): 0.1}, 0.0) == []
    assert islands.unions(simulator, {}, 1.0) == []
    assert len(islands.unions(simulator, {at(simulator, 3): 0.0}, 0.0)) == 1


def test_what_must_not_be_float_never_is(mobile: Prepared) -> None:
    simulator = mobile.simulator
    singles = [at(simulator, 0), at(simulator, 6), at(simulator, 12)]
    found = islands.unions(simulator, costs(singles, INFINITE, INFINITE, 0.1), 1.0)
    assert [places(simulator, one) for one in found] == [[12]]


@pytest.mark.parametrize(("noise", "reach"), [(0.05, 8.0), (0.1, 4.0)])
def test_a_foretold_share_is_what_counting_finds(mobile: Prepared, noise: float, reach: float) -> None:
    """On 100 000 images of 40 classes, two of them up to `reach` apart and the others far below."""
    rng = np.random.default_rng(3)
    right = np.full((100_000, 40), -50, np.float32)
    right[:, 0], right[:, 1] = 0, rng.uniform(-reach, reach, len(right))
    off = right + rng.normal(0, noise, right.shape).astype(np.float32)
    counted = float((right.argmax(axis=1) != off.argmax(axis=1)).mean())
    assert counted > 0.003
    assert parted(right, off) == pytest.approx(counted, rel=0.15)


def test_exits_go_until_the_others_part_no_more_than_may_be(mobile: Prepared) -> None:
    shares = {7: 0.7 * PARTED, 8: 0.6 * PARTED, 9: 0.3 * PARTED, 10: 2 * PARTED}
    assert islands._too_much(shares, shares) == [10, 7]
    assert islands._too_much(shares, [8, 9]) == [8], "one at least"


def test_what_islands_must_gain(mobile: Prepared) -> None:
    """A tenth of the images that are missed are missed still with 20 dB less, so nine tenths are won."""
    assert islands.worthwhile_db(0.10, 0.09) == pytest.approx(20)
    assert islands.worthwhile_db(0.10, 0.05) == pytest.approx(6.0206)
    assert islands.worthwhile_db(0.10, 0.0) == 0
    assert islands.worthwhile_db(0.10, 0.10) == islands.worthwhile_db(0.0, 0.0) == INFINITE


@pytest.fixture(scope="module")
def simulated(mobile: Prepared) -> Simulator:
    return mobile.simulator


@given(
    picked=st.lists(
        st.tuples(st.integers(0, 16), st.floats(1e-6, 1.0), st.floats(-0.1, 3.0)),
        max_size=10,
        unique_by=lambda one: one[0],
    ),
    budget=st.floats(0.01, 2.0),
)
@settings(max_examples=60, deadline=None)
def test_unions_grow_and_stay_within_what_may_be_spent(
    simulated: Simulator, picked: list[tuple[int, float, float]], budget: float
) -> None:
    singles = [at(simulated, place, noise=noise) for place, noise, _ in picked]
    found = islands.unions(simulated, costs(singles, *(cost for *_, cost in picked)), budget)
    assert all(smaller < larger for smaller, larger in pairwise(found))
    affordable = [one.nodes for one, (*_, cost) in zip(singles, picked, strict=True) if cost <= OVERSPENT * budget]
    if found:
        assert any(nodes <= found[0] for nodes in affordable)
    else:
        assert not affordable
    for one, (*_, cost) in zip(singles, picked, strict=True):
        if cost > OVERSPENT * budget and found and one.nodes not in affordable:
            inside = places(simulated, found[-1])
            (place,) = places(simulated, one.nodes)
            # Then only as a bridge: something near it on both sides is inside.
            assert place not in inside or (min(inside) < place < max(inside))


def test_the_island_at_whose_exit_floats_matter_most_goes(
    mobile: Prepared, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = mobile.simulator
    early, late = (islands.around(simulator, position(simulator, name)) for name in ("stem_swish", "features"))
    both_of = [Island(nodes, 0.1) for nodes in (early, late)]
    monkeypatch.setattr(islands, "FLOAT_ERROR", 1e-2)
    simulator.load(replace(mobile.start, kept_float=early | late))
    right = logits(simulator.scores(images))
    (exit_,) = simulator.exits(early)
    both, first = (parted(right, logits(simulator.scores(images, 1e-2, at))) for at in (None, exit_))
    assert both >= first > 0

    def kept(most: float) -> frozenset[int]:
        monkeypatch.setattr(islands, "PARTED", most)
        return islands.alike(simulator, mobile.start, both_of, images).nodes

    assert kept(1.1 * both) == early | late, "it matters to nobody"
    assert kept(1e-9) == late, "nothing behind the last island's exit is rounded"
    assert islands.alike(simulator, mobile.start, [], images) == Alike()


def test_an_exit_moves_on_where_that_is_enough(
    mobile: Prepared, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator, error = mobile.simulator, 1e-2
    early = islands.around(simulator, position(simulator, "stem_swish"))
    (exit_,) = simulator.exits(early)
    further = early | islands.around(simulator, exit_)

    def share(nodes: frozenset[int]) -> float:
        simulator.load(replace(mobile.start, kept_float=nodes), in_order=False)
        return parted(logits(simulator.scores(images)), logits(simulator.scores(images, error)))

    here, there = share(early), share(further)
    monkeypatch.setattr(islands, "FLOAT_ERROR", error)
    monkeypatch.setattr(islands, "PARTED", (here + there) / 2)
    found = islands.alike(simulator, mobile.start, [Island(early, 0.1)], images)
    assert there < 0.9 * here
    assert found == Alike(further, there)
