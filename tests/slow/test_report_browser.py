"""The report in a real browser: phone and desktop, light and dark; no error on the console, no request, no sideways scrolling; the
slider moves the map, points say what they are to pointer and keyboard, the table of purchases sorts and filters."""

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
from outlay.report.compare import compare
from outlay.study import run_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium, or another package that puts `chromium` on the path")]
TOY = Path(__file__).parents[2] / "configs" / "toy.yaml"
POLICY = "script-src '"
PROBE = """addEventListener("load", () => {
const wide = document.documentElement.scrollWidth - innerWidth;
const broken = [...document.images].filter(i => !i.complete || !i.naturalWidth).length;
if (wide > 0 || broken) console.error(`${wide} px too wide, ${broken} broken images`);
console.log(`seen at ${innerWidth}, dark ${matchMedia("(prefers-color-scheme: dark)").matches}`);
})"""
# Sorts by similarity, twice, then by prompt; then filters by a prompt's first word. Tells the rows that are seen after each step.
USE = """const seen = () => [...document.querySelectorAll("#browse tbody tr")].filter(r => r.offsetParent).map(r => [...r.cells].map(c => c.textContent));
const click = name => [...document.querySelectorAll("#browse th button")].find(b => b.textContent === name).click();
const steps = {first: seen()};
click("similarity"); steps.up = seen(); click("similarity"); steps.down = seen(); click("prompt"); steps.words = seen();
const box = document.getElementById("filter");
box.value = steps.first[3][4].split(" ")[0].toUpperCase(); box.dispatchEvent(new Event("input")); steps.some = seen();
steps.said = document.getElementById("shown").textContent;
"""


# Moves the slider, changes campaign and embedding, goes through the map by keyboard and by pointer. Tells what is seen after each step.
MAP = """const get = id => document.getElementById(id), slider = get("map-round"), map = get("map"), tip = map.parentElement.querySelector(".tip");
const seen = () => ({said: get("map-said").textContent, drawn: [...map.querySelectorAll(".picks")].map(p => p.getAttribute("d").split("M").length - 1), max: slider.max});
const change = (id, value, type) => { get(id).value = value; get(id).dispatchEvent(new Event(type)); return seen(); };
const steps = {pool: (map.querySelector(".pool").getAttribute("d").match(/M/g) || []).length, start: seen()};
steps.none = change("map-round", 0, "input"); steps.two = change("map-round", 2, "input");
const before = map.querySelector(".pool").getAttribute("d");
change("map-space", 1, "change"); steps.moved = map.querySelector(".pool").getAttribute("d") !== before; steps.still = seen();
steps.other = change("map-campaign", [...get("map-campaign").options].findIndex(o => o.text === "random m=1"), "change");
const press = key => { map.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true})); return tip.hidden ? "" : tip.textContent; };
steps.keys = [press("ArrowRight"), press("ArrowRight"), press("ArrowLeft"), press("Escape")];
press("ArrowRight");
const box = map.querySelector(".ring").getBoundingClientRect(), where = {clientX: box.left + box.width / 2, clientY: box.top + box.height / 2, bubbles: true};
press("Escape"); map.dispatchEvent(new PointerEvent("pointermove", where)); steps.pointed = tip.textContent;
map.dispatchEvent(new PointerEvent("pointerleave", where)); steps.left = tip.hidden;
"""
FRONT = """const stage = document.querySelector(".front"), points = [...stage.querySelectorAll(".point")], tip = stage.querySelector(".tip"), steps = {labels: points.map(p => p.getAttribute("aria-label"))};
const at = points[1].getBoundingClientRect(), where = {clientX: at.left + at.width / 2, clientY: at.top + at.height / 2, bubbles: true};
stage.dispatchEvent(new PointerEvent("pointermove", where)); steps.hover = tip.textContent; steps.lit = points.map(p => p.classList.contains("lit"));
const frame = stage.getBoundingClientRect(), note = tip.getBoundingClientRect(); steps.inside = note.left >= frame.left - 1 && note.right <= frame.right + 1;
stage.dispatchEvent(new PointerEvent("pointermove", {clientX: frame.left + 2, clientY: frame.top + 2, bubbles: true})); steps.away = tip.hidden;
points[0].focus(); points[0].dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true, cancelable: true}));
steps.focus = points.indexOf(document.activeElement); steps.stops = points.map(p => p.tabIndex);
"""
SAY = 'console.log("steps " + btoa(unescape(encodeURIComponent(JSON.stringify(steps)))) + " end")'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = configs.load(TOY, ["pool.size=120", "pool_per_seed=90", "random_sets=4", "budgets=[8]", "seeds=2"])
    return run_study(config, tmp_path_factory.mktemp("toy") / "run", quiet=True)


@pytest.fixture(scope="module")
def page(run):
    return write_report(run).read_text(encoding="utf-8")


def console(html, width, dark, folder, probe=PROBE):
    """What the browser says of the page in a frame of this width (a window cannot be as narrow as a phone). The page's policy stays; it
    allows the probe as it allows the page's own script, by its hash."""
    assert html.count(POLICY) == 1
    known = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    html = html.replace("script-src 'none'", f"script-src 'sha256-{known}'").replace("script-src 'sha256-", f"script-src 'sha256-{known}' 'sha256-").replace("</body>", f"<script>{probe}</script></body>")
    (folder / "page.html").write_text(html, encoding="utf-8")
    (folder / "frame.html").write_text(f'<link rel="icon" href="data:,"><iframe src="page.html" style="border:0;width:{width}px;height:4000px"></iframe>', encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--disable-background-networking", f"--user-data-dir={folder / 'profile'}"]
    options += ["--blink-settings=preferredColorScheme=0"] if dark else []
    shot = [f"--window-size={max(width, 500) + 40},4000", f"--screenshot={folder / 'shot.png'}", f"file://{folder / 'frame.html'}"]
    done = subprocess.run([CHROMIUM, *options, *shot], capture_output=True, text=True, timeout=600)
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


def steps_of(html, width, folder, probe):
    """What the probe saw. Any other line on the console, as of an error or a request, fails."""
    (said,) = console(html, width, False, folder, f"{{{probe}{SAY}}}")  # a block: the page's own names stay its own
    found = re.search(r"steps (\S+) end", said)
    assert found, said
    return json.loads(base64.b64decode(found[1]))


@pytest.mark.parametrize("width", [390, 1440])
def test_the_slider_moves_the_map_and_the_keyboard_reads_it(page, width, tmp_path):
    steps = steps_of(page, width, tmp_path, MAP)
    assert steps["pool"] == 90 and steps["start"] == {"said": steps["start"]["said"], "drawn": [2, 2, 2, 2], "max": "4"}
    assert steps["none"]["drawn"] == [] and steps["none"]["said"].startswith("Before the first round of 4")
    assert steps["two"]["drawn"] == [2, 2] and steps["two"]["said"].startswith("Round 2 of 4: 2 prompts bought, 4 so far.") and steps["start"]["said"].startswith("Round 4 of 4")
    assert steps["moved"] and steps["still"] == steps["two"]  # another embedding leaves the slider where it is
    assert steps["other"]["drawn"] == [8] and steps["other"]["max"] == "1"
    first, second, back, gone = steps["keys"]
    assert first.startswith("round 1, rank 1 · ") and second.startswith("round 1, rank 2 · ") and back == first and gone == ""
    assert steps["pointed"].startswith("round 1, rank ") and steps["left"]


@pytest.mark.parametrize("width", [390, 1440])
def test_a_point_of_the_front_names_its_campaign_to_pointer_and_keyboard(page, width, tmp_path):
    steps = steps_of(page, width, tmp_path, FRONT)
    assert steps["hover"] in steps["labels"] and [label for label, lit in zip(steps["labels"], steps["lit"], strict=True) if lit] == [steps["hover"]]
    assert re.match(r"\w+ m=\d.*: accuracy \d+\.\d \[.*FLOPs, \$.*on the front with probability", steps["hover"])
    assert steps["inside"] and steps["away"]
    assert steps["focus"] == 1 and steps["stops"] == [-1, 0, *[-1] * (len(steps["stops"]) - 2)]


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1440, True)])
def test_a_comparison_opens_without_errors(run, width, dark, tmp_path):
    config = configs.load(TOY, ["pool.size=120", "pool_per_seed=90", "random_sets=4", "budgets=[8]", "seeds=2", "trainer={use: toy, epochs: 9}"])
    other = run_study(config, tmp_path / "other", quiet=True)
    html = compare(run, other, tmp_path / "compared").read_text(encoding="utf-8")
    assert len(console(html, width, dark, tmp_path)) == 1


def test_the_table_of_purchases_sorts_by_a_click_and_filters(page, tmp_path):
    steps = steps_of(page, 1440, tmp_path, USE)
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
