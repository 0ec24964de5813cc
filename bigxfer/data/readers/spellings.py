"""One meaning, several spellings: cells and names as people write them.

Only what can mean one thing is translated. What could mean two, such as the patients
"007" and "7", is an error of `Table.check_spellings`, which compares by `fold`.
"""

import re
import unicodedata

import numpy as np

# Unknown, in columns where an empty cell means unknown; compared in lower case.
BLANK = {
    *(
        "",
        "nan",
        "<na>",
        "na",
        "n/a",
        "#n/a",
        "null",
        "none",
        "unknown",
        "unk",
        "?",
        "-",
    )
}
NO_LABEL = {"nan", "<na>", "n/a", "#n/a", "null"}  # what programs write for no label
# Patients that are nobody: what anonymisation writes, and BLANK.
NAMELESS = BLANK | {"anonymous", "anonymized", "anonymised", "anon", "deidentified"}

MARKS = {  # words in a column of 0 and 1; single t and f are left out: a sex may be "F"
    **dict.fromkeys(("true", "yes", "y", "positive"), 1.0),
    **dict.fromkeys(("false", "no", "n", "negative"), 0.0),
}
SEXES = {  # in lower case; "o" is DICOM's other, a group too small to be told of
    **dict.fromkeys(("f", "female", "woman"), "F"),
    **dict.fromkeys(("m", "male", "man"), "M"),
    **dict.fromkeys(("o", "other", "u"), ""),
}
SPLITS = {  # names of split folders and cells, in lower case
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "validate"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
VIEWS = {  # letters of a view, without POSTURE -> its name here
    **dict.fromkeys(("pa", "posteroanterior"), "PA"),
    **dict.fromkeys(("ap", "anteroposterior"), "AP"),
    **dict.fromkeys(("apsupine", "aphorizontal"), "AP Supine"),
    **dict.fromkeys(("l", "lat", "lateral", "ll", "rl"), "L"),
    **dict.fromkeys(("leftlateral", "rightlateral"), "L"),
}
# Words that leave the projection as it is. Supine is none of them: PadChest keeps it apart.
POSTURE = {
    "erect",
    "upright",
    "standing",
    "semi",
    "semierect",
    "portable",
    "view",
    "chest",
}
NUMBERED = re.compile(r"(\D*?)0*(\d+)(?:\.0+)?")  # a name with one number, at its end


def mark(cell: str) -> float | None:
    """1, 0, -1 (uncertain) or NaN (blank) of a cell; None where it is none of these."""
    word = cell.casefold()
    if word in BLANK:
        return float("nan")
    if word in MARKS:
        return MARKS[word]
    try:
        value = float(word)
    except ValueError:
        return None
    return value if value in (1, 0, -1) else None


def splits(*names: str) -> dict[str, str]:
    """{name: split} of the only names that a set's own files use."""
    return {name: SPLITS[name] for name in names}


def split(text: str) -> str | None:
    """train, valid, test, "" for a blank cell; None where it is none of these."""
    word = text.casefold()
    return "" if word in BLANK else SPLITS.get(word)


def sex(text: str) -> str | None:
    """F, M, "" where it is unknown or another; None where it is none of these."""
    word = text.casefold()
    return "" if word in BLANK else SEXES.get(word)


def age(text: str) -> str | None:
    """Years, such as "57" of 57, 57.0, 057Y; "" where unknown; None where no number.

    "006M" and "012D", months and days as DICOM writes them, are parts of a year.
    """
    if text.casefold() in BLANK:
        return ""
    unit = {"y": 1.0, "m": 12.0, "w": 52.0, "d": 365.0}.get(text[-1:].casefold())
    try:
        years = float(text[:-1] if unit else text) / (unit or 1.0)
    except ValueError:
        return None
    return f"{years:g}" if np.isfinite(years) else None


def source(text: str) -> str:
    """The cell, "" where it means unknown."""
    return "" if text.casefold() in BLANK else text


def view(text: str) -> str:
    """PA, AP, AP Supine or L, "" where it is unknown; other views as they are."""
    if text.casefold() in BLANK:
        return ""
    words = re.findall(r"[^\W_]+", text.casefold())
    return VIEWS.get("".join(w for w in words if w not in POSTURE), text)


def fold(text: str) -> str:
    """Equal for names that differ only by case, blanks, leading zeros or a last ".0"."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = " ".join(text.casefold().split())
    number = NUMBERED.fullmatch(text)
    return "".join(number.groups()) if number else text
