"""What a launcher says at its end of runs whose files are damaged. All runs are made up."""

import csv
import json

import pytest
from make_run import make_run, seal

from bigxfer.study import grid
from launch import local


@pytest.fixture
def study(tmp_path):
    """(config, runs, folders): three finished runs, and the cache that they name."""
    runs, folders = tmp_path / "runs", []
    for seed in range(3):
        made = seal(make_run(tmp_path / "new", "R1-1x0.25", seed=seed))
        about = json.loads((made / "config.json").read_text())
        runs.mkdir(exist_ok=True)
        folders.append(made.rename(runs / about["digest"]))
    path = tmp_path / "study_made.py"
    path.write_text(
        "from bigxfer import config\n\n"
        f"def get_config(arg=''):\n    return config.from_dict({about['config']!r})\n\n"
        "def sweep(arg=''):\n    for seed in range(3):\n        yield {'seed': seed}\n"
    )
    nodes = grid.nodes(str(path))
    assert [runs / n.digest for n in nodes[1:]] == folders
    nodes[0].folder(runs).mkdir(parents=True)
    (nodes[0].folder(runs) / "result.json").write_text("{}")
    return str(path), runs, folders


def conclude(study, capsys):
    """(exit status, what was said, digests in the table)."""
    path, runs, _ = study
    status = local.conclude(grid.nodes(path), path, runs)
    said = capsys.readouterr()
    with (runs / "study_made" / "table.csv").open(newline="") as file:
        digests = {row["digest"] for row in csv.DictReader(file)}
    assert (runs / "study_made" / "report.html").is_file()
    return status, said.out + said.err, digests


def test_damage_is_named_and_no_run_is_dropped_in_silence(study, capsys):
    """Damaged predictions, an emptied result, a metric that cannot be, and all sound."""
    _, _, (first, second, third) = study
    digests = {f.name for f in (first, second, third)}
    assert conclude(study, capsys)[0::2] == (0, digests)

    path = first / "predictions.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    status, said, found = conclude(study, capsys)
    assert status == 1 and found == digests  # its metrics are in result.json
    assert f"{path} is damaged" in said and "n=3" in said

    (second / "result.json").write_text("")
    status, said, found = conclude(study, capsys)
    assert status == 1 and found == digests - {second.name}
    assert "result.json is empty" in said and "1 of 4 are not done" in said

    result = json.loads((third / "result.json").read_text())
    result["metrics"]["auroc_macro"]["value"] = 2.482
    (third / "result.json").write_text(json.dumps(result))
    seal(third)
    status, said, found = conclude(study, capsys)
    assert status == 1 and found == {first.name}
    assert "not in the table" in said and "2.482" in said
