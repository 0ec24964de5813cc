"""Rankings of encoders whose settings were chosen on the test images (tables/probes.py)."""

import math
from collections.abc import Sequence
from html import escape

from bigxfer.report.style import Panel, pretty, shots_name, table_html
from bigxfer.tables import probes
from bigxfer.tables.lines import order
from bigxfer.tables.probes import Ranking
from bigxfer.tables.table import Row


def rankings(rows: Sequence[Row]) -> list[Ranking]:
    """One for each set and number of shots; none without probes."""
    places = {cell[:2] for cell in probes.cells(rows)}
    return [
        probes.ranking(rows, target, shots)
        for target in sorted({target for target, _ in places})
        for shots in order({s for t, s in places if t == target})
    ]


def panels(found: Sequence[Ranking]) -> list[Panel]:
    """A sentence and a table for each ranking."""
    return [
        Panel(
            "ranking",
            target=r.target,
            metric="accuracy",
            shots=r.shots,
            html=f"{escape(sentence(r))} {_table(r)}",
        )
        for r in found
    ]


def opening(found: Sequence[Ranking]) -> list[str]:
    """All rankings together, where there are several, and the one that depends most on
    the choice of the setting."""
    if not found:
        return []
    # The one that depends most on the choice, of which a reader has to know.
    most = sentence(min(found, key=lambda r: r.at_all / r.pairs))
    return [most] if len(found) == 1 else [_together(found), f"Least sure: {most}"]


def _together(found: Sequence[Ranking]) -> str:
    pairs, survive, at_all = (
        sum(getattr(r, name) for r in found) for name in ("pairs", "survive", "at_all")
    )
    none = sum(r.survive == 0 for r in found)
    return (
        f"Rankings: of {pairs:,} pairs of encoders in {len(found)} rankings test sampling"
        f" alone tells {survive:,} apart (Holm within each ranking), and {at_all:,} of these"
        f" keep their order at every setting; in {none} rankings no pair is told apart."
    )


def sentence(r: Ranking) -> str:
    """What survives of an order, and what the choice of the setting adds."""
    where = f"{pretty(r.target)}, {shots_name(r.shots)}"
    lucky = [100 * e.luck for e in r.encoders]
    gain = [100 * (e.value - e.elsewhere) for e in r.encoders]
    text = (
        f"{where}: test sampling alone ({r.images:,} images, as if each encoder had its"
        f" own) tells {r.survive} of {r.pairs} pairs of encoders apart (Holm); {r.at_all}"
        " of these keep their order at every setting. Choosing the setting on the test"
        f" images adds at most {max(max(lucky), 0):.2f} points by chance"
    )
    # With one set alone there are no other sets to choose a setting by.
    if all(map(math.isfinite, gain)):
        text += (
            f", and {sum(gain) / len(gain):.1f} points (mean; {min(gain):.1f} to {max(gain):.1f}) over"
            f" the setting that is best on the other sets; by that {r.reversed} of"
            f" {r.pairs} pairs change their order"
        )
    return (
        f"{text}. One seed: neither another training nor another draw is covered; several"
        " draws, and a setting chosen on validation images, would settle the order."
    )


def _table(r: Ranking) -> str:
    head = ("place", "encoder", "accuracy, best setting", "of this by chance, at most")
    head += ("accuracy, setting of the other sets",)
    lines = [
        (
            f"{e.first}" + (f" to {e.last}" if e.last > e.first else ""),
            escape(e.name),
            f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]",
            # An estimate, which can come out below 0; a choice of the best cannot lose.
            f"{max(e.luck, 0):.4f}",
            f"{e.elsewhere:.3f}" if math.isfinite(e.elsewhere) else "-",
        )
        for e in r.encoders
    ]
    summary = (
        "<summary>The ranking, with the places that test sampling leaves</summary>"
    )
    return f"<details>{summary}{table_html(head, lines)}</details>"
