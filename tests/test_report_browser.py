"""The page in headless Chromium: it loads without errors or requests, filters, wipes, stays fluid at 1,000 items."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.report import page as report
from tests.report_store import drawn_store

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 1,000 of 1,100 instances, without figures."""
    folder = tmp_path_factory.mktemp("report")
    drawn_store(folder / "runs", images=100, each=11, labelers=("mal", "ellipse"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_all", lambda *_, **__: [])
        return report.write_page(folder / "runs", folder / "out")


@pytest.fixture(scope="module")
def items(page_file: Path) -> list[dict[str, Any]]:
    """The gallery's data."""
    found = re.search(r'id="gallery-data">(.*?)</script>', page_file.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])[0]["items"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    context = browser.new_context(viewport=DESK)
    opened = context.new_page()
    opened.goto(page_file.as_uri())
    yield opened
    context.close()


def shown(page: Any) -> int:
    """How many instances the page lists, which it also says."""
    count = page.locator("#cards li").count()
    assert page.inner_text("#count").startswith(f"{count} of 1000")
    return count


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_it_loads_without_errors_requests_or_sideways_scrolling(
    browser: Any, page_file: Path, viewport: dict[str, int], scheme: str
) -> None:
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    opened, said, asked = context.new_page(), [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(page_file.as_uri())
    opened.locator("#gallery").scroll_into_view_if_needed()
    opened.wait_for_selector("#cards img")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    assert opened.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    ground = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(v) for v in re.findall(r"\d+", ground)) < 200) == (scheme == "dark")
    context.close()


def test_filters_show_what_the_data_hold(page: Any, items: list[dict[str, Any]]) -> None:
    assert shown(page) == len(items) == 1000
    page.select_option("#category", "7")
    assert shown(page) == sum(item["category"] == 7 for item in items)
    page.uncheck("#size-S")
    assert shown(page) == sum(item["category"] == 7 and item["size"] != "S" for item in items)
    page.select_option("#labeler", "1")
    page.evaluate("low => { byId('low').value = low; show(); }", 0.9)
    wanted = [i for i in items if i["category"] == 7 and i["size"] != "S" and i["iou"][1] >= 0.9]
    assert shown(page) == len(wanted)
    page.click("text=Show all")
    page.wait_for_function("document.querySelectorAll('#cards li').length === 1000")
    page.evaluate("byId('high').value = 0.1; byId('low').value = 0.2; show()")
    assert shown(page) == 0


def test_the_order_is_by_iou(page: Any, items: list[dict[str, Any]]) -> None:
    listed = "[...document.querySelectorAll('#cards li')].map(entry => entry.item.iou[0])"
    assert page.evaluate(listed) == sorted(item["iou"][0] for item in items)
    page.select_option("#order", "best")
    assert page.evaluate(listed) == sorted((item["iou"][0] for item in items), reverse=True)


def test_the_slider_is_moved_by_keys_and_wipes_every_crop_on_the_screen(page: Any) -> None:
    page.locator("#cards").scroll_into_view_if_needed()
    page.evaluate("byId('cards').scrollIntoView()")
    page.wait_for_selector("#cards img.pseudo")
    pictures = []
    page.focus("#wipe")
    for key in ("Home", "ArrowRight", "End"):
        page.keyboard.press(key)
        page.wait_for_timeout(200)
        page.wait_for_selector("#cards li:first-child img.pseudo")
        pictures.append(page.locator("#cards li").first.screenshot())  # the item stays where its pictures come and go
    assert page.input_value("#wipe") == "100"
    assert pictures[0] != pictures[2]
    clips = page.evaluate("[...document.querySelectorAll('#cards img.human')].map(i => getComputedStyle(i).clipPath)")
    assert len(clips) > 10
    assert set(clips) == {"inset(0px calc(0%) 0px 0px)"} or set(clips) == {"inset(0px 0% 0px 0px)"}
    page.mouse.wheel(0, 6000)  # what comes into view later is wiped as far
    page.wait_for_timeout(300)
    later = page.evaluate("[...filled.keys()].map(entry => entry.style.getPropertyValue('--wipe'))")
    assert set(later) == {"100%"}


def test_only_crops_near_the_screen_hold_pictures(page: Any) -> None:
    page.evaluate("byId('cards').scrollIntoView()")
    page.wait_for_selector("#cards img")
    most = 0
    for _ in range(12):
        page.mouse.wheel(0, 900)
        page.wait_for_timeout(50)
        most = max(most, page.evaluate("document.querySelectorAll('#cards .stack').length"))
    assert 10 < most < 250


def test_a_crop_opens_by_keys_shows_every_labeler_and_gives_the_focus_back(
    page: Any, items: list[dict[str, Any]]
) -> None:
    page.evaluate("byId('cards').scrollIntoView()")
    page.focus("#cards button")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    worst = sorted(items, key=lambda item: (item["iou"][0], item["id"]))
    assert f"annotation {worst[1]['id']}," in page.inner_text("#large-facts")
    assert page.locator("#large-facts tbody tr").count() == 2
    page.click("#large-facts button >> nth=1")
    assert f"IoU {worst[1]['iou'][1]:.2f} (inscribed ellipse)" in page.inner_text("#large-title")
    page.click("#next")
    assert f"annotation {worst[2]['id']}," in page.inner_text("#large-facts")
    page.keyboard.press("Escape")
    assert not page.evaluate("byId('large').open")
    assert page.evaluate("document.activeElement.closest('li').item.id") == worst[2]["id"]


def test_every_control_has_a_name_and_one_crop_is_in_the_tab_order(page: Any) -> None:
    unnamed = page.evaluate(
        """[...document.querySelectorAll('#browser input, #browser select, button:not(.card)')].filter(
            (c) => !c.labels?.length && !c.ariaLabel && !c.textContent.trim()).map((c) => c.outerHTML)"""
    )
    assert unnamed == []
    assert page.evaluate("[...document.querySelectorAll('.card')].filter((c) => c.tabIndex === 0).length") == 1
    assert page.evaluate("[...document.querySelectorAll('img')].every((i) => i.hasAttribute('alt'))")
    assert page.evaluate(
        "[...document.querySelectorAll('table')].every((t) => t.caption || t.ariaLabel || t.closest('dialog'))"
    )
    assert page.locator("h1").count() == 1


def test_the_theme_button_turns_light_into_dark(page: Any) -> None:
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == before


def test_a_thousand_instances_stay_fluid(page: Any) -> None:
    """Computing time of the page's own thread, so that a busy machine does not matter: generous, about 3 × measured."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent(script: str) -> float:
        def now() -> float:
            metrics = session.send("Performance.getMetrics")["metrics"]
            return next(entry["value"] for entry in metrics if entry["name"] == "TaskDuration")

        before = now()
        page.evaluate(script)
        return now() - before

    page.evaluate("byId('cards').scrollIntoView()")
    page.wait_for_selector("#cards img")
    painted = "await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    move = f"byId('wipe').value = 2 * i; byId('wipe').dispatchEvent(new Event('input', {{ bubbles: true }})); {painted}"
    assert spent(f"async () => {{ for (let i = 0; i < 40; i++) {{ {move} }} }}") / 40 < 0.15
    assert spent(f"async () => {{ for (let i = 0; i < 10; i++) {{ byId('size-S').click(); {painted} }} }}") / 10 < 0.5
