"""Leaks: the same patient, or the same picture, where it must not be.

Pictures are compared from the cache. Exact duplicates have equal pixels. Near-
duplicates (resized, re-encoded, slightly cropped) are found in three stages: a
perceptual hash of 12 x 12 DCT signs (pHash; Zauner 2010) of the image and of its
central crops; the correlation of those DCT coefficients, whitened; and that of the
fine structure of the registered thumbnails, which two radiographs of different people
do not share although they look alike. How alike different images are depends on the
set (knees in one pose reach 0.94): so a pair counts only where it differs by a third
(LIKENESS) or less of what each side usually differs from the images most like it.

The constants were chosen on 600 radiographs cropped by up to 4% a side, shrunk to
64 px and saved as JPEG of quality 75, against 1.2 million pairs of different ones:
planted hamming <= 28, whitened >= 0.81, fine >= 0.93; others fine <= 0.89, or 0.94
for two films of one patient taken on the same day. LIKENESS was chosen on 60 such
copies planted in each of four sets of 915 to 12,000 images at 80 to 280 px: 0.19 or
less but for slices of one CT, films of NIH that stand in two sets 0.23 or less, and 17
pairs of different knees 0.52 or more.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bigxfer.data.loader import Images
from bigxfer.data.manifest import Manifest
from bigxfer.data.registration import blocks, gray, register, thumbnails

HASH = 12  # DCT frequencies along each axis: 144 bits
MARGINS = (0.0, 0.025, 0.05, 0.075)  # cut off each side of the crops hashed too
HAMMING = 30  # bits of 144 that may differ, at most
WHITENED = 0.75  # correlation of the coefficients: at least
FINE = 0.92  # correlation of the fine structure: at least
LIKENESS = 1 / 3  # of the usual difference to the OTHERS: at most
STEPS = 5  # of registration with the others
OTHERS = 10  # of the other images most like an image; their median is the usual
RULE = (
    "Two images are near-duplicates where the fine structure of their registered"
    f" thumbnails correlates at {FINE:g} or more, and differs (1 - correlation) by"
    f" {LIKENESS:.2f} or less of what is usual in the set: the median difference of either"
    f" image, whichever is less, to the {OTHERS} other images most like it. Exact duplicates have"
    " equal pixels."
)
BLOCK = 2048  # images compared with as many at once; the products fit the cache


@dataclass(frozen=True)
class Prints:
    """What n images are recognised by."""

    digest: np.ndarray  # V16 [n], of the pixels
    flat: np.ndarray  # bool [n]: one value everywhere; nothing to recognise
    dct: np.ndarray  # float32 [margins, n, 144]


@dataclass(frozen=True)
class Pair:
    a: int
    b: int
    hamming: int  # of the best crops, of 144
    correlation: float  # of the fine structure of the registered thumbnails
    exact: bool  # equal pixels
    likeness: float  # 1 - correlation, as a share of the usual (see LIKENESS)


def digests(pixels: np.ndarray) -> np.ndarray:
    """V16 [b]: a hash of each image's pixels; equal for equal pixels only."""
    hashes = [hashlib.blake2b(image, digest_size=16).digest() for image in pixels]
    return np.array(hashes, "V16")


def flat(pixels: np.ndarray) -> np.ndarray:
    """bool [b]: the images that have one value everywhere."""
    return np.ptp(pixels.reshape(len(pixels), -1), axis=1) == 0


def shared_patients(a: Manifest, b: Manifest) -> list[str]:
    """The known patients that both have, sorted."""
    known = [set(m.patient[m.known_patients()]) for m in (a, b)]
    return sorted(known[0] & known[1])


def fingerprint(images: Images, rows: np.ndarray) -> Prints:
    """The prints of these rows of uint8 [N, S, S, C], in their order."""
    side = images.shape[1]
    bases = np.stack([cosines(side, m) for m in MARGINS])
    codes, plain, dct = [], [], []
    for pixels in blocks(images, rows):
        n = len(pixels)
        codes.append(digests(pixels))
        plain.append(flat(pixels))
        lines = gray(pixels).reshape(-1, side) @ bases.reshape(-1, side).T
        half = lines.reshape(n, side, len(MARGINS), HASH).transpose(2, 0, 1, 3)
        half = np.ascontiguousarray(half)  # BLAS wants it so
        dct.append((bases[:, None] @ half).reshape(len(MARGINS), n, -1))
    whole = np.concatenate(dct, axis=1)
    return Prints(np.concatenate(codes), np.concatenate(plain), whole)


def cosines(side: int, margin: float) -> np.ndarray:
    """float32 [HASH, side]: the DCT-II basis of the window without the margins."""
    place = ((np.arange(side) + 0.5) / side - margin) / (1 - 2 * margin)
    inside = (place > 0) & (place < 1)
    basis = np.cos(np.pi * np.arange(HASH)[:, None] * place) * inside
    return basis.astype(np.float32)


def near(
    images: Images, prints: Prints, rows: np.ndarray, other: tuple | None = None
) -> list[Pair]:
    """The near-duplicates, best first, exact ones among them.

    The rows are compared with one another (a < b) or, where `other` is given (images,
    prints, rows), with those (b). a and b are rows of the images. RULE says which pairs
    count.
    """
    images_b, prints_b, rows_b = other or (images, prints, rows)
    likely = candidates(prints, prints_b if other else None)
    pairs = []
    keys = sorted(likely)
    for start in range(0, len(keys), 32):
        some = keys[start : start + 32]
        i, j = np.array(some).T
        distance, cut_a, cut_b = np.array([likely[key] for key in some]).T
        a = thumbnails(images, rows[i])
        b = thumbnails(images_b, rows_b[j])
        # `register` looks for the second within the first.
        swap = (cut_b > cut_a)[:, None, None]
        margin = np.maximum(cut_a, cut_b)
        fine = register(np.where(swap, b, a), np.where(swap, a, b), margin)
        exact = prints.digest[i] == prints_b.digest[j]
        pairs += [
            (x, y, d, f, e)
            for x, y, d, f, e in zip(i, j, distance, fine, exact, strict=True)
            if e or f >= FINE
        ]
    if not pairs:
        return []
    i, j, distance, fine, exact = map(np.array, zip(*pairs, strict=True))
    white, white_b = (w[0] for w in whitened(prints, prints_b))
    a, b = (images, rows, white), (images_b, rows_b, white_b)
    # The side that is the more like others: a set of one pose must not pass for copies.
    usually = np.maximum(*usual(a, b, i, j, other is None))
    share = (1 - fine) / np.maximum(1 - usually, 1e-6)
    pairs = [
        Pair(int(rows[x]), int(rows_b[y]), int(d), float(f), bool(e), float(s))
        for x, y, d, f, e, s in zip(i, j, distance, fine, exact, share, strict=True)
        if e or s <= LIKENESS
    ]
    return sorted(pairs, key=lambda pair: (-pair.correlation, pair.a, pair.b))


Side = tuple[Images, np.ndarray, np.ndarray]  # images, rows, whitened coefficients


def usual(
    a: Side, b: Side, i: np.ndarray, j: np.ndarray, same: bool
) -> tuple[np.ndarray, np.ndarray]:
    """float [n] twice: how alike image i of `a`, and image j of `b`, is to others.

    The others are of the other side (of the same set where `same`).
    """
    partners: tuple[dict, dict] = {}, {}
    for x, y in zip(i.tolist(), j.tolist(), strict=True):
        partners[0].setdefault(x, {x} if same else set()).add(y)
        partners[1 - same].setdefault(y, {y} if same else set()).add(x)
    by_a = alike(a, b, partners[0])
    by_b = by_a if same else alike(b, a, partners[1])
    left = np.array([by_a[x] for x in i.tolist()])
    return left, np.array([by_b[y] for y in j.tolist()])


def alike(a: Side, b: Side, partners: dict[int, set[int]]) -> dict[int, float]:
    """{image of `a`: its median correlation with the OTHERS of `b`}.

    Those that are most like it by the whitened coefficients, without its partners: ten
    copies of an image must not speak for one another. -1 where there is no other.
    """
    images, rows, white = a
    images_b, rows_b, white_b = b
    keys, out = sorted(partners), {}
    for start in range(0, len(keys), 32):
        some = keys[start : start + 32]
        scores = white[some] @ white_b.T
        nearest = []
        for score, x in zip(scores, some, strict=True):
            score[list(partners[x])] = -np.inf
            most = np.argpartition(-score, min(OTHERS, len(score) - 1))[:OTHERS]
            nearest.append(most[np.isfinite(score[most])])
        counts = [len(n) for n in nearest]
        if not sum(counts):
            out |= dict.fromkeys(some, -1.0)
            continue
        one = np.repeat(thumbnails(images, rows[some]), counts, axis=0)
        others = thumbnails(images_b, rows_b[np.concatenate(nearest)])
        fine = register(one, others, np.zeros(len(one), np.float32), STEPS)
        each = np.split(fine, np.cumsum(counts)[:-1])
        for x, others_of_x in zip(some, each, strict=True):
            out[x] = float(np.median(others_of_x)) if len(others_of_x) else -1.0
    return out


def candidates(a: Prints, b: Prints | None) -> dict[tuple[int, int], tuple]:
    """{(i of a, j of b): (Hamming distance, margin cut off i, off j)}, the best crops.

    b None: of a with itself, i < j. Flat images are left out.
    """
    other = b or a
    white_a, white_b = whitened(a, other)
    crops = [(m, 0) for m in range(len(MARGINS))]
    if b is not None:  # of a with itself these are the same pairs the other way round
        crops += [(0, m) for m in range(1, len(MARGINS))]
    best: dict[tuple[int, int], tuple] = {}
    for x, y in crops:
        for i, j, distance in close(signs(a.dct[x]), signs(other.dct[y])):
            keep = ~a.flat[i] & ~other.flat[j]
            keep &= (white_a[x, i] * white_b[y, j]).sum(axis=1) >= WHITENED
            if b is None:
                keep &= i < j if x == y else i != j
            for left, right, d in zip(i[keep], j[keep], distance[keep], strict=True):
                key, cut = (int(left), int(right)), (MARGINS[x], MARGINS[y])
                if b is None and left > right:
                    key, cut = key[::-1], cut[::-1]
                now = (int(d), *cut)
                best[key] = min(now, best.get(key, now))
    return best


def signs(dct: np.ndarray) -> np.ndarray:
    """float32 [n, 144]: 1 above the median coefficient of the image, -1 below."""
    above = dct > np.median(dct, axis=1, keepdims=True)
    return np.where(above, np.float32(1), np.float32(-1))


def whitened(a: Prints, b: Prints) -> list[np.ndarray]:
    """Both sets' coefficients, less the mean and over the deviation of the two.

    Without the brightness, and with norm 1 each: products are correlations.
    """

    def contrast(dct: np.ndarray) -> np.ndarray:
        dct = dct[..., 1:]  # without the brightness, which a viewer's window sets
        return dct / np.maximum(np.linalg.norm(dct, axis=-1, keepdims=True), 1e-6)

    both = np.concatenate([contrast(a.dct[0]), contrast(b.dct[0])])
    # Of both sets at once: the products of two differently whitened sides mean nothing.
    mean, deviation = both.mean(axis=0), both.std(axis=0) + 1e-6
    out = []
    for prints in (a, b):
        white = (contrast(prints.dct) - mean) / deviation
        norm = np.linalg.norm(white, axis=-1, keepdims=True)
        out.append(white / np.maximum(norm, 1e-6))
    return out


def close(a: np.ndarray, b: np.ndarray) -> Iterator[tuple]:
    """Arrays (i, j, Hamming distance) of all pairs within HAMMING, block by block.

    Exhaustive: the product of two signs [n, 144] is 144 - 2 x distance, and the matrix
    product for 100,000 x 100,000 of them takes about a minute on 2 cores.
    """
    bits = a.shape[1]
    for i in range(0, len(a), BLOCK):
        for j in range(0, len(b), BLOCK):
            dots = a[i : i + BLOCK] @ b[j : j + BLOCK].T
            hits = np.flatnonzero(dots >= bits - 2 * HAMMING)
            x, y = np.divmod(hits, dots.shape[1])
            yield i + x, j + y, (bits - dots.ravel()[hits].astype(int)) // 2
