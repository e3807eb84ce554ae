"""What is said of boxes that got no mask of their own."""

from typing import Any

from mal.data.flags import all_flagged, flag_sentence

GOOD: dict[str, Any] = {"id": 1}
SMALL = {"id": 2, "flagged": True, "flag_reason": "the box is too small"}
EMPTY = {"id": 3, "flagged": True, "flag_reason": "the mask is empty"}


def test_nothing_is_said_where_all_is_well() -> None:
    assert flag_sentence([GOOD, GOOD]) is None
    assert not all_flagged([GOOD, SMALL])
    assert not all_flagged([])


def test_reasons_are_counted_the_most_frequent_first() -> None:
    assert flag_sentence([SMALL, GOOD, EMPTY, EMPTY, {"id": 4, "flagged": True}]) == (
        "4 of 5 boxes got no mask of their own: they are filled and flagged (2 because the mask is empty; "
        "1 because the box is too small; 1 because no reason given)"
    )


def test_a_file_of_filled_boxes_is_said_to_hold_no_mask() -> None:
    assert "no prediction lies in its box" in str(flag_sentence([EMPTY, EMPTY], "expressions"))
    said = flag_sentence([SMALL, SMALL])
    assert all_flagged([SMALL, SMALL])
    assert said is not None
    assert said.startswith(
        "none of the 2 boxes got a mask: all are filled and flagged (2 because the box is too small)"
    )
