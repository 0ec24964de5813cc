"""The confusion matrix of a run with one class an image, with limits over patients."""

from collections.abc import Sequence

import numpy as np

from bigxfer.statistics import limits, metrics
from bigxfer.statistics.influence import Patients
from bigxfer.statistics.limits import LEAST, Score

MOST = 12  # classes: a larger matrix cannot be read


def name_of(truth: int, called: int) -> str:
    """How a cell is called among other scores, by the numbers of both classes."""
    return f"confusion/{truth}/{called}"


def scores(
    labels: np.ndarray,
    logits: np.ndarray,
    classes: Sequence[str],
    patients: np.ndarray,
) -> dict[str, Score]:
    """{name_of(i, j): of the test images of class i the share called j}.

    Called is the class of the largest logit, the first of several. A class without a test
    image has no row. {} of multi-label predictions, and of more than MOST classes. Raises
    ValueError as metrics.compute.
    """
    labels, logits = metrics.checked(labels, logits, classes, patients)
    if labels.ndim > 1 or len(classes) > MOST:
        return {}
    people, called = Patients.of(patients), logits.argmax(axis=1)
    by_name: dict[str, Score] = {}
    for i, name in enumerate(classes):
        known = labels == i
        if not known.any():
            continue
        # As everywhere below LEAST: a share without limits, and why.
        few = people.having(known) < LEAST
        reason = f"fewer than {LEAST} patients with {name}" if few else ""
        for j in range(len(classes)):
            # Of the true class alone: a row does not depend on how common it is.
            share = limits.proportion((called == j) & known, known, people)
            by_name[name_of(i, j)] = share._replace(reason=reason)
    return by_name
