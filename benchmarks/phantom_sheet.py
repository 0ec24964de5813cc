"""A contact sheet of the phantom's findings, to look at: a row each, with the box
of the truth on the last image.

python benchmarks/phantom_sheet.py sheet.png [pixels] [distance] [finding ...]
"""

import sys

import numpy as np
from PIL import Image, ImageDraw

from bigxfer.data.phantom import draw, findings


def main() -> None:
    out, *rest = sys.argv[1:]
    size = int(rest[0]) if rest else 192
    distance = float(rest[1]) if len(rest) > 1 else 0.0
    names = rest[2:] or ["", *findings.OF_THE_SCENE]
    columns = 6
    sheet = Image.new("L", (columns * size, len(names) * size))
    for row, name in enumerate(names):
        for column in range(columns):
            rng = np.random.default_rng([row, column])
            body = draw.person(rng, distance)
            style = draw.scanner(column % 3, distance)
            names = [name] if name else []
            image, boxes = findings.radiograph(size, body, style, names, rng)
            tile = Image.fromarray(image)
            pen = ImageDraw.Draw(tile)
            pen.text((2, 2), name or "normal", fill=255)
            for _, box in boxes if column == columns - 1 else []:
                pen.rectangle(box, outline=255)
            sheet.paste(tile, (column * size, row * size))
    sheet.save(out)


if __name__ == "__main__":
    main()
