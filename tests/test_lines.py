"""Names of lines: their order, and the labels that tell variants apart."""

import random

from bigxfer.tables import lines


def test_lines_sort_by_number_and_scratch_comes_last():
    want = [
        "a, 200 images",
        "a, 1,000 images",
        "a, 1,000.5 images",
        "b",
        "b, 2",
        "scratch",
    ]
    mixed = random.Random(0).sample(want, len(want))
    assert sorted(mixed, key=lines.natural) == want
    assert (
        lines.natural("a 2 x 9") < lines.natural("a 2 x 10") < lines.natural("a 3 x 1")
    )
    assert lines.natural("a, 3.")[2] == [3.0] and lines.natural("a, 7,")[2] == [7.0]


def test_shots_sort_by_number_and_full_comes_last():
    assert lines.order({"full", "10", "5", "100", "1"}) == [
        "1",
        "5",
        "10",
        "100",
        "full",
    ]


def row(**more):
    plain = {"kind": "transfer", "target": "t", "model": "R50x1", "upstream": "nih"}
    number = len(more) + sum(map(len, map(str, more.values())))
    about = {
        "study": "s",
        "shots": "5",
        "folder": f"{more}",
        "digest": f"{more}{number}",
    }
    return plain | about | {"settings": "{}"} | more


def test_a_label_says_what_differs_at_one_place_and_no_more():
    rows = [
        row(upstream_size=1000, family="a" * 16),
        row(upstream_size=20_000, family="b" * 16),
        row(upstream_size=20_000, family="b" * 16, shots="10"),
    ]
    named, notes = lines.lines(rows)
    assert {r["line"] for r in named} == {"nih, 1,000 images", "nih, 20,000 images"}
    along, _ = lines.lines(rows, "upstream_size")
    assert {r["line"] for r in along} == {"nih"} and notes == []
    # runs of one family are one, whatever else they say
    alike = [row(steps=10, family="a"), row(steps=9, family="a")]
    assert {r["line"] for r in lines.lines(alike)[0]} == {"nih"}
    # at two places nothing has to be told apart
    apart = [row(steps=10, family="a"), row(steps=9, family="b", shots="10")]
    assert {r["line"] for r in lines.lines(apart)[0]} == {"nih"}


def test_settings_and_then_families_tell_apart_what_no_column_does():
    rows = [
        row(family="abcdefgh", settings='{"optim/momentum": 0.5}'),
        row(family="bbcdefgh"),
    ]
    names = {r["line"] for r in lines.lines(rows)[0]}
    assert names == {"nih, optim.momentum=0.5", "nih, optim.momentum=0.9"}
    rows = [row(family="abcdefgh", seed=1), row(family="bbcdefgh", seed=2)]
    names = {r["line"] for r in lines.lines(rows)[0]}
    assert names == {"nih, family abcdef", "nih, family bbcdef"}


def test_a_study_is_named_in_every_label_where_there_are_two():
    rows = [row(study="s", family="a"), row(study="t", family="b", shots="10")]
    assert {r["line"] for r in lines.lines(rows)[0]} == {"nih, s", "nih, t"}


def test_a_run_that_stands_twice_is_taken_from_the_first_folder():
    twice = [row(digest="d", folder="b"), row(digest="d", folder="a")]
    named, notes = lines.lines([*twice, row(kind="upstream")])
    assert [r["folder"] for r in named] == ["a"]
    assert notes == [
        "1 runs stand twice, such as b: each is taken once, from the folder that sorts first."
    ]


def test_a_head_beside_a_net_that_trains_says_that_it_is_one():
    rows = [
        row(start="ridge head", family="a"),
        row(upstream="scratch", start=None, family="b"),
        row(target="u", start="ridge head", family="c"),
    ]
    found = {(r["target"], r["line"]) for r in lines.lines(rows)[0]}
    assert found == {("t", "nih, ridge head"), ("t", "scratch"), ("u", "nih")}
