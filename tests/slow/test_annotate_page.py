"""The annotation page in a real browser: nothing that was written is lost, whatever is reloaded, killed or done by two at once."""

import json
import multiprocessing

import pytest

from .browser import CHROMIUM, MISSING, Browser

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason=MISSING)]
pytest.importorskip("fastapi", reason="needs the extra annotate")

FORK = multiprocessing.get_context("fork")
TEXT = "document.getElementById('response').value"


class Run:
    """A run with a hand-off, and its server."""

    def __init__(self, root):
        self.root, self.folder, self.process = root, root / "handoff" / "round-001", None
        self.folder.mkdir(parents=True)

    def ask(self, count, *, kind="response", annotators=1, prompt="Prompt number {}: why?"):
        drafts = ["The first draft.", "The second draft."] if kind == "preference" else ["A draft."]
        rows = [{"id": f"p{i}", "prompt": prompt.format(i), "group": "g", "drafts": drafts, "round": 1, "kind": kind, "why": {}, "annotators": annotators} for i in range(count)]
        (self.folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def start(self):
        """-> two links. The server is a process of its own, to be killed."""
        from outlay.annotate.page import serve

        here, there = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=serve, args=(self.root,), kwargs={"links": 2, "say": there.send}, daemon=True)
        self.process.start()
        there.close()  # so that a server that dies ends the wait below
        return [here.recv() for _ in range(2)]

    def kill(self):
        self.process.kill()
        self.process.join()

    def collected(self):
        path = self.folder / "annotations.jsonl"
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "run")
    yield run
    if run.process and run.process.is_alive():
        run.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def come_in(browser, link, name, **look):
    page = browser.page(link, **look)
    page.until("document.activeElement.id === 'name'")
    page.type(name)
    page.press("Enter")
    page.until("state && document.getElementById('door').hidden")
    return page


def write(page, text):
    """Replace what is in the box, by the keyboard."""
    page.js("document.getElementById('response').focus(); document.getElementById('response').select()")
    page.type(text)


def test_a_reload_in_mid_sentence_loses_no_key_and_the_answer_arrives_with_its_time(run, browser):
    run.ask(2)
    page = come_in(browser, run.start()[0], "Ann")
    page.until(f"{TEXT} === 'A draft.'")
    write(page, "Because of the")
    page.send("Page.reload")  # at once: before the server was told
    page.until(f"item && {TEXT} === 'Because of the'")
    page.js("document.getElementById('response').setSelectionRange(99, 99)")
    page.type(" sky.\u2028ü")
    page.press("Enter", ctrl=True)
    page.until("state.done === 1 && item.id === 'p1'")
    (row,) = run.collected()
    assert (row["prompt_id"], row["response"], row["annotator"], row["round"]) == ("p0", "Because of the sky.\u2028ü", "Ann", 1) and 0 < row["seconds"] < 600 and row["at"]
    assert page.complaints() == []


def test_a_server_killed_in_mid_sentence_and_started_again_loses_nothing(run, browser):
    run.ask(1)
    page = come_in(browser, run.start()[0], "Ann")
    write(page, "Half a sen")
    page.until("document.getElementById('saved').textContent === 'saved'")
    run.kill()
    page.js("document.getElementById('response').setSelectionRange(99, 99)")
    page.type("tence, and the rest without a server.")
    page.until("document.getElementById('saved').textContent.includes('does not answer')")
    page.press("Enter", ctrl=True)
    page.until("document.getElementById('trouble').textContent.includes('kept in this browser')")
    link = run.start()[1]  # on the same port: the open page goes on by itself
    page.until("document.getElementById('saved').textContent === 'saved'")
    elsewhere = come_in(browser, link, "Ann")  # another browser of the same person: the text is on the server
    elsewhere.until(f"{TEXT} === 'Half a sentence, and the rest without a server.'")
    elsewhere.press("Enter", ctrl=True)
    elsewhere.until("state.done === 1 && !item")
    assert [row["response"] for row in run.collected()] == ["Half a sentence, and the rest without a server."]


def test_two_annotators_at_once_get_different_prompts_and_each_prompt_one_answer(run, browser):
    run.ask(6)
    pages = [come_in(browser, link, name) for link, name in zip(run.start(), ("Ann", "Ben"), strict=True)]
    for _ in range(3):
        assert pages[0].js("item.id") != pages[1].js("item.id")
        before = [page.js("item.id") for page in pages]
        for page in pages:
            write(page, f"{page.js('state.name')} answers {page.js('item.id')}")
            page.press("Enter", ctrl=True)
        for page, key in zip(pages, before, strict=True):
            page.until(f"!item || item.id !== '{key}'")
    rows = run.collected()
    assert sorted(row["prompt_id"] for row in rows) == [f"p{i}" for i in range(6)]
    assert all(row["response"] == f"{row['annotator']} answers {row['prompt_id']}" for row in rows)


def test_a_prompt_for_two_annotators_is_answered_by_both(run, browser):
    run.ask(1, annotators=2)
    for link, name in zip(run.start(), ("Ann", "Ben"), strict=True):
        page = come_in(browser, link, name)
        page.until("item && item.id === 'p0'")
        write(page, f"by {name}")
        page.press("Enter", ctrl=True)
        page.until("!item")
    assert {(row["annotator"], row["response"]) for row in run.collected()} == {("Ann", "by Ann"), ("Ben", "by Ben")}


def test_a_preference_is_chosen_by_one_key_and_is_the_text_that_was_seen(run, browser):
    run.ask(8, kind="preference")
    page = come_in(browser, run.start()[0], "Ann")
    seen = {}
    for number in range(8):
        page.until(f"item && item.id === 'p{number}'")
        seen[f"p{number}"] = page.js("document.querySelectorAll('.side span')[1].textContent")
        page.press("2", "Digit2")
        page.until("document.querySelectorAll('.side')[1].getAttribute('aria-checked') === 'true'")
        page.press("Enter")
    page.until("!item")
    assert {row["prompt_id"]: row["chosen"] for row in run.collected()} == seen
    assert len(set(seen.values())) == 2  # the drafts change sides


def test_a_skip_has_a_reason_and_undo_brings_the_text_back(run, browser):
    run.ask(2)
    page = come_in(browser, run.start()[0], "Ann")
    write(page, "A wrong answer.")
    page.press("Enter", ctrl=True)
    page.until("item.id === 'p1'")
    page.press("u", "KeyU", alt=True)
    page.until(f"item.id === 'p0' && {TEXT} === 'A wrong answer.'")
    assert run.collected() == []
    page.press("s", "KeyS", alt=True)
    page.until("document.getElementById('why').open")
    page.js("document.getElementById('other').focus()")
    page.type("ambiguous")
    page.press("Enter")
    page.until("item.id === 'p1'")
    assert [(row["kind"], row["reason"], row["response"]) for row in run.collected()] == [("skip", "ambiguous", "")]


def test_an_empty_answer_is_not_sent_and_a_prompt_cannot_bring_a_script(run, browser):
    run.ask(1, prompt="<img src=x onerror=\"document.title='broken in'\"><b>{}</b>")
    page = come_in(browser, run.start()[0], "Ann")
    page.until("document.getElementById('prompt').textContent.includes('<b>0</b>')")
    write(page, " ")
    page.press("Enter", ctrl=True)
    page.until("document.getElementById('trouble').textContent.includes('empty')")
    assert run.collected() == [] and page.js("document.title") == "Outlay: annotate" and page.js("document.images.length") == 0


def test_a_link_lets_one_browser_in_and_a_used_one_says_so(run, browser):
    run.ask(1)
    link = run.start()[0]
    come_in(browser, link, "Ann")
    page = browser.page(link)
    page.until("document.activeElement.id === 'name'")
    page.type("Eve")
    page.press("Enter")
    page.until("document.getElementById('trouble').textContent.includes('used before')")
    assert page.js("state === null && document.getElementById('work').hidden")


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", ["response", "preference"])
def test_the_page_fits_a_phone_and_a_desk_in_light_and_dark(width, dark, kind, run, browser, tmp_path):
    run.ask(3, kind=kind, prompt="A long line without a blank: " + "x" * 200 + "\n\nand a list\n- of things {}")
    page = come_in(browser, run.start()[0], "Ann with rather a long name, as some have", width=width, dark=dark)
    page.until("item")
    assert page.js("document.documentElement.scrollWidth - innerWidth") <= 0 and page.js("innerWidth") == width
    assert (page.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") != dark
    boxes = page.js("[...document.querySelectorAll('nav button')].filter(b => b.offsetParent).map(b => { const r = b.getBoundingClientRect(); return [r.left, r.right, r.bottom, r.height]; })")
    assert boxes and all(left >= 0 and right <= width and bottom <= 844 and height >= 40 for left, right, bottom, height in boxes)  # in reach of a thumb
    page.shot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 5000
