"""Takes the picture of the search page: docs/images/search_page.png.

Needs playwright (`pip install playwright`), and a browser: a Chromium or Chrome that is
installed already, or `playwright install chromium`. The page has to be served:

    python docs/images/named_music.py results/corpus-300min/test.json results/test-music
    muq-plugins index results/test-music --model results/muq_mulan/1234 \\
        --out results/music.index
    muq-plugins serve --index results/music.index &
    python docs/images/search_page.py http://127.0.0.1:8000 "church organ"
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Playwright, sync_playwright

PICTURE = Path(__file__).with_suffix(".png")
SYSTEM_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
COLOURS = 128


def main(argv: list[str] | None = None) -> None:
    """Searches, and takes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("address", help="of the page that `muq-plugins serve` serves")
    parser.add_argument("query", help="what is searched")
    parser.add_argument("--output", type=Path, default=PICTURE, help="the PNG")
    parser.add_argument("--width", type=int, default=900, help="of the page")
    parser.add_argument("--height", type=int, default=820, help="of the page")
    parser.add_argument("--dark", action="store_true", help="in dark colours")
    arguments = parser.parse_args(argv)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(
            viewport={"width": arguments.width, "height": arguments.height},
            color_scheme="dark" if arguments.dark else "light",
        )
        page.goto(f"{arguments.address}/?{urlencode({'q': arguments.query})}")
        page.screenshot(path=arguments.output)
        browser.close()
    # A page has few colours: a palette makes the file much smaller.
    with Image.open(arguments.output) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(arguments.output, optimize=True)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1000:.0f} kB")


def launch(playwright: Playwright) -> Browser:
    """Starts the browser of playwright, or one that is installed."""
    path = find_browser(playwright)
    if path is None:
        raise SystemExit("There is no browser: run `playwright install chromium`.")
    return playwright.chromium.launch(executable_path=path)


def find_browser(playwright: Playwright) -> str | None:
    """Where a browser is; None if there is none."""
    own = playwright.chromium.executable_path
    if os.path.exists(own):
        return own
    return next(filter(None, map(shutil.which, SYSTEM_BROWSERS)), None)


if __name__ == "__main__":
    main()
