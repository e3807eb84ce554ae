"""Which image is the reference of which."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mal.errors import AnnotationError
from mal.methods.simformer.config.pairs import PairsConfig
from mal.methods.simformer.references import References

TAGS = st.lists(st.sets(st.integers(3, 7), max_size=4), min_size=2, max_size=8)


def references(tags, base=None, *, seed: int = 0, **config) -> References:
    base = np.zeros((len(tags), 3), dtype=bool) if base is None else np.array(base, dtype=bool)
    return References(tags, base, PairsConfig(**config), seed=seed)


@settings(max_examples=150, deadline=None)
@given(
    tags=TAGS,
    bits=st.integers(0, 2**24 - 1),
    kind=st.sampled_from(["cross", "self", "sampler"]),
    seed=st.integers(0, 9),
)
def test_a_reference_shares_exactly_one_novel_class_where_one_does_and_is_never_the_image(tags, bits, kind, seed):
    base = np.array([[bits >> (3 * i + c) & 1 for c in range(3)] for i in range(len(tags))], dtype=bool)
    found = references(tags, base, kind=kind, seed=seed)
    for index, own in enumerate(tags):
        others = [i for i in range(len(tags)) if i != index]
        for draw in range(3):
            chosen = found.of(draw, index)
            assert chosen in others
            shared = {i: len(own & tags[i]) for i in others}
            if 1 in shared.values():
                assert shared[chosen] == 1
            elif any(shared.values()):
                assert shared[chosen] > 0
            elif any((base[i] & base[index]).any() for i in others):
                assert (base[chosen] & base[index]).any()


@settings(max_examples=150, deadline=None)
@given(tags=TAGS, bits=st.integers(0, 2**24 - 1), seed=st.integers(0, 9))
def test_as_released_images_of_one_novel_class_and_less_go_by_base_classes(tags, bits, seed):
    base = np.array([[bits >> (3 * i + c) & 1 for c in range(3)] for i in range(len(tags))], dtype=bool)
    found = references(tags, base, reference="released", seed=seed)
    for index, own in enumerate(tags):
        alike = {i for i in range(len(tags)) if i != index and (base[i] & base[index]).any()}
        exactly = {i for i, each in enumerate(tags) if len(own & each) == 1 and i != index} if len(own) > 1 else set()
        for draw in range(3):
            assert found.of(draw, index) in exactly | (alike or {index})
            if exactly and len(own) == len({tag for i in exactly for tag in own & tags[i]}):
                assert found.of(draw, index) in exactly  # whichever of its classes is drawn


@settings(max_examples=20, deadline=None)
@given(tags=TAGS, seed=st.integers(0, 9))
def test_random_references_are_all_others(tags, seed):
    found = References(tags, None, PairsConfig(kind="random"), seed=seed)
    for index in range(len(tags)):
        assert {found.of(draw, index) for draw in range(150)} == set(range(len(tags))) - {index}


def test_base_references_share_a_base_class_whatever_the_tags():
    found = references([{3}, {3}, {3}, {4}], [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], kind="base")
    assert {found.of(draw, 0) for draw in range(30)} == {3}
    assert {found.of(draw, 1) for draw in range(30)} == {3}
    assert {found.of(draw, 2) for draw in range(60)} == {0, 1, 3}  # none does


def test_the_shared_class_is_drawn_evenly_or_the_rarest():
    tags = [{3, 4}, *[{3}] * 6, *[{4}] * 2]
    even, rarest = references(tags, rarest=0), references(tags, rarest=1)
    shared = Counter(tags[even.of(draw, 0)] == {4} for draw in range(400))
    assert 150 < shared[True] < 250
    assert all(tags[rarest.of(draw, 0)] == {4} for draw in range(50))


def test_an_image_has_a_list_of_references_that_stays():
    tags = [{3}] * 40
    found = references(tags, most_novel=5)
    lists = [{found.of(draw, index) for draw in range(200)} for index in range(3)]
    assert all(len(each) == 5 for each in lists)
    assert lists[0] != lists[1]
    assert len({references(tags, most_novel=40).of(draw, 0) for draw in range(500)}) == 39
    every = [[1, 0, 0]] * 40
    assert len({references([()] * 40, every, most_base=4).of(draw, 0) for draw in range(200)}) == 4


def test_references_follow_from_seed_draw_and_index_alone():
    tags = [{3, 4}, {3}, {4}, {3, 5}, {5}, ()]
    first, second = references(tags), references(tags)
    places = [(draw, index) for draw in range(10) for index in range(6)]
    in_order = [first.of(*place) for place in places]
    assert [second.of(*place) for place in reversed(places)][::-1] == in_order
    assert [references(tags, seed=1).of(*place) for place in places] != in_order


def test_a_single_image_has_no_reference():
    with pytest.raises(AnnotationError, match=r"has 1 image, which cannot be paired .* simformer.pairs.kind=none"):
        references([{3}])
