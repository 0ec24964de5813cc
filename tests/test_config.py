import dataclasses
import re
from pathlib import Path

import pytest

from bigxfer import config, presets
from bigxfer.config import schema

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def test_json_roundtrip_and_digest():
    run = config.resolve(config.Run(seed=3, optim=config.Optim(lr=1)))
    again = config.from_dict(config.to_dict(run))
    assert again == run
    assert config.digest(again) == config.digest(run)
    assert len(config.digest(run)) == 16


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("data.root=/elsewhere", True),
        ("data.cache=/scratch", True),
        ("mesh.fsdp=4", True),
        ("log.every=1", True),
        ("init.checkpoint=/x/params.npz", True),
        ("init.digest=ab", False),
        ("seed=1", False),
        ("data.shots=5", False),
        ("optim.lr=0.1", False),
        ("model.width=2.0", False),
    ],
)
def test_digest_covers_what_changes_the_numbers(change, same):
    run = config.Run()
    name, _, text = change.partition("=")
    *section, field = name.split(".")
    part = getattr(run, section[0]) if section else run
    setattr(part, field, type(getattr(part, field))(text))
    assert (config.digest(run) == config.digest(config.Run())) is same


def test_from_dict_names_the_neighbours_of_an_unknown_field():
    with pytest.raises(config.ConfigError, match="momentun.*did you mean momentum"):
        config.from_dict({"optim": {"momentun": 1.0}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "both"}, "config.kind is 'both'"),
        ({"data.uncertain": "maybe"}, "config.data.uncertain is 'maybe'"),
        ({"data.shots": "many"}, "config.data.shots"),
        ({"data.shots": "0"}, "config.data.shots"),
        ({"data.crop": 300, "data.resize": 200}, "crop=300 exceeds resize=200"),
        ({"optim.micro_batch": 3}, "must divide batch"),
        ({"optim.schedule": "step"}, "one of config.optim.steps and"),
        ({"eval.select": "loss", "data.valid": 0.0}, "needs a validation split"),
    ],
)
def test_resolve_refuses(changes, message):
    run = config.Run()
    for name, value in changes.items():
        *section, field = name.split(".")
        setattr(getattr(run, section[0]) if section else run, field, value)
    with pytest.raises(config.ConfigError, match=message):
        config.resolve(run)


def test_tuple_flags_split_on_commas():
    run = config.Run()
    run.data.views = ("PA,AP",)
    run.data.labels = ("",)
    run = config.resolve(run)
    assert run.data.views == ("PA", "AP")
    assert run.data.labels == ()


def test_model_names():
    assert presets.bit("R152x4").blocks == (3, 8, 36, 3)
    assert presets.bit("R26x0.5").width == 0.5
    assert presets.bit("R1-2-3-4x1.5").blocks == (1, 2, 3, 4)
    for bad in ("R51x1", "resnet50", "R50"):
        with pytest.raises(config.ConfigError, match=bad):
            presets.bit(bad)


def test_arg_strings():
    values = presets.parse_arg("res=64,flag", res=224, flag=False, model="R50x1")
    assert values == {"res": 64, "flag": True, "model": "R50x1"}
    with pytest.raises(config.ConfigError, match="'rez'.*did you mean res"):
        presets.parse_arg("rez=64", res=224, model="R50x1")
    with pytest.raises(config.ConfigError, match="int expected"):
        presets.parse_arg("res=big", res=224)


def test_standin_leaves_what_the_user_set():
    run = presets.load("configs/upstream_nih.py:model=R26x0.5,res=32,steps=7")
    small = presets.standin(run, {"model", "res", "steps"})
    assert (small.model.width, small.data.crop, small.optim.steps) == (0.5, 32, 7)
    default = presets.standin(presets.load("configs/upstream_nih.py"), set())
    assert default.data.phantom.images > 0
    assert (default.model.width, default.data.crop) == (0.25, 64)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_config_resolves_and_opens_with_its_command(path):
    module = presets.load_module(str(path))
    run = config.resolve(module.get_config())
    assert run == config.from_dict(config.to_dict(run))
    commands = re.findall(r"--config (configs/[^\s)]+)", module.__doc__)
    assert {c.partition(":")[0] for c in commands} == {f"configs/{path.name}"}
    for command in commands:
        config.resolve(presets.load(command))  # its args are those of the config


def test_no_option_that_nothing_reads():
    """Every leaf of the schema is read by name somewhere in the package."""
    text = "\n".join(p.read_text() for p in (ROOT / "bigxfer").rglob("*.py"))
    reads = set(re.findall(r"\.(\w+)\b(?!\s*=[^=])", text))
    unread = [n for n in config.flat(config.Run()) if n.split("/")[-1] not in reads]
    assert unread == []


def test_every_field_has_one_place():
    """Without one, nobody knows whether it names runs and what is compiled for it."""
    names = [row[0] + name for row in schema.PLACES for name in row[1].split()]
    assert sorted(names) == sorted(config.flat(config.Run()))
    words = {word for row in schema.PLACES for word in row[2].split()}
    assert words == {"digest", "program", "images", "rows"}


def test_a_data_field_says_which_images_there_are_or_which_are_used():
    for name, (words, _) in config.places().items():
        assert len(words & {"images", "rows"}) == name.startswith("data/"), name


def test_a_later_field_is_left_out_of_the_digest_at_its_default():
    later = [name for name, (_, since) in config.places().items() if since]
    assert {"model/slim", "freeze/head", "data/phantom/severity"} <= set(later)
    run = config.Run()
    run.data.fraction = 0.5
    assert config.digest(run) != config.digest(config.Run())


def test_only_resets_what_lacks_the_word():
    run = config.Run(seed=3, model=config.Model(width=2.0))
    run.init.kind, run.data.views, run.data.phantom.seed = "gabor", ("PA",), 7
    run.data.crop = 96
    program, images = (config.only(run, word) for word in ("program", "images"))
    want = config.Run(model=config.Model(width=2.0), data=config.Data(crop=96))
    assert program == want
    want = config.Run(data=config.Data(views=("PA",)))
    want.data.phantom.seed = 7
    assert images == want


def test_every_field_has_a_default():
    for field in dataclasses.fields(config.Run):
        missing = dataclasses.MISSING
        assert (field.default is not missing) or (field.default_factory is not missing)


def test_an_upstream_of_another_seed_is_named_by_its_arg():
    first, third = (
        presets.load(f"configs/upstream_nih.py:res=64{arg}") for arg in ("", ",seed=3")
    )
    assert (first.seed, third.seed) == (0, 3)
    assert config.digest(first) != config.digest(third)
    assert config.settings(first) == config.settings(third)
