"""A finished run read back: the one way to open its folder, with or without its data.

read(folder)         what config.json and result.json say: for tables, cards, reports
open(folder)         and its net: to predict and to export
with_data(folder)    and its data: to analyze

Reading imports neither jax nor scipy: a launcher looks at thousands of folders.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bigxfer import config, durable
from bigxfer.config import Run
from bigxfer.runs import folders, predictions, provenance
from bigxfer.tree import Tree

if TYPE_CHECKING:
    from bigxfer.data.dataset import Dataset
    from bigxfer.models import Model
    from bigxfer.runs.predictions import Predictions

NOTICE = "Research software, no diagnostic device: not for decisions about patients"
PARAMETERS = "params.npz"
FEW = 100  # images: a temperature of fewer is told with its interval
AGAIN = (  # what to do to have a file of a finished run once more
    "restore it from a copy, or remove result.json there and give the run's command"
    " again: it is then done again"
)


@dataclass(frozen=True)
class Finished:
    """A run folder whose result.json is there."""

    folder: Path
    about: dict[str, Any]  # config.json
    result: dict[str, Any]  # result.json

    @cached_property
    def run(self) -> Run:
        """The config; ConfigError where it is of a version that had other fields."""
        run = config.from_dict(self.about["config"])
        # The fields' defaults of today would misstate what an older run did.
        if self.draws_no_negatives:
            run.data.negatives = "none"
        if self.before_strengths:
            run.eval.select_on = "validation"
        return run

    @property
    def before_strengths(self) -> bool:
        """Whether its head was fitted by the rules of before config.eval.select_on."""
        about = self.about["config"]
        head = about.get("freeze", {}).get("head", "trained")
        return head != "trained" and "select_on" not in about["eval"]

    @property
    def draws_no_negatives(self) -> bool:
        """Whether its shots were drawn before config.data.negatives existed."""
        data = self.about["config"]["data"]
        return self.multilabel and data["shots"] != "full" and "negatives" not in data

    @property
    def digest(self) -> str:
        return self.result["digest"]

    @property
    def commit(self) -> str:
        return self.result["commit"]

    @property
    def synthetic(self) -> bool:
        return self.result["synthetic"]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.about["classes"])

    @property
    def multilabel(self) -> bool:
        """A sigmoid for each class; otherwise one softmax over the classes."""
        return "accuracy" not in self.result["metrics"]

    @property
    def data_name(self) -> str:
        """16 hex digits that name the data, wherever they lie."""
        return provenance.data_name(self.about)

    @property
    def line(self) -> str:
        """On which data the run was done, when and by which commit, on one line."""
        data, counts = self.about["config"]["data"], self.about["data"]["counts"]
        when = self.result.get("finished", "an unknown day")
        sums = "" if "files" in self.result else "; from before its files had sums"
        return (
            f"{self.folder}: on {sum(counts.values()):,} images of {data['reader']} at"
            f" {data['root'] or 'the phantom'} (data {self.data_name}), finished {when}"
            f" by commit {self.commit[:12]}{sums}"
        )

    @property
    def notice(self) -> str:
        """The notice that everything made from the run bears."""
        return "SYNTHETIC DATA. " * self.synthetic + NOTICE

    def file(self, name: str) -> Path:
        """The path of one of the run's files, after its sum was compared.

        Raises ValueError where the run has none, or it is damaged or lost. Files of a
        run of format 1 have no sums in result.json.
        """
        path, known = self.folder / name, self.result.get("files")
        if not path.is_file():
            # A file that was kept and is lost is damage; one never kept is not.
            if known and name in known:
                raise ValueError(f"{path} is lost; {AGAIN}")
            raise ValueError(f"{self.folder} has no {name}")
        if known is not None and durable.sha256(path) != known.get(name):
            raise ValueError(
                f"{path} is damaged: its sha256 is not the one in result.json; {AGAIN}"
            )
        return path

    @property
    def keeps(self) -> bool:
        """Whether the run kept its parameters."""
        return self.kept(PARAMETERS)

    def kept(self, name: str) -> bool:
        """Whether the run wrote and kept this file, even if it was lost since."""
        return name in self.result.get("files", ()) or (self.folder / name).is_file()

    def has(self, split: str) -> bool:
        """Whether the run kept its predictions of "test", "valid" or "folds"."""
        return self.kept(predictions.FILES[split])

    def predictions(self, split: str = "test") -> "Predictions":
        """What it predicted for "test", "valid" or "folds"; ValueError as `file`."""
        return predictions.read(self.file(predictions.FILES[split]))

    def parameters(self) -> Path:
        """The file of the parameters; ValueError that says what to do without one."""
        if not self.keeps:
            raise ValueError(
                f"{self.folder} kept no {PARAMETERS}: it must be run again. Remove"
                " result.json there and give its command again with --config.keep=all"
            )
        return self.file(PARAMETERS)

    def calibration(self) -> tuple[float, str]:
        """(temperature, where it comes from); 1 where no labels can give one.

        It is fitted on what may choose: on validation, or on folds of the shots. Of fewer
        than FEW images the words give its interval too.
        """
        from bigxfer.statistics import calibration  # imports scipy.optimize

        if not (split := self.calibrates):
            return 1.0, "none: the run has no predictions of validation or of folds"
        try:
            images = self.predictions(split)
            value = calibration.temperature(images.labels, images.logits)
            few = ""
            if len(images.labels) < FEW:
                low, high = calibration.temperature_interval(
                    images.labels, images.logits, images.patients
                )
                few = f", which are few: 95% interval {low:.3g} to {high:.3g}"
        # Where the images bound no temperature, the net's own probabilities stay.
        except ValueError as error:
            return 1.0, f"none: {error}"
        count = len(images.labels)
        kind = "training images, each left out in turn with its fold"
        kind = "validation images" if split == "valid" else kind
        return value, f"temperature {value:.4g} fitted on {count} {kind}{few}"

    @property
    def calibrates(self) -> str:
        """The predictions that may fix a temperature: "valid", "folds" or "", none."""
        return next((s for s in ("valid", "folds") if self.has(s)), "")

    def probabilities(self, logits: np.ndarray, temperature: float) -> np.ndarray:
        """float [n, classes] of logits [n, classes]."""
        from scipy.special import expit, softmax

        # In float32 all probabilities within 6e-8 of 1 are equal.
        scaled = np.asarray(logits, np.float64) / temperature
        return expit(scaled) if self.multilabel else softmax(scaled, axis=1)


@dataclass(frozen=True)
class Trained(Finished):
    """A finished run with its net."""

    model: "Model"
    variables: Tree  # {"params", "batch_stats"}, numpy float32

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """The shape of one image as the net takes it: (1, crop, crop, 3)."""
        crop = self.run.data.crop
        return 1, crop, crop, 3


@dataclass(frozen=True)
class WithData(Trained):
    """A finished run with its net and its data."""

    data: "Dataset"


def read(folder: Path) -> Finished:
    """Read config.json and result.json of a finished run.

    Raises FileNotFoundError where there is no such folder, ValueError where the run is
    not finished, or the two files are damaged or of different runs.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no run folder at {folder}")
    for name in ("config.json", "result.json"):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder} holds no finished run (no {name}); run its command again to"
                " finish it, or name the folder of a finished run"
            )
    about, result = (folders.read(folder / n) for n in ("config.json", "result.json"))
    # Each file can be whole and yet not belong to the other: one of them was copied.
    if about["digest"] != result["digest"]:
        raise ValueError(
            f"config.json is of run {about['digest']}, result.json of"
            f" {result['digest']}; delete {folder} and run it again"
        )
    run = Finished(folder, about, result)
    run.file("config.json")
    return run


def open(folder: Path) -> Trained:
    """Read a finished run and its net.

    Raises what `read` raises, and ValueError that says what to do where the run has
    kept no parameters, or they do not fit its config.
    """
    import jax

    from bigxfer import models
    from bigxfer.models import weights

    done = read(folder)
    parameters, run = done.parameters(), done.run
    model = models.build(run.model, len(done.classes))
    shape = (1, run.data.crop, run.data.crop, 3)
    # Names and shapes are enough to check the file by; nothing is drawn.
    template = jax.eval_shape(lambda: model.init(jax.random.key(0), shape))
    stats = {"batch_stats": template.get("batch_stats", {})}
    params = weights.load(parameters, {**template["params"], **stats}, keep_head=True)
    stats = params.pop("batch_stats", {})
    variables = {"params": params, "batch_stats": stats}
    return Trained(**vars_of(done), model=model, variables=variables)


def with_data(folder: Path, root: str, say: Callable[[str], None]) -> WithData:
    """Read a finished run, its net and its data.

    root: where the data lie now; "" is where they lay. Raises what `open` raises,
    ValueError where the data are others than the run had, and whatever the readers
    raise.
    """
    from bigxfer.data import dataset

    trained = open(folder)
    run = trained.run
    run.data.root = root or run.data.root
    run = config.resolve(run)
    data = dataset.open(run.data, run.seed, say)
    now = {"identity": data.identity, "manifest_hash": data.manifest.hash()}
    now["data"] = data.report
    if differs := provenance.data_differs(trained.about, now):
        raise ValueError(
            f"{folder} was done with other data: {differs} differ; name the folder of"
            " its data with --root"
        )
    return WithData(
        **vars_of(trained), model=trained.model, variables=trained.variables, data=data
    )


def vars_of(run: Finished) -> dict[str, Any]:
    """The fields of a Finished."""
    # Not vars(): cached_property keeps `run` there, which is no field.
    return {name: getattr(run, name) for name in Finished.__dataclass_fields__}


def parameters(path: Path) -> tuple[str, str]:
    """(npz file, digest) of a run folder or an npz, whose digest is its own sha256.

    Raises FileNotFoundError or ValueError that says what was looked for.
    """
    if path.is_dir():
        done = read(path)
        return str(done.parameters()), done.digest
    if not path.is_file():
        raise FileNotFoundError(f"no run folder and no npz at {path}")
    return str(path), durable.sha256(path)[:16]
