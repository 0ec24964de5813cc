"""README and docs: short, whole, and their commands name what is there."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml

from bigxfer import __main__ as console
from bigxfer import config, presets

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
COMMAND = re.compile(r"^ +(bigxfer (?:[^\n\\]|\\\n)+)", re.MULTILINE)
STANDS_FOR = ("my_study.py", "FILE", "NAME")  # what the reader fills in


def commands():
    for page in PAGES:
        for text in COMMAND.findall(page.read_text()):
            yield page.name, re.sub(r"\\\n\s*", "", text).partition("   #")[0]


def test_the_readme_fits_on_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_command_is_one_and_its_config_is_there():
    found = list(commands())
    assert len(found) > 25
    for page, text in found:
        words = shlex.split(text)
        known = {**console.MODULES, **console.GROUPS, **console.OWN}
        assert words[1] in known, f"{page}: {text}"
        for flag, value in itertools.pairwise(words):
            if flag in ("--config", "--against"):
                file, _, arg = value.partition(":")
                if not file.startswith(STANDS_FOR):
                    presets.find(file)
                    arg = re.sub(r"=\$\w+", "=FOLDER", arg)
                    config.resolve(presets.load(f"{file}:{arg}"))


def test_every_page_can_be_reached():
    """From the site's menu, or by a link of another page or the README."""
    listed = set(re.findall(r"\b\w+\.md\b", (ROOT / "mkdocs.yml").read_text()))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert listed <= pages
    for page in PAGES:
        links = re.findall(r"\]\((?:docs/)?(\w+\.md)\b", page.read_text())
        listed |= set(links) - {page.name}
    assert pages <= listed


def test_the_containers_copy_what_is_there_and_all_that_the_wheel_needs():
    docker = (ROOT / "containers" / "Dockerfile").read_text()
    copied = set()
    for line in re.findall(r"^COPY (.+)$", docker, re.MULTILINE):
        copied |= set(line.split()[:-1])
    definition = (ROOT / "containers" / "bigxfer.def").read_text()
    files = definition.partition("%files")[2].partition("%post")[0].split()
    assert copied == set(files[::2])
    assert {"bigxfer", "launch", "configs", "setup.py", "pyproject.toml"} <= copied
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(ignored)
    assert all((ROOT / name).exists() for name in copied)


def test_the_citation_has_the_version_of_the_package():
    import bigxfer

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == bigxfer.__version__ and cited["license"] == "Apache-2.0"


def test_make_results_rewrites_its_tables_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import results

    before = results.PAGE.read_text()
    configs = [name for _, name, _ in results.BLOCK.findall(before)]
    assert [c.partition(":")[0] for c in configs] == [
        "configs/study_covid_cxr.py",
        "configs/study_demo.py",
    ]
    for name in configs:
        presets.find(name.partition(":")[0])
    made = "SYNTHETIC auroc on toy\n   shots  scratch\n       1  0.5"
    page = tmp_path / "results.md"
    page.write_text(before)
    monkeypatch.setattr(results, "PAGE", page)
    monkeypatch.setattr(results, "of_study", lambda folder: made)
    monkeypatch.setattr(results.folders, "commit", lambda: "c" * 40)
    calls = []
    monkeypatch.setattr(
        results.subprocess, "run", lambda call, check: calls.append(call)
    )
    monkeypatch.setattr("sys.argv", ["results"])
    results.main()
    after = page.read_text()
    assert [call[4] for call in calls] == ["configs/study_demo.py"]  # no --data
    assert "    SYNTHETIC auroc on toy\n       shots  scratch\n" in after
    assert f"Commit {'c' * 12}, 20" in after
    real, demo = (results.BLOCK.search(text)[0] for text in (before, after))
    assert real == demo  # the block of the real radiographs stands
    assert (
        after.partition("<!-- end -->\n\nNear upstreams")[2]
        == (before.partition("<!-- end -->\n\nNear upstreams")[2])
    )
    monkeypatch.setattr(results.folders, "commit", lambda: "c" * 40 + "-dirty")
    with pytest.raises(SystemExit, match="commit them first"):
        results.main()


def test_the_six_commands_are_read_from_the_readme(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import six_commands

    pieces = six_commands.pieces((ROOT / "README.md").read_text())
    words = [re.findall(r"bigxfer (\w+)", command) for _, command in pieces]
    assert words == [
        ["audit"], ["train"], ["transfer"], ["predict"], ["export"], ["study"]
    ]  # fmt: skip
    # Nothing that the commands need is an extra.
    needed = (ROOT / "requirements.txt").read_text()
    assert "flatbuffers" in needed and "matplotlib" in needed
