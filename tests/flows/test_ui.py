"""Prefect's own UI in a browser without a screen: form, run page, artifact, retry. Run by `pytest -m browser`.

It needs Playwright (`pip install playwright`) and a Chromium (`apt-get install chromium`); pictures of every step lie
in the folder that REVAL_SCREENSHOTS names, else in pytest's own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from served_site import Site, run_id_of, wait_for
from small_run import BATCH, value

pytestmark = [pytest.mark.slow, pytest.mark.browser]
WAIT_MS = 240_000


@pytest.fixture(scope="module")
def page(chromium: Any) -> Any:
    """A page that is wide enough for Prefect's forms."""
    opened = chromium.new_page(viewport={"width": 1400, "height": 1200})
    opened.set_default_timeout(WAIT_MS)
    return opened


def field(page: Any, label: str) -> Any:
    """The input under the first label of that name."""
    labels = page.locator("label").filter(has_text=re.compile(f"^{re.escape(label)}"))
    return labels.first.locator("xpath=following::*[self::input or self::textarea][1]")


def test_a_run_from_the_form_to_its_retry(site: Site, page: Any, pictures: Path) -> None:
    ui = str(site.api.base_url).rstrip("/").removesuffix("/api")
    deployment = site.call("GET", "/deployments/name/train/quickstart").json()["id"]
    page.goto(f"{ui}/deployments/deployment/{deployment}/run")
    submit = page.get_by_role("button", name="Submit")
    submit.wait_for()
    for told in (
        "Configuration file, on the machine that runs it.",
        "Rounds on top of those that are there.",
        "Response tokens at most; a response cut here is truncated. (at least 1)",
    ):
        page.get_by_text(told).wait_for()  # once, else it is an error
    field(page, "beta").fill("-1")
    submit.click()
    page.get_by_text("settings.objective.beta").first.wait_for()  # refused, with the field named
    page.screenshot(path=pictures / "1-refused.png")

    field(page, "beta").fill("0.07")
    field(page, "iterations").fill("12")
    page.screenshot(path=pictures / "2-form.png", full_page=True)
    submit.click()
    page.wait_for_url(re.compile("/runs/flow-run/|tab=Runs"))
    newest = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    flow_run = site.call("POST", "/flow_runs/filter", newest).json()[0]["id"]
    given = site.run(flow_run)["parameters"]["settings"]
    assert (given["objective"]["beta"], given["run"]["iterations"]) == (0.07, 12)

    process = site.process_of(flow_run)
    run_id = site.run_id(flow_run)
    wait_for(lambda: site.rounds(run_id) >= 2)
    sampled = value(site.home, "SELECT count(*) FROM run_trajectories WHERE run_id = $r", r=run_id)
    process.kill()
    site.until(flow_run, "CRASHED")
    page.goto(f"{ui}/runs/flow-run/{flow_run}")
    page.get_by_text(f"train {run_id}").first.wait_for()
    retry = page.get_by_role("button", name="Retry")
    retry.wait_for()
    page.screenshot(path=pictures / "3-crashed.png")
    retry.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=re.compile("Retry|Confirm")).click()
    ended = site.until_after(flow_run, "CRASHED", "COMPLETED")
    assert ended["run_count"] == 2
    assert run_id_of(ended) == run_id
    stored = value(site.home, "SELECT count(*) FROM run_trajectories WHERE run_id = $r", r=run_id)
    assert (sampled % BATCH < BATCH, stored) == (True, 12 * BATCH)

    page.reload()
    page.get_by_text("Artifacts", exact=True).click()
    page.screenshot(path=pictures / "4-run.png")
    page.locator("a", has_text=f"reval-{run_id}").first.click()
    page.get_by_role("heading", name=run_id).first.wait_for()
    page.get_by_text("12 of 12 rounds").wait_for()
    image = page.get_by_role("img", name="Learning curve")
    image.wait_for()
    # the curve is drawn, not a broken picture, of which this would be an error
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 200
    page.screenshot(path=pictures / "5-artifact.png", full_page=True)
