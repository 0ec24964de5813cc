"""A finished run in a form that others open.

  python -m bigxfer.export --run DIR --to timm --out net.safetensors
  python -m bigxfer.export --run DIR --to bit_npz --out net.npz
  python -m bigxfer.export --run DIR --to stablehlo --out net.jaxexport

timm: a BiT run for PyTorch, in the names of timm's resnetv2_*_bit. bit_npz: in the
names of BiT's published files, which BiT's own code and big_vision read. stablehlo:
any run as a jax.export artefact, a function from images to logits with the parameters
inside, which needs jax and flatbuffers and nothing of bigxfer. FILE.json beside it
holds the classes, what the images have to be, the lines of Python that open it, and the
run it comes from; of a BiT the groups of its norms too, which no array tells.
Research software, no diagnostic device.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigxfer import durable
from bigxfer.config import dry_run

if TYPE_CHECKING:
    from bigxfer.models.bit import Bit
    from bigxfer.runs.finished import Trained

    Opened = dict[str, Any]  # "open", "images" and, of a BiT, "groups" of the JSON

GROUPS = 32  # of every norm in timm, BiT's code and big_vision, unless told otherwise
DIVISOR = 8  # timm makes channels that are multiples of it (layers/helpers.py)
TIMM = ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")  # as resnetv2_*_bit
MOST = 2**31  # bytes of a jax.export file, whose flatbuffer counts in int32
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
RESIZED = "resized to {0} x {0}, bilinear with antialiasing, aspect not kept"


def main(args: argparse.Namespace) -> None:
    """Opens the run, writes the file and the JSON beside it; neither with --dry-run."""
    from bigxfer.runs import finished  # --help should not wait for it

    check, write, ending = FORMATS[args.to]
    if ending and args.out.suffix != ending:
        raise ValueError(f"--out {args.out} must end in {ending}: others go by that")
    if args.input != "float32" and args.to != "stablehlo":
        raise ValueError(f"--input {args.input} is for --to stablehlo")
    run = finished.open(args.run)
    check(run)
    beside = args.out.with_name(f"{args.out.name}.json")
    if args.dry_run:
        print(f"{run.line}\nwould export it: {args.to}")
        dry_run.end(args.out, beside)
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    opened = write(run, args)
    temperature, calibration = run.calibration()
    activation = "a sigmoid each" if run.multilabel else "one softmax"
    about = {
        "notice": run.notice,
        "synthetic": run.synthetic,
        "format": args.to,
        "sha256": durable.sha256(args.out),
        **opened,
        "output": f"logits float32 [n, {len(run.classes)}]; divided by the temperature,"
        f" {activation} gives probabilities",
        "classes": run.classes,
        "temperature": temperature,
        "calibration": calibration,
        "run": run.digest,
        "commit": run.commit,
    }
    durable.write_json(beside, about)
    print(
        f"{run.notice}\n{run.line}\nwrote {args.out} and {beside.name}; to open it:\n"
        + opened["open"]
    )


def to_timm(run: "Trained", args: argparse.Namespace) -> "Opened":
    """Safetensors with the state dict of timm's net (timm/models/resnetv2.py).

    Returns what opens it and what its images are. timm's own nets standardise kernels
    with an epsilon of 1e-8 on the variance, BiT and we with 1e-10. Logits differ by
    5e-5 of the largest for R50x1, 4e-5 where the epsilon is set to ours.
    """
    import numpy as np
    from safetensors.numpy import save

    from bigxfer.config import DEPTHS
    from bigxfer.models import weights

    bit = check_timm(run)
    flat = weights.to_timm(run.variables["params"])
    # safetensors asks for contiguous arrays; these kernels are transposed views.
    state = {name: np.ascontiguousarray(array) for name, array in flat.items()}
    durable.write(args.out, save(state, {"notice": run.notice, "run": run.digest}))
    net, file, classes = run.run.model, args.out.name, len(run.classes)
    depth = next((d for d, blocks in DEPTHS.items() if blocks == net.blocks), 0)
    # By its name only where timm's own groups are this net's.
    if (name := f"{depth}x{net.width:g}") in TIMM and usual_groups(bit):
        call = (
            f"import timm\nnet = timm.create_model('resnetv2_{name}_bit',"
            f" num_classes={classes}, checkpoint_path='{file}')"
        )
    else:
        call = (
            f"import safetensors.torch\n{timm_net(bit, classes)}\n"
            f"net.load_state_dict(safetensors.torch.load_file('{file}'))"
        )
    images = floats(run, "[n, 3, {0}, {0}]")
    return {"open": call, "images": images, "groups": bit.norm_groups()}


def to_bit(run: "Trained", args: argparse.Namespace) -> "Opened":
    """The npz of github.com/google-research/big_transfer: its names and layouts.

    BiT's own code computes the same from it. big_vision's bit_paper.py reads it too,
    but pads the stem's pool with -inf in the place of zeros. Both have 32 groups in
    every norm; where a net has others timm opens the file, which takes a norm layer.
    """
    from bigxfer.models import weights

    bit = check_npz(run)
    if usual := usual_groups(bit):
        call = (
            f"import numpy\nweights = numpy.load('{args.out.name}')"
            "  # for BiT's load_from, or big_vision's model_init"
        )
    else:
        call = (
            f"{timm_net(bit, len(run.classes))}\nnet.load_pretrained('{args.out.name}')"
        )
    weights.save_bit(args.out, run.variables["params"])
    images = floats(run, "[n, {0}, {0}, 3]" if usual else "[n, 3, {0}, {0}]")
    return {"open": call, "images": images, "groups": bit.norm_groups()}


def timm_net(bit: "Bit", classes: int) -> str:
    """Python that makes timm's net of these widths and groups, not yet its numbers."""
    widths, groups = bit.net.widths, bit.norm_groups()
    usual = Counter(groups.values()).most_common(1)[0][0]
    # The usual number is the default, so that the printed line is short.
    few = {c: g for c, g in groups.items() if g != usual}
    layer, count = "timm.layers.GroupNormAct", f"{few}.get(channels, {usual})"
    norm = (
        f"lambda channels, **kw: {layer}(channels, {count}, **kw)"
        if few
        else f"functools.partial({layer}, num_groups={usual})"
    )
    return f"""import functools
import timm
net = timm.models.resnetv2.ResNetV2(
    {list(bit.blocks)},
    channels={[4 * w for w in widths]},
    stem_chs={widths[0]},
    num_classes={classes},
    stem_type="fixed",
    norm_layer={norm},
    conv_layer=functools.partial(timm.layers.StdConv2d, eps=1e-10),
)"""


def to_stablehlo(run: "Trained", args: argparse.Namespace) -> "Opened":
    """jax.export's file, for every platform and any number of images.

    The first call compiles; XLA may remark that it folds constants slowly, but a call is
    the faster for it (5 times, R26x1 on a CPU).
    """
    import jax
    import jax.numpy as jnp
    from jax import export

    from bigxfer.data import augment

    data, variables = run.run.data, jax.tree.map(jnp.asarray, run.variables)
    pixels = args.input == "uint8"
    side, channels = (data.resize, data.channels) if pixels else (data.crop, 3)

    def logits(images: jax.Array) -> jax.Array:
        view = augment.eval_view(images, data.crop) if pixels else images
        return run.model.apply(variables, view, train=False)[0]

    shape = export.symbolic_shape(f"n, {side}, {side}, {channels}")
    image = jax.ShapeDtypeStruct(shape, args.input)
    # The layers are in the form that is fast on this machine's platform (models/parts.py)
    # and right on all.
    exported = export.export(jax.jit(logits), platforms=PLATFORMS)(image)
    durable.write(args.out, exported.serialize())
    call = (
        "import pathlib\nfrom jax import export\n"
        f"net = export.deserialize(pathlib.Path('{args.out.name}').read_bytes())\n"
        "logits = net.call(images)"
    )
    shape = f"uint8 [n, {side}, {side}, {channels}]: {RESIZED.format(side)}"
    return {
        "open": call,
        "images": shape if pixels else floats(run, "[n, {0}, {0}, 3]"),
    }


def usual_groups(bit: "Bit") -> bool:
    """Whether every norm has the groups that timm, BiT and big_vision take unasked."""
    return set(bit.norm_groups().values()) == {GROUPS}


def check_bit(run: "Trained") -> "Bit":
    """The run's net; ValueError where timm's, BiT's and big_vision's code has no such."""
    from bigxfer.models.bit import Bit

    net, model = run.run.model, run.model
    if not isinstance(model, Bit):
        why = f"{net.name} is no BiT"
    elif len(net.blocks) != 4 or net.slim_above:
        why = "they have four stages, each twice as wide as the one before"
    else:
        return model
    raise ValueError(f"timm and BiT do not know this net: {why}; take --to stablehlo")


def check_timm(run: "Trained") -> "Bit":
    """The run's net; ValueError, as of check_bit, for channels that timm does not make."""
    bit = check_bit(run)
    if odd := [w for w in bit.net.widths if w % DIVISOR]:
        raise ValueError(
            f"timm rounds channels to multiples of {DIVISOR}, this net has {odd}; take"
            " --to stablehlo"
        )
    return bit


def check_npz(run: "Trained") -> "Bit":
    """The run's net; ValueError where neither BiT's code nor timm can open its npz."""
    bit = check_bit(run)
    return bit if usual_groups(bit) else check_timm(run)


def check_size(run: "Trained") -> None:
    """ValueError for more parameters than a jax.export file holds."""
    from bigxfer import tree

    if (size := 4 * tree.count(run.variables["params"])) >= MOST:
        raise ValueError(
            f"{size / 1e9:.1f} GB of parameters; a jax.export file holds 2 GB. Take"
            " --to timm or bit_npz"
        )


def floats(run: "Trained", shape: str) -> str:
    """Say what images a file that holds the net alone takes."""
    data = run.run.data
    first = RESIZED.format(data.resize)
    again = f", then {data.crop} x {data.crop} likewise" * (data.resize != data.crop)
    range_ = (
        "pixel / 127.5 - 1; gray thrice" if data.channels == 1 else "pixel / 127.5 - 1"
    )
    return f"float32 {shape.format(data.crop)} in [-1, 1]: {first}{again}, {range_}"


FORMATS: dict[str, tuple[Callable, Callable, str]] = {  # (check, write, ending)
    "timm": (check_timm, to_timm, ".safetensors"),
    "bit_npz": (check_npz, to_bit, ".npz"),
    "stablehlo": (check_size, to_stablehlo, ""),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bigxfer.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, help="a finished run's folder")
    add("--to", choices=FORMATS, required=True)
    add("--out", type=Path, required=True, help="the file to write")
    add(
        "--input",
        choices=("float32", "uint8"),
        default="float32",
        help="what a stablehlo takes: images in [-1, 1] as the net sees them, or the"
        " pixels of files, resized as the run does before it crops",
    )
    dry_run.add(parser)
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    try:
        from bigxfer import cli

        cli.set_xla_flags()
        main(given)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
