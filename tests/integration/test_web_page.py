"""The search page in a real browser, with a real, if untrained, model.

Skipped where no browser is installed: `playwright install chromium` installs one.
"""

import importlib.util
import json
import re
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from muq_plugins.inference.cli.main import main
from tests.forks import ROOT, Fork
from tests.integration.commands import run_command
from tests.integration.tiny_mulan import make_mulan, write_chord

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs a browser: pip install playwright"
)
ADDRESS = re.compile(r"http://\S+(?=\s)")
LONG_NAME = "a very long name of a file that does not fit into one line " * 3


def load_script():
    """The script that takes the picture in the docs."""
    path = ROOT / "docs" / "images" / "search_page.py"
    spec = importlib.util.spec_from_file_location("search_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        if script.find_browser(started) is None:
            pytest.skip("no browser is installed: run `playwright install chromium`")
        browser = script.launch(started)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """An index of six files in two folders, one of them with a long name."""
    folder = tmp_path_factory.mktemp("index")
    for number, name in enumerate([*"abc", "low/d", "low/e10", f"low/{LONG_NAME}"]):
        write_chord(folder / "music" / f"{name}.flac", number)
    command = ["index", str(folder / "music"), "--model", make_mulan(folder)]
    assert main([*command, "--out", str(folder / "index")]) == 0
    return folder / "index"


@pytest.fixture(scope="module")
def address(index):
    """Where `muq-plugins serve` serves the index."""
    options = ["--index", index, "--port", "0", "--device", "cpu"]
    server = Fork("muq_plugins", "serve", *options)
    printed = Path(server.folder.name, "out")
    while not printed.exists() or not (found := ADDRESS.search(printed.read_text())):
        assert server.process.is_alive(), server.result().stderr
        time.sleep(0.05)
    yield found[0]
    server.kill()


@pytest.fixture
def page(browser, address):
    """A new page; nothing on it may fail or ask another server."""
    page = browser.new_page(viewport={"width": 900, "height": 800})
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    yield page
    page.close()
    # A mistake in a query is a status of 400, which the browser notes.
    assert [text for text in messages if "400 (Bad Request)" not in text] == []
    assert all(url.startswith((address, "data:")) for url in requests)


def names(page):
    return page.locator("h3.name").all_inner_texts()


def search(page, text):
    """Types a query as somebody without a mouse would: the box has the focus."""
    playwright.expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=*")


def wait_until_played(player):
    """Waits for the first sounds; the page lets nobody evaluate text, so not there."""
    end = time.monotonic() + 20
    while player.evaluate("player => player.currentTime") < 0.2:
        assert time.monotonic() < end, "the audio does not play"
        time.sleep(0.05)


def test_typing_a_query(page, index, capsys):
    search(page, "slow solo cello")
    found = names(page)
    assert len(found) == 6
    assert page.title() == "slow solo cello - Music search"
    assert page.get_by_role("searchbox", name="Describe the music").input_value() == (
        "slow solo cello"
    )
    assert main(["search", "slow solo cello", "--index", str(index), "--json"]) == 0
    matches = json.loads(capsys.readouterr().out)["matches"]
    assert found == [Path(match["path"]).name for match in matches]
    scores = page.locator(".score b").all_inner_texts()
    assert scores == [f"{match['score']:.3f}" for match in matches]


def test_listening(page):
    search(page, "piano")
    players = page.locator("audio")
    with page.expect_response("**/audio/*") as response:
        players.nth(0).focus()
        page.keyboard.press("Space")
    assert response.value.status == 206  # a part of the file
    wait_until_played(players.nth(0))
    assert 2.9 < players.nth(0).evaluate("player => player.duration") < 3.1
    # Another one begins, and the first one stops.
    players.nth(1).focus()
    page.keyboard.press("Space")
    wait_until_played(players.nth(1))
    assert players.nth(0).evaluate("player => player.paused")


def test_more_like_a_result(page):
    search(page, "choir")
    second = names(page)[1]
    page.get_by_role("link", name=f"More like {second}").click()
    assert page.locator("h2").inner_text() == f"Most like {second}"
    assert len(names(page)) == 5 and second not in names(page)


def test_a_file_of_the_index(page):
    page.get_by_text("Or start from a file of the index").click()
    page.get_by_label("Name of the file").fill("c.flac")
    page.get_by_role("button", name="Find similar music").click()
    assert page.locator("h2").inner_text() == "Most like c.flac"
    assert "c.flac" not in names(page)


def test_only_a_folder(page):
    search(page, "choir")
    everything = names(page)
    page.get_by_label("Only in folder").fill("low")
    page.keyboard.press("Enter")
    page.wait_for_url("**folder=low")
    below = [x for x in everything if x not in ("a.flac", "b.flac", "c.flac")]
    assert names(page) == below and len(below) == 3
    # It is kept, by a new query and by what is like a result.
    search_box = page.get_by_role("searchbox")
    search_box.fill("organ")
    search_box.press("Enter")
    page.wait_for_url("**q=organ*")
    assert sorted(names(page)) == sorted(below)
    page.get_by_role("link", name=f"More like {below[0]}").click()
    page.wait_for_url("**like=*")
    assert sorted(names(page)) == sorted(below[1:])
    page.get_by_label("Only in folder").fill("")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**folder=")
    assert len(names(page)) == 5
    page.goto(f"{page.url.split('?')[0]}?q=choir&folder=lows")
    assert "No indexed file is in a folder called lows" in (
        page.get_by_role("alert").inner_text()
    )


def test_sorting(page):
    search(page, "choir")
    found = names(page)
    sort = page.get_by_label("Sort by")
    sort.select_option("name")
    assert [x[:1] for x in names(page)] == [*"abcade"]
    sort.select_option("score")
    assert names(page) == found
    sort.focus()
    page.keyboard.press("End")  # without a mouse
    assert sort.input_value() == "duration"
    sort.select_option("score")
    lengths = "[10.5, 10.25, 9.75, 100, 3, 10.125]"
    page.locator("li").evaluate_all(
        f"rows => rows.forEach((x, n) => x.dataset.duration = {lengths}[n])"
    )
    sort.select_option("duration")
    assert names(page) == [found[place] for place in (4, 2, 5, 1, 0, 3)]


def test_mistakes_are_announced(page):
    page.get_by_role("button", name="Search").click()
    assert "The query is empty" in page.get_by_role("alert").inner_text()
    box = page.get_by_role("searchbox")
    assert box.get_attribute("aria-invalid") == "true"
    page.goto(f"{page.url.split('?')[0]}?file=nowhere.flac")
    assert "No indexed file is called" in page.get_by_role("alert").inner_text()
    # To correct it at once.
    playwright.expect(page.get_by_label("Name of the file")).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type("b.flac")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?file=b.flac")
    assert len(names(page)) == 5


@pytest.mark.parametrize("text", ["🎻" * 5000, "慢 solo виолончель " * 600])
def test_long_queries(page, text):
    page.get_by_role("searchbox").fill(text)
    page.get_by_role("button", name="Search").click()
    page.wait_for_selector("h2")
    assert len(names(page)) == 6
    assert (
        "tokens at their ends are left out" in page.get_by_role("status").inner_text()
    )
    assert page.get_by_role("searchbox").input_value().strip() == text.strip()


@pytest.mark.parametrize("width", [320, 600, 1400])
def test_it_fits_every_width(page, width):
    page.set_viewport_size({"width": width, "height": 700})
    search(page, "x" * 300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert any(name.startswith(LONG_NAME[:40]) for name in names(page))


def test_the_picture_in_the_readme(browser, address, tmp_path):
    """The script that takes it, as one runs it."""
    picture = tmp_path / "page.png"
    path = ROOT / "docs" / "images" / "search_page.py"
    options = ["--out", picture, "--width", 700, "--height", 500]
    done = run_command(sys.executable, path, address, "slow solo cello", *options)
    assert f"{picture}: " in done.stdout
    with Image.open(picture) as image:
        assert image.size == (700, 500)
        assert len(image.convert("RGB").getcolors()) > 10  # it is not blank
    assert picture.stat().st_size < 200_000
