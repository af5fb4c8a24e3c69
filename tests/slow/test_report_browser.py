"""The report in a real browser: phone and desktop, light and dark; no error on the console, no request, no sideways scrolling; the
table of purchases sorts and filters."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from outlay import config as configs
from outlay.report import write_report
from outlay.study import run_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium, or another package that puts `chromium` on the path")]
TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"
POLICY = "script-src '"
PROBE = """const wide = document.documentElement.scrollWidth - innerWidth;
const broken = [...document.images].filter(i => !i.complete || !i.naturalWidth).length;
if (wide > 0 || broken) console.error(`${wide} px too wide, ${broken} broken images`);
console.log(`seen at ${innerWidth}, dark ${matchMedia("(prefers-color-scheme: dark)").matches}`)"""
# Sorts by similarity, twice, then by prompt; then filters by a prompt's first word. Tells the rows that are seen after each step.
USE = """const seen = () => [...document.querySelectorAll("#browse tbody tr")].filter(r => r.offsetParent).map(r => [...r.cells].map(c => c.textContent));
const click = name => [...document.querySelectorAll("#browse th button")].find(b => b.textContent === name).click();
const steps = {first: seen()};
click("similarity"); steps.up = seen(); click("similarity"); steps.down = seen(); click("prompt"); steps.words = seen();
const box = document.getElementById("filter");
box.value = steps.first[3][4].split(" ")[0].toUpperCase(); box.dispatchEvent(new Event("input")); steps.some = seen();
steps.said = document.getElementById("shown").textContent;
console.log("steps " + btoa(unescape(encodeURIComponent(JSON.stringify(steps)))) + " end")"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    config = configs.load(TOY, ["pool.size=120", "pool_per_seed=90", "random_sets=4", "budgets=[8]", "seeds=2"])
    return write_report(run_study(config, tmp_path_factory.mktemp("toy") / "run", quiet=True)).read_text(encoding="utf-8")


def console(html, width, dark, folder, probe=PROBE):
    """What the browser says of the page in a frame of this width (a window cannot be as narrow as a phone). The page's policy stays; it
    allows the probe as it allows the page's own script, by its hash."""
    assert html.count(POLICY) == 1
    known = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    html = html.replace(POLICY, f"script-src 'sha256-{known}' '").replace("</body>", f"<script>{probe}</script></body>")
    (folder / "page.html").write_text(html, encoding="utf-8")
    (folder / "frame.html").write_text(f'<link rel="icon" href="data:,"><iframe src="page.html" style="border:0;width:{width}px;height:4000px"></iframe>', encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--disable-background-networking", f"--user-data-dir={folder / 'profile'}"]
    options += ["--blink-settings=preferredColorScheme=0"] if dark else []
    shot = [f"--window-size={max(width, 500) + 40},4000", f"--screenshot={folder / 'shot.png'}", f"file://{folder / 'frame.html'}"]
    done = subprocess.run([CHROMIUM, *options, *shot], capture_output=True, text=True, timeout=120)
    assert (folder / "shot.png").stat().st_size > 10_000, done.stderr[-2000:]
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_page_opens_without_errors(page, width, dark, tmp_path):
    said = console(page, width, dark, tmp_path)
    assert len(said) == 1 and f"seen at {width}, dark {str(dark).lower()}" in said[0]


@pytest.mark.parametrize("harm", ['<img src="https://example.org/a.png">', '<div style="width: 5000px">.</div>', '<img src="data:image/png;base64,AAAA">'])
def test_the_probe_sees_a_request_a_wide_page_and_a_broken_image(page, harm, tmp_path):
    assert len(console(page.replace("</main>", harm + "</main>"), 390, False, tmp_path)) > 1


def test_the_table_of_purchases_sorts_by_a_click_and_filters(page, tmp_path):
    (said,) = console(page, 1440, False, tmp_path, USE)
    steps = json.loads(base64.b64decode(re.search(r"steps (\S+) end", said)[1]))
    values = {name: [row[7] for row in steps[name]] for name in ("first", "up", "down")}
    numbers = [float(v) for v in values["first"] if v != "–"]
    dashes = ["–"] * (len(values["first"]) - len(numbers))
    assert len(dashes) > 1 and values["first"] != values["up"] != values["down"]
    assert [*map(float, values["up"][: len(numbers)])] == sorted(numbers) and [*map(float, values["down"][: len(numbers)])] == sorted(numbers, reverse=True)
    assert values["up"][len(numbers) :] == values["down"][len(numbers) :] == dashes
    prompts = [row[4] for row in steps["words"]]
    assert prompts == sorted(prompts) != [row[4] for row in steps["first"]]
    word = steps["first"][3][4].split()[0]
    wanted = [row for row in steps["words"] if word in "".join(row)]
    assert steps["some"] == wanted and 0 < len(wanted) < len(prompts) and steps["said"] == f"{len(wanted)} of {len(prompts)} rows."
