"""Which photographs may be shown to others."""

import pytest

from analysis.images import by_id, licence_of

# the list of COCO 2017's and LVIS's files, as COCO writes it: its slashes are escaped twice
NAMES = ("by-nc-sa/2.0", "by-nc/2.0", "by-nc-nd/2.0", "by/2.0", "by-sa/2.0", "by-nd/2.0")
COCO = [
    *(
        {"id": i, "url": f"http:\\/\\/creativecommons.org\\/licenses\\/{n}\\/", "name": n}
        for i, n in enumerate(NAMES, 1)
    ),
    {"id": 7, "url": "http:\\/\\/flickr.com\\/commons\\/usage\\/", "name": "No known copyright restrictions"},
    {"id": 8, "url": "http:\\/\\/www.usa.gov\\/copyright.shtml", "name": "United States Government Work"},
]
LVIS = [{**entry, "url": entry["url"].replace("\\", "")} for entry in COCO]


@pytest.mark.parametrize("listed", [COCO, LVIS])
def test_of_cocos_licences_4_5_and_7_may_be_passed_on(listed: list[dict[str, object]]) -> None:
    licences = by_id(listed)
    free = [i for i in range(1, 9) if licence_of({"license": i, "file_name": "a.jpg"}, licences).free]
    assert free == [4, 5, 7]


def test_who_is_to_be_named_is_said_with_the_licence() -> None:
    licence = licence_of({"license": 4, "flickr_url": "http://flickr.com/1"}, by_id(COCO))
    assert licence.credit == "http://flickr.com/1, CC BY"


@pytest.mark.parametrize("image", [{}, {"license": 99}])
def test_an_image_without_a_licence_may_not_be_passed_on(image: dict[str, int]) -> None:
    assert not licence_of(image, by_id(COCO)).free
    assert not licence_of({"license": 4}, {}).free


def test_another_file_may_number_its_licences_otherwise() -> None:
    other = by_id([{"id": 4, "url": "https://example.org/all-rights-reserved", "name": "mine"}])
    assert not licence_of({"license": 4}, other).free
