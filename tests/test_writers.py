"""Curves beside metrics.jsonl: TensorBoard, W&B offline, MLflow's file store."""

import struct

import pytest

from bigxfer import config
from bigxfer.runs import job
from bigxfer.training import writers
from bigxfer.training.log import RunLog

CURVE = {1: {"loss": 0.5, "valid/auroc/No (x)": 0.75}, 2: {"loss": 0.25}}
METRICS = {
    "auroc_macro": {"value": 0.8, "low": 0.7, "high": 0.9},
    "auprc_macro": {"value": None, "low": None, "high": None, "why": "no positives"},
}
FINAL = {"test/auroc_macro": 0.8, "test/auroc_macro_low": 0.7}


def about(**fields):
    run = config.Run(seed=7)
    told = {"digest": "d" * 16, "commit": "c" * 40, "synthetic": True}
    return {**told, "config": config.to_dict(run), **fields}


def logged(folder, name, last=2):
    """A RunLog that has begun with this writer and written CURVE up to a step."""
    folder.mkdir(exist_ok=True)
    log = RunLog(folder, config.Log(writers=(name,)), primary=True)
    log.begin(about())
    for step, values in CURVE.items():
        if step <= last:
            log.scalars(step, values)
    return log


def test_an_absent_package_is_named_with_its_pip_line_before_the_data_are_opened(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    run = config.Run(kind="upstream")
    run.data.root, run.optim.schedule, run.optim.steps = "/nowhere", "constant", 1
    for name in ("wandb", "mlflow"):
        run.log.writers = (name,)
        with pytest.raises(config.ConfigError, match=f"pip install {name}"):
            job.execute(config.resolve(run), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_an_unknown_writer_is_refused():
    run = config.Run(log=config.Log(writers=("tensorbord",)))
    run.optim.schedule, run.optim.steps = "constant", 1
    with pytest.raises(config.ConfigError, match="'tensorbord'; there are tensorboard"):
        config.resolve(run)


def test_a_config_with_the_old_name_is_read():
    for old, new in ((True, ("tensorboard",)), (False, ())):
        assert config.from_dict({"log": {"tensorboard": old}}).log.writers == new


def test_a_writer_that_fails_ends_no_training(tmp_path, monkeypatch, caplog):
    class Broken:
        def __init__(self, folder, about):
            pass

        def scalars(self, step, values):
            raise ConnectionError("no server")

    monkeypatch.setitem(writers.OPEN, "tensorboard", Broken)
    with caplog.at_level("WARNING", "bigxfer"):
        logged(tmp_path, "tensorboard").end(METRICS)
    assert caplog.text.count("tensorboard gets no more: no server") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_other_processes_than_the_first_open_none(tmp_path):
    log = RunLog(tmp_path, config.Log(writers=("tensorboard",)), primary=False)
    log.begin(about())
    log.scalars(1, CURVE[1])
    assert not list(tmp_path.iterdir())


def test_tensorboard_has_the_curves(tmp_path):
    from tensorboardX.proto import event_pb2

    logged(tmp_path, "tensorboard").end(METRICS)
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, place, found = file.read_bytes(), 0, {}
    while place < len(data):  # a TFRecord: length, its sum, the event, its sum
        (length,) = struct.unpack("<Q", data[place : place + 8])
        event = event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
        for value in event.summary.value:
            found[event.step, value.tag] = value.simple_value
        place += length + 16
    assert set(found.values()) == {0.5, 0.75, 0.25}
    assert found[2, "loss"] == 0.25


def test_mlflow_has_curves_settings_and_test_metrics_and_goes_on(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # from MLflow 3.7 on
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    folder = tmp_path / "run"
    logged(folder, "mlflow", last=1)  # and is killed
    log = RunLog(folder, config.Log(writers=("mlflow",)), primary=True)
    log.begin(about())
    log.scalars(2, CURVE[2])
    log.end(METRICS)
    client = mlflow.MlflowClient()
    where = client.get_experiment_by_name("bigxfer").experiment_id
    (run,) = client.search_runs([where])
    curve = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in curve] == [(1, 0.5), (2, 0.25)]
    assert run.data.metrics.items() >= FINAL.items()
    assert run.data.metrics["valid/auroc/No _x_"] == 0.75
    assert run.data.params["seed"] == "7" and run.data.params["digest"] == "d" * 16
    assert run.info.status == "FINISHED" and run.data.tags["SYNTHETIC"] == "yes"


def records(data):
    """The records of a W&B offline file: LevelDB's log format after 7 bytes of header."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:  # no record begins at a block's end
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield whole
            whole = b""


def test_wandb_offline_has_curves_settings_and_test_metrics(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged(tmp_path / "run", "wandb").end(METRICS)
    wandb.teardown()  # ends its service, which writes the file
    (file,) = tmp_path.glob("run/wandb/offline-run-*/*.wandb")
    curve, last, settings = [], {}, {}
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        items = record.history.item
        values = {"/".join(i.nested_key) or i.key: i.value_json for i in items}
        if "loss" in values:
            curve.append((int(values["_step"]), float(values["loss"])))
        items = record.summary.update
        last |= {"/".join(i.nested_key) or i.key: i.value_json for i in items}
        settings |= {i.key: i.value_json for i in record.run.config.update}
    assert curve == [(1, 0.5), (2, 0.25)]
    assert {k: float(last[k]) for k in FINAL} == FINAL
    assert settings["seed"] == "7" and settings["digest"] == f'"{"d" * 16}"'


def test_every_writer_that_a_config_may_name_is_there():
    assert set(config.WRITERS) == set(writers.OPEN) == set(writers.PACKAGES)
