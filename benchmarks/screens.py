"""Pictures of HTML and SVG pages in Chromium, wide and narrow, light and dark.

  python benchmarks/screens.py PAGE [PAGE ...] --out FOLDER [--only 1400-light] [--height 2000]

Writes FOLDER/NAME-1400-light.png and so on of each page, to look at before a release: the
whole page, or its first --height pixels. A Markdown page is best given as its page of the
site (`make docs`). docs/images/report.png is made by

  make demo
  python benchmarks/screens.py runs/study_demo/report.html --out docs/images \\
      --only 1400-light --height 2300 --name report

Needs chromium and chromedriver; the Python package selenium is in requirements-dev.txt.
"""

import argparse
import base64
import itertools
import shutil
import sys
import time
from pathlib import Path

from selenium import webdriver

WIDTHS = (1400, 390)  # pixels: a desktop's window, a telephone
THEMES = ("light", "dark")
MOST = 16_000  # pixels high: of more Chromium's screenshots repeat themselves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", help="files, or addresses")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="one view, such as 390-dark")
    parser.add_argument(
        "--height", type=int, help="of the picture; default: the page's"
    )
    parser.add_argument("--name", help="of the picture of --only; default: the page's")
    args = parser.parse_args()
    browser = opened()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        for page, width, theme in itertools.product(args.pages, WIDTHS, THEMES):
            view = f"{width}-{theme}"
            if args.only in (None, view):
                stem = Path(page).stem
                path = args.out / f"{args.name or f'{stem}-{view}'}.png"
                high = take(browser, page, width, theme, args.height, path)
                print(f"{path}  {width} x {high}")
    finally:
        browser.quit()


def opened() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    if not (binary := shutil.which("chromium")):
        sys.exit("error: chromium is not installed")
    options.binary_location = binary
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
    ):
        options.add_argument(flag)
    return webdriver.Chrome(
        options, webdriver.ChromeService(shutil.which("chromedriver"))
    )


def take(
    browser: webdriver.Chrome,
    page: str,
    width: int,
    theme: str,
    height: int | None,
    path: Path,
) -> int:
    """Write one picture; returns its height in CSS pixels."""
    tell = browser.execute_cdp_cmd
    feature = {"name": "prefers-color-scheme", "value": theme}
    tell("Emulation.setEmulatedMedia", {"features": [feature]})
    # A window cannot be as narrow as a telephone; the page then believes that it is.
    size = {
        "width": width,
        "height": 900,
        "deviceScaleFactor": 1,
        "mobile": width < 600,
    }
    tell("Emulation.setDeviceMetricsOverride", size)
    browser.get(page if "://" in page else Path(page).resolve().as_uri())
    time.sleep(2)  # figures are drawn after the page has loaded
    whole = browser.execute_script(
        "return Math.max(document.documentElement.scrollHeight,"
        " document.documentElement.getBoundingClientRect().height)"
    )
    high = min(height or round(whole), MOST)
    clip = {"x": 0, "y": 0, "width": width, "height": high, "scale": 1}
    call = {"format": "png", "captureBeyondViewport": True, "clip": clip}
    shot = tell("Page.captureScreenshot", call)
    path.write_bytes(base64.b64decode(shot["data"]))
    return high


if __name__ == "__main__":
    main()
