"""Make the picture of README: what `fnostab ui` shows of an experiment, in a real browser.

    python docs/make_pictures.py stage_a [--tracking-uri URI]

It needs the `dev` extra and Debian's chromium, and writes docs/images/ui.png.
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

TARGET = Path(__file__).parent / "images" / "ui.png"
SIZE = {"width": 1500, "height": 1060}
COLOURS = 128
LARGEST = 250_000  # bytes
PATIENCE_MS = 60_000
SETTLE_MS = 3_000  # curves are drawn one by one
IN_THE_WAY = ("mlflow.assistant.chat_panel.close",)


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment")
    parser.add_argument("--tracking-uri")
    parser.add_argument("--port", type=int, default=5000)
    given = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("error: there is no chromium: install Debian's package `chromium`")
    command = [sys.executable, "-m", "fnostab", "ui", given.experiment, "--port", str(given.port)]
    if given.tracking_uri:
        command += ["--tracking-uri", given.tracking_uri]
    with shown(command) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(PATIENCE_MS)
        shot = charts(page, address)
        browser.close()
    save(shot)


@contextmanager
def shown(command: list[str]) -> Iterator[str]:
    """Address of the shootout's charts while `fnostab ui` runs."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    printed = []
    try:
        for line in server.stdout or ():
            printed.append(line)
            if found := re.match(r"(http\S+)", line):
                yield found[1]
                return
        sys.exit(f"error: `fnostab ui` shows no shootout:\n{''.join(printed)}")
    finally:
        server.terminate()
        server.wait()


def charts(page: Page, address: str) -> bytes:
    """The page as a PNG, once its first curves are drawn."""
    page.goto(address)
    page.locator(".scatterlayer path.js-line").first.wait_for(state="attached")
    for name in IN_THE_WAY:
        button = page.locator(f'[data-component-id="{name}"]')
        if button.count():
            button.first.click()
    page.wait_for_timeout(SETTLE_MS)
    return page.screenshot()


def save(shot: bytes) -> None:
    """Write it with few colours, which is a quarter of its size."""
    TARGET.parent.mkdir(exist_ok=True)
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(TARGET, optimize=True)
    size = TARGET.stat().st_size
    if size > LARGEST:
        sys.exit(f"error: {TARGET} has {size} bytes, more than {LARGEST}: take fewer colours or a smaller page")
    print(f"{TARGET} ({size / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()
