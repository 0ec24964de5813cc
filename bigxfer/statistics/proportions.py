"""Limits of proportions, many at a time: a report finds hundreds of thousands of them."""

import numpy as np
import scipy  # scipy.special, 13 MB, loads where it is used: not while training
from numpy.typing import ArrayLike

# Of the observed number in the tails of a proportion: half (mid-P) covers 91.8% at the
# worst share of 15, 30, 50, 100 or 300 images; this is the least, in steps of .05, that
# covers 93% at each, by the binomial distribution (tests/test_limits.py).
OBSERVED = 0.65
FEW = 0.005  # hits: of fewer the lower limit is below 1e-280
STEPS = 60  # of Newton's method at most; 3 to 5 are usual
CLOSE = 1e-9  # the last step, relative to the limit: the error left is about its square


def mid_p(
    hits: ArrayLike, n: ArrayLike, tail: float = 0.025
) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper mid-P limits of `hits` of n, of one shape, float64.

    Neither needs to be whole. What was observed counts OBSERVED to each tail, in place
    of mid-P's half (Lancaster 1961, JASA 56:223).
    """
    hits, n = np.broadcast_arrays(np.asarray(hits, float), np.asarray(n, float))
    # Rounding may leave a little less than none.
    rest = np.maximum(n - hits, 0.0)
    both = lower(np.stack([hits, rest]), np.stack([rest, hits]), tail)
    return both[0], 1 - both[1]


def lower(hits: np.ndarray, rest: np.ndarray, tail: float) -> np.ndarray:
    """The shares at which more than `hits`, and OBSERVED of `hits`, have the tail.

    hits, rest: float64 of one shape, the two sides of n; 0 where there are no hits.
    Newton's method on logarithms, in which the tail is nearly straight at small shares
    and concave everywhere: from any start it comes to the limit from below.
    """
    out = np.zeros(hits.shape)
    some = hits > FEW
    h, r = hits[some], rest[some]
    if not len(h):
        return out
    special = scipy.special
    # With all of `hits` observed, or none, the limit has this closed form with h, r + 1
    # or h + 1, r. Between the two it is close to the limit that is sought.
    share = special.betaincinv(h + 1 - OBSERVED, r + OBSERVED, tail)
    scale = np.log(h) + special.betaln(h, r + 1)
    for _ in range(STEPS):
        # The chance of exactly `hits`, and of as many or more.
        same = np.exp(special.xlogy(h, share) + special.xlog1py(r, -share) - scale)
        reached = special.betainc(h, r + 1, share) - (1 - OBSERVED) * same
        # d log(reached) / d log(share): both densities are multiples of `same`.
        slope = same * (OBSERVED * h + (1 - OBSERVED) * r * share / (1 - share))
        step = np.log(tail / reached) * reached / slope
        share = share * np.exp(step)
        if np.abs(step).max() < CLOSE:
            break
    out[some] = share
    return out
