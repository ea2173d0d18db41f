"""`reval browse` in a browser without a screen, on the store of a real run. Run by `pytest -m browser`.

It needs Playwright (`pip install playwright`) and a Chromium (`apt-get install chromium`); pictures of every step lie
in the folder that REVAL_SCREENSHOTS names, else in pytest's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_run import Finished, rows
from test_browse import browsing

pytestmark = [pytest.mark.slow, pytest.mark.browser]
WAIT_MS = 120_000
FORMS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1400, "height": 1000}},
    "dark": {"viewport": {"width": 1400, "height": 1000}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
}


@pytest.fixture(scope="module")
def address(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browsing(finished.home.root, tmp_path_factory.mktemp("log") / "browse.log", "--port", 0) as (_, where):
        yield where


@pytest.fixture(params=FORMS)
def page(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page whose browser has nothing to complain of, in light, in dark and as wide as a phone."""
    context = chromium.new_context(**FORMS[request.param])
    opened = context.new_page()
    opened.form = request.param
    opened.set_default_timeout(WAIT_MS)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("requestfailed", lambda one: complaints.append(f"{one.url} {one.failure}"))
    yield opened
    assert complaints == []
    context.close()


def follow(page: Any, link: Any) -> None:
    """Click on what leads to another page, and wait until that is there as a whole."""
    with page.expect_navigation():
        link.click()


def fits(page: Any) -> bool:
    """Whether nothing of the page lies beyond its right edge: wide tables scroll by themselves."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def test_from_the_runs_to_a_token(page: Any, address: str, finished: Finished, pictures: Path) -> None:
    run_id = finished.outcome.run_id

    def look(name: str) -> None:
        page.screenshot(path=pictures / f"{page.form}-{name}.png", full_page=True)
        assert fits(page), name

    page.goto(address)
    look("1-runs")
    follow(page, page.get_by_role("link", name=run_id, exact=True))
    page.get_by_label("purpose").select_option("training")
    page.get_by_label("first round").fill("2")
    page.get_by_label("order").select_option("longest")
    follow(page, page.get_by_role("button", name="Show"))
    page.get_by_text("16 trajectories").wait_for()
    assert re.search(f"run={run_id}&purpose=training.*first=2.*sort=longest", page.url)
    look("2-trajectories")
    lengths = [int(text.split()[0]) for text in page.locator("tbody tr td:nth-child(5)").all_inner_texts()]
    assert lengths == sorted(lengths, reverse=True)

    boxed = rows(
        finished.home,
        "SELECT trajectory_id FROM run_trajectories WHERE run_id = $run AND answer IS NOT NULL ORDER BY iteration DESC",
        run=run_id,
    )[0]["trajectory_id"]
    page.goto(f"{address}/trajectory/{boxed}")
    box = page.locator("menclose").first
    box.wait_for()
    assert box.bounding_box()["width"] > 5  # drawn by the browser, not shown as source
    assert page.get_by_role("heading", name="The verifier's path").count() == 1
    look("3-trajectory")
    follow(page, page.get_by_role("link", name="as it was said"))
    page.locator("pre", has_text=r"\boxed{").last.wait_for()

    follow(page, page.get_by_role("link", name="what each token is worth"))
    page.locator("polyline").wait_for()
    tokens = page.locator(".strip span")
    assert (
        tokens.count()
        == rows(finished.home, "SELECT response_tokens AS n FROM trajectories WHERE trajectory_id = $t", t=boxed)[0][
            "n"
        ]
    )
    assert re.match(r"token 1: [+-]0\.\d{5}", tokens.first.get_attribute("title"))
    colours = {
        tokens.nth(place).evaluate("one => getComputedStyle(one).backgroundColor") for place in range(tokens.count())
    }
    assert len(colours) > 1  # the style sheet is let through by the content policy
    look("4-steps")


def test_two_policies_and_a_query(page: Any, address: str, finished: Finished, pictures: Path) -> None:
    page.goto(f"{address}/compare")
    follow(page, page.locator("tbody a").first)
    follow(page, page.get_by_role("button", name="Compare"))
    page.locator("section article").nth(1).wait_for()
    page.screenshot(path=pictures / f"{page.form}-5-compare.png", full_page=True)
    assert fits(page)

    page.goto(f"{address}/queries")
    follow(page, page.get_by_role("link", name="verdict_shares"))
    page.get_by_label("run").select_option(finished.outcome.run_id)
    follow(page, page.get_by_role("button", name="Ask"))
    page.locator("tbody tr").first.wait_for()
    page.screenshot(path=pictures / f"{page.form}-6-query.png", full_page=True)
    assert fits(page)


def test_by_the_keyboard_alone(chromium: Any, address: str) -> None:
    page = chromium.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/trajectories"))
    page.get_by_label("problem: words of it, or an id").focus()
    page.keyboard.type("=?")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("problem=%3D%3F"))
    page.close()
