"""The summary of a study on the terminal: tables of means, and each line against scratch."""

from test_families import NoPredictions, rows

from bigxfer.tables import summary


def some(lines, shots=("5", "10"), **more):
    """Rows of `lines`, each its own upstream, as a table holds them."""
    out = []
    for i, line in enumerate(lines):
        for r in rows("m", line, 0.5 + i / 10, shots):
            about = {"kind": "transfer", "upstream": line, "synthetic": False}
            r = r | about | {"digest": r["folder"], "settings": "{}", "study": "s"}
            out.append(r | more)
    return out


def text(rows):
    return summary.text(rows, NoPredictions(), "accuracy")


def test_up_to_four_lines_stand_abreast():
    told = text(some(["a", "b", "c", "scratch"])).splitlines()
    assert told[1] == "accuracy on t, m, 95% intervals"
    assert told[2].split() == ["shots", "a", "b", "c", "scratch"]
    assert told[3].split()[0] == "5" and told[4].split()[0] == "10"
    assert told[3].count("n=2") == 4 and "0.800 [" in told[3]
    five = text(some(["a", "b", "c", "d", "scratch"])).splitlines()
    first = [line.split() for line in five[2:12]]
    assert [(w[0], w[-1]) for w in first] == [
        (shots, line)
        for shots in ("5", "10")
        for line in ("a", "b", "c", "d", "scratch")
    ]


def test_each_line_is_compared_with_scratch_alone():
    told = text(some(["a", "b", "scratch"], ("5",)))
    heads = [line.strip() for line in told.splitlines() if " minus " in line]
    same = "same draws and same test images:"
    assert heads == [f"a minus scratch, {same}", f"b minus scratch, {same}"]
    below = told.splitlines()[told.splitlines().index(f"  {heads[0]}") + 1]
    assert below.startswith("       5  -0.200 [") and "; no p: one upstream" in below


def test_what_is_not_there_is_said():
    assert text([]) == "no finished transfer"
    rows = some(["a", "scratch"], ("5",))
    for row in rows[:1]:
        row |= {"accuracy": None, "lacking": "no label of x"}
    told = text(rows)
    assert "  - stands for no accuracy: no label of x" in told
    (line,) = [x for x in told.splitlines() if x.split()[:1] == ["5"] and "n=" in x]
    assert line.split()[1] == "-"
    assert "SYNTHETIC accuracy on t" in text(some(["a"], ("5",), synthetic=True))
    assert "SYNTHETIC" not in told
