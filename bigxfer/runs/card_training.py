"""What card.md says of a net itself: its start, its data and how it was trained."""

import json
from typing import Any

from bigxfer import config, presets
from bigxfer.runs import choice
from bigxfer.runs.finished import Finished
from bigxfer.runs.markdown import Lines, table

# Facts about the data that other lines of the card say.
TOLD = ("external", "counts", "split", "undecodable", "drawn", "positives", "leaks")
NOTES = {
    "uncertain": "uncertain labels",
    "blank": "blank labels",
    "labels": "label policy",
}
LONG = 160  # characters of a note
SYNTHETIC = (
    "**SYNTHETIC DATA: drawings, not patients. The numbers below say nothing of real"
    " images.**"
)
NO_DEVICE = (
    "**Research software, no diagnostic device. Not for decisions about patients.**"
)


def head(of_run: Finished) -> Lines:
    """The title, the notice, and the net: its input, output, start and training."""
    about, result, classes = of_run.about, of_run.result, of_run.classes
    run = about["config"]
    d, m = run["data"], run["model"]
    bit = m["name"] == "bit"
    name = ("BiT ResNet " if bit else "") + presets.net_name(m)
    net = f"{name}, {'-'.join(map(str, m['blocks']))} units" if bit else name
    if encoder := about.get("features"):
        name = encoder["name"]
        net = f"{name}, not ours: {encoder['dimensions']} features an image"
    kind = "findings, a sigmoid each" if of_run.multilabel else "one class an image"
    lines = [f"# {d['reader']}, {name}, run {about['digest']}", ""]
    if about["synthetic"]:
        lines += [SYNTHETIC, ""]
    side, colour = d["crop"], "gray" if d["channels"] == 1 else "colour"
    return [
        *lines,
        NO_DEVICE,
        "",
        f"- Net: {net}; {result['cost']['parameters']:,} parameters",
        f"- Input: {side} x {side} pixels, a square of {d['resize']} before; {colour}",
        f"- Output: {len(classes)} classes ({kind}): {', '.join(classes)}",
        f"- Start: {origin(run['init'], about.get('features'))}",
        f"- Trained: {trained(run)}",
    ]


def origin(init: dict, encoder: dict | None) -> str:
    """Where the weights, or the features of a net that is not ours, come from."""
    if encoder:
        # A features file may leave out what is not known of its encoder.
        size = encoder["upstream_size"]
        seen = f"{size:,} images" if size is not None else "an unknown number of images"
        where = f"{seen} of {encoder['domain'] or 'an unknown domain'}"
        return f"features of {encoder['name']}, trained on {where} ({init['digest']})"
    if init["kind"] != "pretrained":
        return init["kind"]
    return f"pretrained, from the upstream {init['digest']} ({config.taken(init)})"


def trained(run: dict) -> str:
    """Which layers the run trained."""
    freeze = run.get("freeze", {})
    if freeze.get("head", "trained") != "trained":
        return f"the head alone, {freeze['head']} on features of the fixed net"
    shares = [
        f"{k} {freeze[k]:g}" for k in ("bottom", "top", "top_layers") if freeze.get(k)
    ]
    return f"in part: config.freeze {', '.join(shares)}" if shares else "all layers"


def data(about: dict, result: dict) -> Lines:
    """The data set as the run used it: labels, shots, split, what was left out."""
    run, kept = about["config"], about["data"]
    d = run["data"]
    lines = ["## Data", "", f"- Set: {d['reader']} {d['version']}".rstrip()]
    lines += [
        f"- {NOTES.get(name, name.replace('_', ' '))}: {short(value)}"
        for name, value in kept.items()
        if name not in TOLD and value not in ({}, [], "", 0)
    ]
    if d["shots"] != "full":
        drawn = f"{len(kept.get('drawn', []))} training images, drawn with"
        lines.append(f"- Shots: {d['shots']} a class, {drawn} seed {run['seed']}")
    if used := result.get("labels_used"):
        lines.append(
            f"- Labels used: of {used['training']} images to train, of"
            f" {used['selection']} more to choose; chosen on: {used['select_on']}"
        )
    if bad := len(kept.get("undecodable", [])):
        lines.append(f"- Images that could not be decoded, left out: {bad}")
    split, hash_ = kept.get("split", {}), about["manifest_hash"][:16]
    lines.append(f"- Split: {split.get('kind', d['split'])}; manifest {hash_}")
    rows = []
    for name, images in kept["counts"].items():
        before = split.get(name, {})  # before the draw and what could not be decoded
        rows.append(
            [name, images, before["patients"] if before.get("images") == images else ""]
        )
    # The last row is test, whose patients were counted among the images that decoded.
    rows[-1][-1] = result["patients"]
    return [*lines, "", *table(["split", "images", "patients"], rows)]


def protocol(about: dict, result: dict) -> Lines:
    """Optimizer, augmentation and cost; of a fitted head its strength and cost."""
    run, plan, cost = about["config"], about["plan"], result["cost"]
    o, d, e = run["optim"], run["data"], run["eval"]
    if head := result.get("head"):
        return [
            "## Protocol and cost",
            "",
            f"- Head: {head['how']}, strength {head['strength']:.4g}",
            f"- {choice.words(result)}",
            f"- {cost['images']:,} images; {cost['device_seconds']:,.1f} device-seconds",
        ]
    extras = {
        "momentum" if o["optimizer"] == "sgd" else "beta1": o["momentum"],
        "weight decay": o["weight_decay"],
        "mixup": plan.get("mixup", 0),
        "AGC": o["agc"],
    }
    more = "".join(f", {name} {value:g}" for name, value in extras.items() if value)
    flip = " and flips" if d["flip"] else ""
    chosen = f"the best {e['select']} on validation" if e["select"] else "the last"
    rate = f"peak rate {plan['lr']:g}, {plan['schedule']} schedule"
    spent = f"{cost['flops']:.3g} FLOP, {cost['device_seconds']:,.0f} device-seconds"
    return [
        "## Protocol and cost",
        "",
        f"- {o['optimizer']}, {rate}, batch {o['batch']}{more}",
        f"- {choice.words(result)}",
        f"- Augmentation: {d['augment']}{flip}; seed {run['seed']}; step kept: {chosen}",
        f"- {cost['steps']:,} steps, {cost['images']:,} images; {spent} on"
        + f" {about['devices']} x {about['device']}",
    ]


def short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONG else f"{text[:LONG]} ..."
