"""The BiT-HyperRule: a fine-tuning recipe from the size of the training set.

BiT is Kolesnikov et al., "Big Transfer (BiT)", arXiv 1912.11370; its rule stands in
section 3.3 (variant `paper`). The published code, google-research/big_transfer at
140de6e, bit_hyperrule.py, differs from it in the small schedule and in the
resolution (variant `code`).

Neither scales anything with the batch: the code trains at --base_lr 0.003 whatever
--batch is, and its README proposes 0.001 at a batch of 128 for smaller machines, which
is not the linear rule's 0.00075. config.optim scales the rate linearly, our own choice.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class HyperRule:
    steps: int  # at `batch` images each; BiT does not rescale them with the batch
    warmup_steps: int  # linear from 0
    boundaries: tuple[int, ...]  # steps; the rate falls x0.1 at each
    mixup: float  # alpha of the Beta distribution; 0 is off
    resize: int  # side of the square image, pixels
    crop: int  # side of the random crop, pixels
    lr: float = 0.003  # at `batch`: 1912.11370 section 3.3; bit_hyperrule.py get_lr
    batch: int = 512  # 1912.11370 section 3.3; bit_common.py --batch
    momentum: float = 0.9  # no weight decay: 1912.11370 section 3.3


BORDER = 96 * 96  # pixels: 1912.11370 section 3.3; get_resolution


def rule(
    examples: int, image_area: int, variant: str = "code", big: bool = False
) -> HyperRule:
    """The recipe for `examples` labelled training images of `image_area` pixels.

    - Sizes: small below 20,000 examples, medium below 500,000, large from there
      (1912.11370 section 3.3; get_schedule). 500, 10,000 and 20,000 steps.
    - Boundaries: `paper` 30%, 60%, 90% of the run. `code` the same, but the small
      schedule is [100, 200, 300, 400, 500]: 200, 300, 400 (get_schedule).
    - Warm-up: 100 steps (small) or 500: the first number of get_schedule. The paper
      states none, so `paper` takes these too.
    - Mixup: 0.1 for medium and large, none for small (both; get_mixup).
    - Pixels: below 96 x 96 resize 160, crop 128 (both). From there `code` 512 and
      480 for every model (get_resolution); `paper` 448 and 384, and 512 and 480 for
      R152x4 (`big`; its footnote on the largest model).

    `image_area` is that of the images as the data set holds them. `big` changes
    nothing in `code`. Raises ValueError for counts below 1 and unknown variants.
    """
    if examples < 1 or image_area < 1:
        raise ValueError(
            f"the HyperRule needs examples and an image area of at least 1, "
            f"not {examples} and {image_area}"
        )
    if variant not in ("code", "paper"):
        raise ValueError(f"HyperRule variant {variant!r}; it may be code or paper")
    if examples < 20_000:
        steps, warmup, mixup = 500, 100, 0.0
    elif examples < 500_000:
        steps, warmup, mixup = 10_000, 500, 0.1
    else:
        steps, warmup, mixup = 20_000, 500, 0.1
    boundaries = (steps * 3 // 10, steps * 6 // 10, steps * 9 // 10)
    # The one list of get_schedule whose boundaries are at 40, 60 and 80%.
    if variant == "code" and steps == 500:
        boundaries = (200, 300, 400)
    # Strictly below, as get_resolution has it: an image of 96 x 96 is a large one.
    if image_area < BORDER:
        resize, crop = 160, 128
    elif variant == "code" or big:
        resize, crop = 512, 480
    else:
        resize, crop = 448, 384
    return HyperRule(steps, warmup, boundaries, mixup, resize, crop)


def branch(
    image_area: int, resize: int, crop: int, variant: str = "code", big: bool = False
) -> str:
    """Say which of the rule's pairs (resize, crop) this is; "" where it is neither.

    image_area: pixels of the set's images; 0: unknown. A config is resolved without data
    and so takes its pair for images of a size that it assumes; the line says where they
    turn out to be of the other branch.
    """
    pairs = {}
    for words, area in (("below", BORDER - 1), ("from", BORDER)):
        ruled = rule(1, area, variant, big)  # pixels do not depend on the examples
        pairs[words] = ruled.resize, ruled.crop
    # A pair that was set by hand is meant: no line on it.
    taken = next((w for w, pair in pairs.items() if pair == (resize, crop)), "")
    if not taken:
        return ""
    line = (
        f"the HyperRule's pair for images {taken} 96 x 96 pixels: {resize}, crop {crop}"
    )
    if not image_area:
        return f"{line}; the size of this set's images is not known"
    side, fits = round(image_area**0.5), "below" if image_area < BORDER else "from"
    line += f"; this set's have about {side} x {side}"
    if fits != taken:
        line += " pixels: ITS PAIR FOR THEM IS {}, crop {}".format(*pairs[fits])
        line += f" (config arg pixels={side})"
    return line
