"""Logistic regressions with an L2 penalty, many at once, by Newton's method.

All columns (penalties x classes) of one draw take each step together, so that the work is
products of matrices; a step is solved for exactly where its unknowns are few, and otherwise
found by conjugate gradients. The solutions are scikit-learn's: its objective is the same,
w'w / 2 + C * the summed loss, the bias free.
"""

from collections.abc import Callable

import numpy as np

STEPS = 100  # of Newton's method; 10 are usual
TOLERANCE = 1e-8  # of the gradient, in shares of the first one
INNER = 60  # steps of conjugate gradients, at most
EXACT = 96  # unknowns of a problem at most, for its Hessian to be factored
HALVINGS = 30
# Numbers in an array at most; above it fewer penalties go together, and none exactly.
AT_ONCE = 4_000_000

Sum = Callable[[np.ndarray], np.ndarray]  # [n, columns] -> [columns], a problem's alike


def fit(
    x: np.ndarray, y: np.ndarray, strengths: np.ndarray, softmax: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return (weights [s, r, k], bias [s, k]) for each of the strengths C [s].

    x: float64 [n, r]; y: [n, k] of 0, 1, NaN (left out). softmax: the k columns are one
    problem, with y one-hot; otherwise k problems, each with both kinds of image.
    """
    (n, k), s = y.shape, len(strengths)
    if s > 1 and n * k * s > AT_ONCE:
        # Penalties are problems of their own, whatever goes with them.
        halves = [fit(x, y, part, softmax) for part in np.array_split(strengths, 2)]
        (w, b), (more_w, more_b) = halves
        return np.concatenate([w, more_w]), np.concatenate([b, more_b])
    problems = _Problems(x, y, strengths, softmax)
    v = problems.solve()
    v = v.reshape(-1, s, k).transpose(1, 0, 2)
    return v[:, :-1], v[:, -1]


class _Problems:
    """x with a column of ones for the bias; columns are strength-major: s * k."""

    def __init__(
        self, x: np.ndarray, y: np.ndarray, strengths: np.ndarray, softmax: bool
    ) -> None:
        self.x = np.pad(x, ((0, 0), (0, 1)), constant_values=1.0)
        self.squares, self.softmax = self.x**2, softmax
        s, self.k = len(strengths), y.shape[1]
        self.joint = self.k if softmax else 1  # columns that one problem has
        known = ~np.isnan(y)
        self.y = np.tile(np.where(known, y, 0.0), (1, s))
        # An unknown label has C = 0: no loss, no gradient.
        self.c = np.tile(known, (1, s)) * np.repeat(strengths, self.k)
        self.free = np.ones((self.x.shape[1], 1))
        self.free[-1] = 0  # the bias, which scikit-learn's lbfgs does not penalise

    def total(self, a: np.ndarray) -> np.ndarray:
        """Sum of each column or, of softmax, of each problem's columns."""
        out = a.sum(axis=0)
        if self.softmax:
            out = out.reshape(-1, self.k).sum(axis=1).repeat(self.k)
        return out

    def groups(self, a: np.ndarray) -> np.ndarray:
        return a.reshape(len(a), -1, self.k)

    def probabilities(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(p, losses), both [n, columns]; a problem's losses sum to its own."""
        if not self.softmax:
            # Of -|z|: exp never overflows, and small losses keep their digits.
            soft = np.log1p(np.exp(-np.abs(z)))
            p = np.where(z >= 0, 1.0, np.exp(-np.abs(z))) * np.exp(-soft)
            return p, np.maximum(z, 0) + soft - self.y * z
        z3 = self.groups(z)
        z3 = z3 - z3.max(axis=2, keepdims=True)  # exp of at most 0
        p = np.exp(z3)
        whole = p.sum(axis=2, keepdims=True)
        loss = self.groups(self.y) * (np.log(whole) - z3)
        return (p / whole).reshape(z.shape), loss.reshape(z.shape)

    def value(self, z: np.ndarray, v: np.ndarray) -> np.ndarray:
        loss = self.probabilities(z)[1]
        return self.total(self.c * loss) + self.total(self.free * v**2) / 2

    def curvature(self, p: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The product with the Hessian where the probabilities are p."""

        def times(v: np.ndarray) -> np.ndarray:
            u = p * (self.x @ v)
            if self.softmax:
                among = self.groups(u).sum(axis=2, keepdims=True)
                u -= (self.groups(p) * among).reshape(u.shape)
            else:
                u -= p * u
            return self.x.T @ (self.c * u) + self.free * v

        return times

    def exact(self, gradient: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Return the Newton step of each problem by solving with its Hessian."""
        k, (n, columns), r = self.joint, p.shape, len(gradient)
        p3 = p.reshape(n, -1, k)
        among = p3[..., None] * (np.eye(k) - p3[:, :, None])
        among *= self.c.reshape(n, -1, k)[..., None]  # the loss's, by the logits
        pairs = (self.x[:, :, None] * self.x[:, None]).reshape(n, -1)
        hessian = among.reshape(n, -1).T @ pairs
        hessian = hessian.reshape(-1, k, k, r, r).transpose(0, 1, 3, 2, 4)
        for i in range(k):
            hessian[:, i, :, i] += np.diag(self.free[:, 0])
            # Of saturated images p (1 - p) is 0 in float64, and the free bias adds nothing.
            hessian[:, i, -1, i, -1] += 1e-12
        if self.softmax:  # a shift of all biases has no curvature, and no gradient
            hessian[:, :, -1, :, -1] += 1
        down = -gradient.reshape(r, -1, k).transpose(1, 2, 0).reshape(-1, k * r, 1)
        step = np.linalg.solve(hessian.reshape(-1, k * r, k * r), down)
        return step.reshape(-1, k, r).transpose(2, 0, 1).reshape(r, columns)

    def solve(self) -> np.ndarray:
        pairs = len(self.x) * len(self.free) ** 2  # the largest array of a Hessian
        few = len(self.free) * self.joint <= EXACT and pairs <= AT_ONCE
        v = np.zeros((self.x.shape[1], self.y.shape[1]))
        z = np.zeros_like(self.y)
        value, first = self.value(z, v), None
        for _ in range(STEPS):
            p, _ = self.probabilities(z)
            gradient = self.x.T @ (self.c * (p - self.y)) + self.free * v
            size = np.sqrt(self.total(gradient**2))
            first = size if first is None else first
            # A gradient of 0 at the start (all classes alike) is converged, not 0 / 0.
            if (size <= TOLERANCE * np.maximum(first, 1e-300)).all():
                break
            if few:
                step = self.exact(gradient, p)
            else:
                left = size / np.maximum(first, 1e-300)
                diagonal = self.squares.T @ (self.c * p * (1 - p)) + self.free
                step = self.newton(gradient, diagonal, self.curvature(p), left)
            if self.softmax:  # a shift of all classes changes no probability
                bias = self.groups(step[-1:])
                step[-1:] -= bias.mean(axis=2).repeat(self.k, axis=1)
            # Logits along the step, once: a halving then costs no product.
            zs, slope = self.x @ step, self.total(gradient * step)
            share = np.ones(len(value))
            for _ in range(HALVINGS):
                now = self.value(z + share * zs, v + share * step)
                # Armijo's rule; the last term lets rounding pass near the end.
                over = now > value + 1e-4 * share * slope + 1e-12 * np.abs(value)
                if not over.any():
                    break
                share = np.where(over, share / 2, share)
            # A problem that found no descent is done; the others go on.
            share = np.where(over, 0.0, share)
            if not share.any():
                break
            v, z = v + share * step, z + share * zs
            value = self.value(z, v)
        return v

    def newton(
        self,
        gradient: np.ndarray,
        diagonal: np.ndarray,
        times: Callable[[np.ndarray], np.ndarray],
        left: np.ndarray,
    ) -> np.ndarray:
        """Return a Newton step, the more exact the less of the gradient is `left`."""
        step, r = np.zeros_like(gradient), -gradient
        # Of saturated images p (1 - p) is 0 in float64, and the free bias adds nothing.
        inverse = 1 / np.maximum(diagonal, 1e-12)
        q = inverse * r
        d, rq = q.copy(), self.total(r * q)
        # Rough far from the end, where the quadratic model is wrong anyway.
        enough = self.total(r**2) * np.minimum(0.1, left) ** 2
        for _ in range(INNER):
            hd = times(d)
            down = self.total(d * hd)
            # Problems that are solved stand still while the others go on.
            a = np.where(down > 0, rq / np.where(down > 0, down, 1), 0)
            step += a * d
            r -= a * hd
            if (self.total(r**2) <= enough).all():
                break
            q = inverse * r
            before, rq = rq, self.total(r * q)
            d = q + np.where(before > 0, rq / np.where(before > 0, before, 1), 0) * d
        return step
