"""The page of masks in headless Chromium: chosen by key and by mouse, kept, exported, and deaf to hostile names."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.review.page import write_review
from mal import review
from tests.review_files import HOSTILE, write_labels

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
PHONE, DESK = {"width": 400, "height": 844}, {"width": 1280, "height": 900}
MANY = 5000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 masks, of which two are flagged, in six classes with hostile names; and their page."""
    folder = tmp_path_factory.mktemp("review")
    path = write_labels(folder, images=5, each=30, names=HOSTILE, flag_reason=lambda place: HOSTILE[place % 6],
                        flagged=lambda place: place in (70, 71))  # fmt: skip
    write_review(path, folder / "images", folder / "page.html")
    return path


@pytest.fixture
def page(browser: Any, labels: Path) -> Iterator[Any]:
    context = browser.new_context(viewport=DESK)
    opened = context.new_page()
    opened.goto(labels.with_name("page.html").as_uri())
    yield opened
    context.close()


def listed(page: Any) -> list[int]:
    """Annotation ids of the cards, in order."""
    return [int(number) for number in page.evaluate("[...document.querySelectorAll('#cards li')].map(e => e.item.id)")]


def doubtful(labels: Path) -> list[int]:
    annotations = json.loads(labels.read_text(encoding="utf-8"))["annotations"]
    return [a["id"] for a in sorted(annotations, key=lambda a: (not a["flagged"], a["quality"] * (not a["flagged"])))]


def exported(page: Any, to: Path) -> dict[str, Any]:
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(to)
    return json.loads(to.read_text(encoding="utf-8"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_it_loads_without_errors_requests_or_sideways_scrolling(browser, labels, viewport, scheme):
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    opened, said, asked = context.new_page(), [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    address = labels.with_name("page.html").as_uri()
    opened.goto(address)
    opened.wait_for_selector("#cards img")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert opened.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert opened.evaluate("scrollY") == 0
    assert opened.evaluate("[...document.images].every(i => i.decode && i.hasAttribute('alt'))")
    ground = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(v) for v in re.findall(r"\d+", ground)) < 200) == (scheme == "dark")
    context.close()


def test_cards_stand_from_doubtful_to_sure_a_page_at_a_time(page, labels):
    order = doubtful(labels)
    assert listed(page) == order[:60]
    page.click("#forth")
    assert listed(page) == order[60:120]
    page.click("#forth")
    assert listed(page) == order[120:]
    assert page.is_disabled("#forth")
    assert page.inner_text("#where") == "121–150 of 150"
    page.click("#back")
    assert listed(page) == order[60:120]


def test_every_picture_is_decoded_and_framed(page):
    page.evaluate("Promise.all([...document.images].map(i => i.decode()))")
    sizes = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.clientWidth])")
    assert len(sizes) == 60
    assert all(natural > 0 and shown > 40 for natural, shown in sizes)
    assert page.locator("#cards path.dark").count() == page.locator("#cards path.light").count() == 60


def test_choices_by_key_lead_on_and_the_export_equals_them(browser, tmp_path):
    labels = write_labels(tmp_path, names=HOSTILE[:3], flagged=lambda _: False, each=10)
    context = browser.new_context(viewport=DESK)
    page = context.new_page()
    page.goto(write_review(labels, tmp_path / "images", tmp_path / "page.html").as_uri())
    order = doubtful(labels)
    for key in ("1", "2", "3", "Space", "j", "j", "2", "k", "0", "3"):
        page.keyboard.press(key)
    # keep, reject, box, keep; two are skipped; reject; back to it, undecided again, and a box
    chosen = {order[0]: "keep", order[1]: "reject", order[2]: "box", order[3]: "keep", order[6]: "box"}
    content = exported(page, tmp_path / "choices.json")
    assert content["choices"] == {str(number): choice for number, choice in chosen.items()}
    assert content["labels_sha256"] == review.sha256(labels)
    assert page.inner_text("#done") == "5 of 20 decided: 2 kept, 1 rejected, 2 filled"
    context.close()
    out = tmp_path / "reviewed.json"
    assert review.main(["apply", str(labels), str(tmp_path / "choices.json"), "--out", str(out)]) == 0
    left = [a["id"] for a in json.loads(out.read_text())["annotations"]]
    assert set(order) - set(left) == {order[1]}


def test_the_arrow_down_goes_a_row_on_and_the_last_card_leads_to_the_next_page(page, labels):
    order = doubtful(labels)
    columns = page.evaluate("getComputedStyle(byId('cards')).gridTemplateColumns.split(' ').length")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.item.id") == str(order[columns])
    page.evaluate("focus(byId('cards').lastElementChild)")
    page.keyboard.press("1")
    assert page.evaluate("document.activeElement.item.id") == str(order[60])
    page.keyboard.press("k")
    assert page.evaluate("document.activeElement.item.id") == str(order[59])


def test_choices_by_mouse_are_taken_back_by_a_second_click(page, labels, tmp_path):
    order = doubtful(labels)
    page.click("#cards li:nth-child(3) button[data-choice=reject]")
    page.click("#cards li:nth-child(5) button[data-choice=box]")
    page.click("#cards li:nth-child(3) button[data-choice=reject]")
    assert exported(page, tmp_path / "c.json")["choices"] == {str(order[4]): "box"}
    pressed = page.locator("#cards [aria-pressed=true]")
    assert pressed.count() == 1
    assert pressed.inner_text() == "Box"


def test_choices_survive_closing_and_belong_to_their_file_alone(browser, labels, tmp_path):
    other = write_labels(tmp_path, images=1, each=3)
    write_review(other, tmp_path / "images", tmp_path / "page.html")
    context = browser.new_context(viewport=DESK)
    first = context.new_page()
    first.goto(labels.with_name("page.html").as_uri())
    first.keyboard.press("2")
    first.close()
    second = context.new_page()
    second.goto((tmp_path / "page.html").as_uri())
    assert second.inner_text("#done").startswith("0 of 3 decided")
    assert second.is_disabled("#export")
    second.goto(labels.with_name("page.html").as_uri())
    assert second.inner_text("#done").startswith("1 of 150 decided")
    assert second.locator("#cards li").first.get_attribute("data-choice") == "reject"
    context.close()


def test_filters_show_a_class_and_what_is_still_open(page, labels):
    coco = json.loads(labels.read_text(encoding="utf-8"))
    page.select_option("#class", "2")
    wanted = {a["id"] for a in coco["annotations"] if a["category_id"] == 2}
    assert listed(page) == [number for number in doubtful(labels) if number in wanted]
    page.click("#cards li:nth-child(2) button[data-choice=keep]")
    kept = listed(page)[1]
    page.select_option("#state", "open")
    assert set(listed(page)) == wanted - {kept}
    page.select_option("#state", "keep")
    assert listed(page) == [kept]
    page.select_option("#state", "reject")
    assert listed(page) == []
    assert page.is_visible("#nothing")


def test_hostile_names_are_text_and_nothing_else(page):
    for number, name in enumerate(HOSTILE, 1):
        page.select_option("#class", str(number))
        text = page.evaluate("document.querySelector('#cards bdi').textContent")
        assert text in (name, name.replace("\ud83e", "\ufffd"))  # half a pair has no UTF-8
        page.wait_for_selector("#cards img")
    assert page.title() == "Masks to look at first: masks.json"
    assert page.evaluate("document.querySelectorAll('#cards script, #cards i, main img:not([src^=data])').length") == 0
    assert page.evaluate("document.querySelectorAll('#class option').length") == len(HOSTILE) + 1
    assert "&amp;.png" in page.evaluate("document.querySelector('#cards li').title")


def test_what_was_said_of_an_object_stands_on_its_card_as_text(browser, tmp_path):
    labels = write_labels(tmp_path, images=1, each=2, expressions=lambda place: [HOSTILE[place], "the left one"])
    page = browser.new_page()
    page.goto(write_review(labels, tmp_path / "images", tmp_path / "page.html").as_uri())
    texts = page.evaluate("[...document.querySelectorAll('#cards .text')].map((each) => each.textContent)")
    assert sorted(texts) == sorted([*HOSTILE[:2], "the left one", "the left one"])
    assert "the left one" in page.evaluate("document.querySelector('#cards li').ariaLabel")
    page.close()


def test_the_outline_is_dark_and_light_and_a_key_hides_it(page):
    strokes = page.evaluate(
        "[...document.querySelectorAll('#cards li path')].slice(0, 2).map(p => getComputedStyle(p).stroke)"
    )
    assert strokes == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert page.is_visible("#cards li:nth-child(4) path.light")
    page.keyboard.press("o")
    assert not page.is_visible("#cards li:nth-child(4) path.light")
    page.keyboard.press("o")
    page.click("#cards li:nth-child(4) button[data-choice=box]")
    assert not page.is_visible("#cards li:nth-child(4) path.light")


def test_every_control_has_a_name_and_one_card_is_in_the_tab_order(page):
    unnamed = page.evaluate(
        """[...document.querySelectorAll('select, button, li')].filter(
            (c) => !c.labels?.length && !c.ariaLabel && !c.textContent.trim()).map((c) => c.outerHTML)"""
    )
    assert unnamed == []
    assert (
        page.evaluate("[...document.querySelectorAll('#cards li, #cards button')].filter(c => c.tabIndex === 0).length")
        == 1
    )


def test_five_thousand_masks_stay_fluid(browser, tmp_path):
    """Computing time of the page's own thread, so that a busy machine does not matter: generous."""
    labels = write_labels(tmp_path, images=10, each=MANY // 10)
    page_file = write_review(labels, tmp_path / "images", tmp_path / "page.html")
    context = browser.new_context(viewport=DESK)
    opened = context.new_page()
    session = context.new_cdp_session(opened)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(entry["value"] for entry in metrics if entry["name"] == "TaskDuration")

    opened.goto(page_file.as_uri())
    opened.wait_for_selector("#cards img")
    assert spent() < 5
    assert opened.locator("#cards li").count() == 60
    before = spent()
    for _ in range(65):  # a page and more
        opened.keyboard.press("1")
    assert (spent() - before) / 65 < 0.15
    assert opened.inner_text("#done").startswith(f"65 of {MANY} decided")
    before = spent()
    opened.select_option("#state", "open")
    assert spent() - before < 1
    context.close()
