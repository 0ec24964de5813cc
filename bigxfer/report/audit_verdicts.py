"""What an audit found, in sentences: leaks, repeated images, shortcuts.

A probe is judged by the interval of its AUROC, not by the value: SHORTCUT and CHANCE are
the two borders, RULE says it in words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scipy  # scipy.special

CHANCE = 0.5  # of an AUROC
# Our choice: a probe that ranks 6 of 10 pairs of images right can lift a net as much as
# many differences between upstreams that a study is made to find.
SHORTCUT = 0.6
SEES = {
    "rim": "only the border of the image",
    "size": "only how many pixels wide and high the file is",
    "view": "only the name of the view",
    "source": "only the name of the source",
    "pixels": "only the image shrunk to 32 x 32 pixels",
}
RULE = (
    f"A shortcut: the 95% interval of the AUROC, over patients, lies above {SHORTCUT:g} for"
    " the mean of the classes, or for one class after Bonferroni over the classes. A trace:"
    f" that of the mean lies above {CHANCE:g}. None: it ends below {SHORTCUT:g}. Open: it"
    f" holds both {CHANCE:g} and {SHORTCUT:g}, so more patients are needed. A classifier that"
    " tells the sources apart is a shortcut only where the source tells the classes apart."
    " Each is a logistic regression, judged on patients that it was not fitted on, and by"
    " itself: of 40 that see nothing of use, one is a trace by chance."
)


@dataclass(frozen=True)
class Verdict:
    """A sentence, and the word that it is marked by."""

    mark: str  # LEAK, REPEATED, SHORTCUT, TRACE, OPEN, UNKNOWN, LOST or CLEAR
    text: str
    grave: bool = False


ORDER = ["LEAK", "SHORTCUT", "REPEATED", "LOST", "UNKNOWN", "OPEN", "TRACE", "CLEAR"]


def verdicts(report: dict[str, Any]) -> list[Verdict]:
    """The sentences on what audit.audit gives, the gravest first."""
    sentences = []
    names = [label(s) for s in report["sets"]]
    for where in ("within", "against"):
        if where in report:
            within = where == "within"
            place = f"{names[0]}" if within else f"{names[0]} and {names[-1]}"
            sentences += [*shared_patients(report[where], place, within)]
            sentences += repeated(report[where]["pairs"], place, within)
    sentences += [lost(s) for s in report["sets"] if s["report"].get("undecodable")]
    probes = report["probes"]
    # The source is a shortcut only to a net that can read the class off it.
    by_source = [p for p in probes if (p["name"], p["target"]) == ("source", "class")]
    told = any(shortcut(p).mark == "SHORTCUT" for p in by_source)
    sentences += [shortcut(p, told or p["target"] == "class") for p in probes]
    if not report["probes"]:
        text = "Shortcuts were not looked for: too few patients, or no class has two sides."
        sentences.append(Verdict("UNKNOWN", text))
    # What makes a result wrong first, whatever its kind; then by kind.
    return sorted(sentences, key=lambda v: (not v.grave, ORDER.index(v.mark)))


def shared_patients(found: dict[str, Any], place: str, within: bool) -> list[Verdict]:
    people = found["patients in two splits" if within else "patients in both"]
    where = f"in two splits of {place}" if within else f"in both {place}"
    if people["count"] is None:
        text = f"Whether a patient is {where} is not known: {people['why']}."
        return [Verdict("UNKNOWN", text)]
    if not people["count"]:
        return [Verdict("CLEAR", f"No patient is {where}, by the patients' names.")]
    some = ", ".join(people["first"][:3])
    what = "test results are too good" if within else "a transfer is tested on them"
    text = f"{counted(people['count'], 'patient is', 'patients are')} {where} ({some}"
    more = ", ..." if people["count"] > 3 else ""
    return [Verdict("LEAK", f"{text}{more}): {what}.", True)]


def repeated(
    pairs: Sequence[dict[str, Any]], place: str, within: bool
) -> list[Verdict]:
    """Pairs of equal and of nearly equal images; grave where a result depends on them."""
    where = f"within {place}" if within else f"between {place}"
    if not pairs:
        return [Verdict("CLEAR", f"No image was found twice {where}.")]
    exact = sum(p["exact"] for p in pairs)
    kinds = {"equal images": exact, "nearly equal images": len(pairs) - exact}
    counts = [
        f"{n:,} {'pair' if n == 1 else 'pairs'} of {what}"
        for what, n in kinds.items()
        if n
    ]
    details = {
        "across splits": sum(p["across splits"] for p in pairs) if within else 0,
        "of two patients": sum(p["same patient"] is False for p in pairs),
        "with different labels": sum(p["labels differ"] for p in pairs),
    }
    qualities = ", ".join(f"{n:,} {what}" for what, n in details.items() if n)
    # Equal images of one split and one label make no test result too good.
    grave = not within or details["across splits"] or details["with different labels"]
    text = f"{' and '.join(counts)} {where}{f': {qualities}' if qualities else ''}."
    return [Verdict("REPEATED", text, bool(grave))]


def label(of_set: dict[str, Any]) -> str:
    """What a set is called: by its reader, or own images by their folder's name."""
    is_own = of_set["name"] in ("csv", "folder") and of_set["root"]
    return Path(of_set["root"]).name if is_own else of_set["name"]


def lost(of_set: dict[str, Any]) -> Verdict:
    bad = len(of_set["report"]["undecodable"])
    what = counted(bad, "image", "images")
    return Verdict("LOST", f"{what} of {label(of_set)} cannot be decoded; left out.")


def shortcut(probe: dict[str, Any], told: bool = True) -> Verdict:
    """The verdict of RULE on one probe; `told`: whether its target tells the classes."""
    what = "the sources" if probe["target"] == "source" else "the classes"
    macro = probe["auroc"]["macro"]
    text = f"A classifier that sees {SEES[probe['name']]} separates {what} at"
    text += f" an AUROC of {cell(macro)}"
    name, lowest = most_certain(probe["auroc"])
    # Named only where it is clearer than the mean.
    if name and lowest > (macro["low"] or 0):
        text += f", {name} from the others at {cell(probe['auroc'][name])}"
    lows = [low for low in (macro["low"], lowest) if low is not None]
    if max(lows, default=0) > SHORTCUT:
        if not told:
            return Verdict("TRACE", f"{text}, but no class is told by the source.")
        return Verdict("SHORTCUT", f"{text}: a shortcut.", True)
    if macro["low"] is None:
        return Verdict("OPEN", f"{text}: too few patients for an interval.")
    if macro["low"] > CHANCE:
        return Verdict("TRACE", f"{text}: more than chance, not told to be a shortcut.")
    if macro["high"] < SHORTCUT:
        return Verdict("CLEAR", f"{text}: no shortcut.")
    return Verdict("OPEN", f"{text}: open, for lack of patients.")


def most_certain(by_class: dict[str, dict]) -> tuple[str, float]:
    """(the class with the highest lower limit, that limit after Bonferroni).

    ("", -inf) where there is none: of two classes both are the mean.
    """
    judged = {
        k: v for k, v in by_class.items() if k != "macro" and v["low"] is not None
    }
    classes = len(by_class) - 1
    if not judged or classes < 3:
        return "", -math.inf
    # By normal quantiles: of an interval that is given the distribution is not known.
    wider = scipy.special.ndtri(0.025 / classes) / scipy.special.ndtri(0.025)
    lows = {k: v["value"] - wider * (v["value"] - v["low"]) for k, v in judged.items()}
    name = max(lows, key=lambda k: lows[k])
    return name, lows[name]


def cell(entry: dict[str, Any]) -> str:
    """0.82 [0.80, 0.85], in the two digits that a sentence needs."""
    if entry["low"] is None:
        return f"{entry['value']:.2f}"
    return f"{entry['value']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]"


def counted(n: int, one: str, more: str) -> str:
    return f"{n:,} {one if n == 1 else more}"
