"""Photograph the top of a report for the README.

    python docs/screenshot.py outputs/background/lora_replay/<time>/evaluation/report/index.html docs/figures/report.png

Needs Chromium or Chrome on the path, and Pillow.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1280, 760
COLOURS = 64


def main(page: Path, picture: Path) -> None:
    """Write the first screen of a page as a small PNG."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("docs/screenshot.py: no Chromium or Chrome on the path.")
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder, "page.png")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/user"]
        shot = [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={taken}", page.resolve().as_uri()]
        subprocess.run([browser, *options, *shot], check=True, stderr=subprocess.DEVNULL)
        with Image.open(taken) as image:
            image.convert("RGB").quantize(COLOURS).save(picture, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
