"""Checks of a run's config that need no data: what contradicts itself, section by section."""

from bigxfer.config.schema import Data, Model, Run

STANDARDISED = ("bit",)  # models that standardise their kernels (tests/test_init.py)


class ConfigError(ValueError):
    """A config that cannot be run; the message says what to change."""


def check_data(d: Data) -> None:
    """ConfigError for what can be told of the data section without data."""
    if d.crop > d.resize:
        raise ConfigError(f"config.data.crop={d.crop} exceeds resize={d.resize}")
    if not 0 <= d.valid < 1 or not 0 < d.test < 1:
        raise ConfigError("config.data.valid and test are fractions below 1")
    if not 0 < d.fraction <= 1 or not 0 < d.sampling_share < 1:
        raise ConfigError(
            "config.data.fraction lies in (0, 1], sampling_share between 0 and 1"
        )
    for kind in d.split.split("+"):
        if kind not in (allowed := ("official", "patient", "reference")):
            raise ConfigError(f"config.data.split is {d.split!r}; it may be {allowed}")
    if d.folds and (d.split != "patient" or d.folds < 2 or not 0 <= d.fold < d.folds):
        raise ConfigError(
            f"config.data.folds={d.folds}, fold={d.fold}, split={d.split!r}: folds are"
            " two or more, of split=patient, and fold lies in [0, folds)"
        )
    if len(d.size) not in (0, 2) or any(not str(n).isdigit() for n in d.size):
        raise ConfigError("config.data.size is two numbers: training images, classes")
    d.mix, d.size = tuple(map(float, d.mix)), tuple(map(int, d.size))
    if d.mix and (len(d.mix) != len(d.reader.split("+")) or min(d.mix) <= 0):
        raise ConfigError(
            f"config.data.mix={d.mix}: one weight above 0 for each set of"
            f" config.data.reader={d.reader!r}"
        )
    if bad := [pair for pair in d.external_classes if pair.count("=") != 1]:
        raise ConfigError(
            f"config.data.external_classes holds {bad[0]!r}; theirs=ours is expected"
        )
    if d.mix and d.sampling == "covid_percent":
        raise ConfigError("set one of config.data.mix and sampling=covid_percent")


def check_head(run: Run) -> None:
    """ConfigError for a head that cannot be; of a features file only a head is fitted.

    Of such a run, and of one with knn, there are no parameters to keep.
    """
    i, head, d = run.init, run.freeze.head, run.data
    if i.features:
        i.kind, run.model = "features", Model()
    elif i.kind == "features":
        raise ConfigError("config.init.kind=features needs config.init.features=FILE")
    if i.features and (head == "trained" or run.kind != "transfer"):
        raise ConfigError(
            "config.init.features gives no net to train: fit a head of a transfer with"
            " config.freeze.head=ridge, logistic, ncm or knn"
        )
    if i.features or head == "knn":
        run.keep = "none"
        if d.external:
            raise ConfigError(
                "config.data.external needs a net that predicts: neither features from a"
                " file nor config.freeze.head=knn give one"
            )
    if d.support and (d.shots == "full" or (d.draws > 1 and "{seed}" not in d.support)):
        raise ConfigError(
            f"config.data.support={d.support!r} is the draw of config.data.shots (here"
            f" {d.shots}); of {d.draws} draws its name must hold {{seed}}"
        )
    if d.draws < 1 or (d.draws > 1 and (head == "trained" or d.shots == "full")):
        raise ConfigError(
            f"config.data.draws={d.draws}: draws of config.data.shots, of a head that is"
            f" fitted (here shots={d.shots}, config.freeze.head={head})"
        )


def check_tune(run: Run) -> None:
    """ConfigError where config.optim.tune is no grid of the run's rate or strength."""
    o, head = run.optim, run.freeze.head
    try:
        o.tune = tuple(map(float, o.tune))
    except ValueError as error:
        raise ConfigError(f"config.optim.tune={o.tune} are numbers ({error})") from None
    if not o.tune:
        return
    wrong = ""
    apart = len(set(o.tune)) == len(o.tune) > 1
    if not apart or not all(0 < value < 1e9 for value in o.tune):
        wrong = "it takes two different values above 0, or more"
    elif head == "ncm":
        wrong = "config.freeze.head=ncm has no strength to choose"
    elif head == "knn" and any(k % 1 for k in o.tune):
        wrong = "they are numbers of neighbours"
    elif head == "trained" and o.lr not in o.tune:
        wrong = f"config.optim.lr={o.lr:g}, the untuned rate, must be one of them"
    if wrong:
        raise ConfigError(f"config.optim.tune={o.tune}: {wrong}")


def check_start(run: Run) -> None:
    """ConfigError for sections on the start and its phases that contradict themselves."""
    i, f, p = run.init, run.freeze, run.phase
    if i.kind in ("random", "gabor", "features") and (i.how, i.upto) != ("copy", ""):
        raise ConfigError(
            f"config.init.how={i.how!r} and upto={i.upto!r} say what is taken from a"
            f" checkpoint; they need config.init.kind=pretrained, not {i.kind}"
        )
    if i.above != "random" and not i.upto:
        raise ConfigError(
            "config.init.above needs config.init.upto: above which layer?"
        )
    drawn = "mean_var" in (i.how, i.above) and i.batch_norm == "identity"
    if drawn and run.model.name in STANDARDISED:
        raise ConfigError(
            f"config.init mean_var takes nothing into {run.model.name}: it standardises"
            " its kernels, so that their mean and variance are not in what it computes,"
            " and the start is a random one. Take a CBR, SmallCNN or Keras net; here"
            " init.kind=random, or init.batch_norm=copy for the norms alone"
        )
    if sum(map(bool, (f.bottom, f.top, f.top_layers))) > 1:
        raise ConfigError("set one of config.freeze.bottom, top and top_layers")
    if not (0 <= f.bottom <= 1 and 0 <= f.top <= 1 and f.top_layers >= 0):
        raise ConfigError("config.freeze.bottom and top are shares between 0 and 1")
    p.until, p.bottom = tuple(map(float, p.until)), tuple(map(float, p.bottom))
    ends = [0.0, *p.until, 1.0]
    if len(p.until) != len(p.bottom) or ends != sorted(set(ends)):
        raise ConfigError(
            f"config.phase.until={p.until} are rising fractions of the run, one for"
            f" each of config.phase.bottom={p.bottom}"
        )
    if f.head != "trained" and p.until:
        raise ConfigError(f"config.freeze.head={f.head} trains nothing: no phases")
