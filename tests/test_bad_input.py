"""Bad input stops with a clear error before training, and nothing made is lost."""

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bigxfer import config, presets, train, transfer, tree
from bigxfer.runs import finished, job

pytestmark = pytest.mark.usefixtures("single_device")

ROOT = Path(__file__).parents[1]
TOY = "model=R1-1x0.125,res=32,batch=8,steps=2"


@pytest.fixture(scope="module", autouse=True)
def programs():
    """Runs of one shape train by one program, as those of a launcher's worker do."""
    sharing = functools.partial(job.execute, shared={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "execute", sharing)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished toy upstream on the phantom, and its cache."""
    folder = tmp_path_factory.mktemp("made")
    run = load(f"configs/upstream_nih.py:{TOY},phantom=32", folder)
    train.main(run, presets.arg_keys(run.arg), str(folder / "up"))
    return folder


def load(name, folder):
    run = presets.load(name)
    run.data.cache, run.eval.resamples = str(folder / "cache"), 0
    return run


def target(made, **changes):
    """A toy transfer from the made upstream."""
    run = load(f"configs/covidx_hyperrule.py:{TOY},phantom=32", made)
    run.init.checkpoint = str(made / "up")
    for name, value in changes.items():
        section, field = name.split("__")
        setattr(getattr(run, section), field, value)
    return run


def refuses(made, run, message, tmp_path):
    """transfer raises `message` and has trained nothing."""
    with pytest.raises((ValueError, OSError), match=message):
        transfer.main(run, presets.arg_keys(run.arg), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not (tmp_path / "run" / "config.json").exists()


def csv_set(folder, rows, header="file,label,patient_id,split"):
    """Own images: metadata.csv and a grey PNG for every row that does not say no."""
    from PIL import Image

    folder.mkdir()
    (folder / "metadata.csv").write_text("\n".join([header, *rows]) + "\n")
    for i in range(12):
        Image.new("L", (40, 40), 20 * i).save(folder / f"{i}.png")
    return str(folder)


GOOD = [f"{i}.png,{'ab'[i % 2]},p{i},{'test' if i > 7 else 'train'}" for i in range(12)]


def test_missing_root(made, tmp_path):
    run = target(made, data__root=str(tmp_path / "nowhere"), data__reader="csv")
    refuses(made, run, r"data\.root: looked for the folder .*nowhere", tmp_path)


def test_missing_column(made, tmp_path):
    root = csv_set(tmp_path / "set", ["0.png,a,train"], "file,label,split")
    run = target(made, data__root=root, data__reader="csv")
    refuses(made, run, r"metadata\.csv.*patient", tmp_path)


def test_label_outside_the_set(made, tmp_path):
    root = csv_set(tmp_path / "set", GOOD)
    run = target(made, data__root=root, data__reader="csv", data__labels=("a", "c"))
    refuses(made, run, r"'?c'?", tmp_path)


def test_image_listed_but_absent_and_one_that_does_not_decode(made, tmp_path):
    root = csv_set(tmp_path / "set", GOOD)
    run = target(made, data__root=root, data__reader="csv")
    (Path(root) / "5.png").write_bytes(b"not an image")
    refuses(made, run, r"(?s)1 of 12.*5\.png: not an image.*max_bad", tmp_path)
    (Path(root) / "3.png").unlink()
    refuses(made, run, r"(?s)3\.png: absent.*max_bad", tmp_path)
    run = target(made, data__root=root, data__reader="csv", data__max_bad=0.2)
    run.data.valid = 0.0
    transfer.main(run, presets.arg_keys(run.arg), str(tmp_path / "run"))
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [bad[0] for bad in about["data"]["undecodable"]] == ["3.png", "5.png"]


def test_more_shots_than_a_class_has(made, tmp_path):
    root = csv_set(tmp_path / "set", GOOD)
    run = target(made, data__root=root, data__reader="csv", data__shots="30")
    refuses(made, run, r"30.*(a|b)", tmp_path)


def test_checkpoint_of_another_width(made, tmp_path):
    run = target(made)
    run.model.width = 0.25
    refuses(made, run, r"block1.*beta is \(8,\), the model wants \(16,\)", tmp_path)


def test_unknown_model_is_told_before_any_image_is_drawn(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the upstream would be trained
    run = target(made, model__name="resnet51", init__checkpoint="")
    run.data.cache = str(tmp_path / "cache")
    refuses(made, run, "unknown model 'resnet51'; did you mean resnet50", tmp_path)
    folder = tmp_path / "execute"  # as a launcher's worker calls it
    with pytest.raises(ValueError, match="unknown model 'resnet51'"):
        job.execute(config.resolve(run), folder)
    assert not (tmp_path / "cache").exists() and not folder.exists()


def test_a_config_of_the_other_main_is_refused(made, tmp_path):
    upstream = load(f"configs/upstream_nih.py:{TOY},phantom=32", made)
    refuses(made, upstream, r"kind=upstream.*bigxfer\.train", tmp_path)
    with pytest.raises(ValueError, match=r"kind=transfer.*bigxfer\.transfer"):
        train.main(target(made), {"phantom"}, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["auroc_makro", "auroc_macro"])
def test_selection_that_validation_cannot_give(made, tmp_path, monkeypatch, name):
    """Misspelt, or of a class that no validation image has; told before compiling."""
    monkeypatch.setattr(job.compiled, "get", lambda *_: pytest.fail("compiled"))
    run = target(made, eval__select=name, eval__every=1)
    refuses(made, run, rf"eval\.select='{name}' cannot.*'auroc_micro'", tmp_path)


def test_training_starts_from_what_is_named_and_is_called_by_it(made, tmp_path):
    """Two starts are two runs: the digest of what a run starts from is in its own."""
    run = load(f"configs/upstream_nih.py:{TOY},phantom=32", made)
    run.init.kind = "pretrained"
    with pytest.raises(ValueError, match="name what to start from"):
        train.main(run, presets.arg_keys(run.arg), str(tmp_path / "run"))
    run.init.checkpoint = str(made / "up")
    train.main(run, presets.arg_keys(run.arg), str(tmp_path / "run"))
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    first = json.loads((made / "up" / "config.json").read_text())["digest"]
    assert about["config"]["init"]["digest"] == first != about["digest"]


def test_missing_and_extra_parameter(made, tmp_path):
    flat = tree.flatten(tree.load_npz(made / "up" / "params.npz"))
    name = "block2/unit01/a/group_norm/gamma"
    flat["block2/unit09/a/group_norm/gamma"] = flat.pop(name)
    tree.save_npz(tmp_path / "other.npz", tree.unflatten(flat))
    run = target(made, init__checkpoint=str(tmp_path / "other.npz"))
    refuses(made, run, rf"(?s)missing: {name}.*extra: block2/unit09", tmp_path)


def test_one_flipped_bit_in_params(made, tmp_path):
    shutil.copytree(made / "up", tmp_path / "up")
    path = tmp_path / "up" / "params.npz"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(10):
        broken = bytearray(whole)
        broken[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        run = target(made, init__checkpoint=str(tmp_path / "up"))
        refuses(made, run, "damaged", tmp_path)


def test_unfinished_upstream_and_no_upstream(made, tmp_path, monkeypatch):
    (tmp_path / "half").mkdir()
    run = target(made, init__checkpoint=str(tmp_path / "half"))
    refuses(made, run, "no finished run", tmp_path)
    root = csv_set(tmp_path / "set", GOOD)
    run = target(made, data__root=root, data__reader="csv", init__checkpoint="")
    monkeypatch.chdir(tmp_path)
    refuses(made, run, r"(?s)python -m bigxfer\.train --config .*init\.kind", tmp_path)


def test_work_folder_of_another_run(made):
    run = target(made)
    before = {p: p.read_bytes() for p in (made / "up").iterdir() if p.is_file()}
    with pytest.raises(ValueError, match="another config's run"):
        transfer.main(run, presets.arg_keys(run.arg), str(made / "up"))
    assert all(p.read_bytes() == old for p, old in before.items())


def test_a_finished_run_whose_result_is_damaged_is_done_again(made, tmp_path):
    folder = shutil.copytree(made / "up", tmp_path / "up")
    want = json.loads((folder / "result.json").read_text())["metrics"]
    run = load(f"configs/upstream_nih.py:{TOY},phantom=32", made)
    (folder / "result.json").write_text("")
    train.main(run, presets.arg_keys(run.arg), str(folder))
    assert json.loads((folder / "result.json").read_text())["metrics"] == want
    assert finished.read(folder).parameters().is_file()


def test_resume_with_other_data_is_refused(made, tmp_path):
    root = csv_set(tmp_path / "set", GOOD)
    run = target(made, data__root=root, data__reader="csv")
    run.data.valid = 0.0
    folder = tmp_path / "run"
    transfer.main(run, presets.arg_keys(run.arg), str(folder))
    (folder / "result.json").unlink()
    path = Path(root) / "metadata.csv"
    path.write_text(path.read_text().replace("0.png,a", "0.png,b"))
    with pytest.raises(ValueError, match="begun with other data"):
        transfer.main(run, presets.arg_keys(run.arg), str(folder))


def test_loss_that_is_not_finite_names_the_step(made, tmp_path):
    run = target(made)
    run.optim.lr, run.optim.steps, run.optim.warmup_steps = 1e30, 8, 1
    run.checkpoints = 4
    with pytest.raises(FloatingPointError, match=r"at step \d+.*lower"):
        transfer.main(run, presets.arg_keys(run.arg), str(tmp_path / "run"))
    kept = [p for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdigit()]
    assert kept, "the last good checkpoint is kept"


def test_memory_that_is_too_small_names_the_micro_batch_that_fits(made, tmp_path):
    run = target(made)
    run.mesh.memory_gb = 0.0005  # four of the eight images
    with pytest.raises(ValueError, match=r"micro_batch=\d+"):
        transfer.main(run, presets.arg_keys(run.arg), str(tmp_path / "run"))
    run.optim.micro_batch = -1
    transfer.main(run, presets.arg_keys(run.arg), str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.optim.lrr=1"], "config.optim.lr"),
        (["--config.optim.learning_rate=1"], r"mean config\.optim\.lr\?"),
        (["--config.optim.steps=many"], "invalid literal"),
        (["--config", "configs/upstream_nih.py:rez=64"], "did you mean res"),
        (["--config", "configs/nothing.py"], "no config file"),
        (["stray"], "not a flag: stray"),
    ],
)
def test_flags(flags, message):
    call = [
        sys.executable,
        "-m",
        "bigxfer.train",
        "--config",
        "configs/upstream_nih.py",
    ]
    done = subprocess.run(
        [*call, *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert re.search(message, said)
    assert "Traceback" not in said
