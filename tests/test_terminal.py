"""Tables on the terminal: aligned, whole, and the same in a pipe."""

from bigxfer.runs import terminal


def test_a_table_is_aligned_and_never_cut_nor_coloured():
    long = "x" * 300
    cell = "0.903 [0.871, 0.930]"
    text = terminal.columns(
        ("shots", "a", long), [("1", cell, 2), ("full", "[red]", "")]
    )
    head, one, full = text.split("\n")
    assert head == f"shots{'a':>{len(cell) + 2}}  {long}"
    assert one == f"1      {cell}  {2:>300}"
    assert full == f"full{'[red]':>{len(cell) + 3}}"
    assert "\x1b" not in text


def test_columns_of_words_stand_to_the_left():
    lines = terminal.columns(("", "n", "run"), [("a", 10, "b"), ("a", 1, "bb")], (0, 2))
    assert lines.split("\n") == ["    n  run", "a  10  b", "a   1  bb"]
