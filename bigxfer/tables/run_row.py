"""The row that a run folder makes: its settings, data and upstream in words and numbers."""

import json
from pathlib import Path
from typing import Any

from bigxfer import config
from bigxfer.presets import net_name
from bigxfer.runs import finished, folders, provenance
from bigxfer.statistics import metrics

Row = dict[str, Any]
EXTERNAL = ("auroc_macro", "accuracy")  # metrics of other sets that are columns


def read_run(folder: Path) -> Row:
    """The row of one finished run; ValueError or KeyError for what is amiss in it.

    Files of a run of format 1 have no sums, see folders.py.
    """
    run_folder = finished.read(folder)
    about, result = run_folder.about, run_folder.result
    run, cost, report = about["config"], result["cost"], about.get("data", {})
    model, data, init = run["model"], run["data"], run["init"]
    blocks = tuple(model["blocks"])
    bit = model["name"] == "bit"
    alone = init["kind"] in ("random", "gabor")  # both learn from no other data
    source = None if alone else find_upstream(folder, init)
    own = config.settings(run_folder.run)
    phantom = result["synthetic"]
    row: Row = {
        "kind": run["kind"],
        "upstream": "scratch" if alone else _source(init),  # or _join_upstreams's
        "upstream_digest": "" if alone else init["digest"],
        "upstream_seed": source[1]["config"]["seed"] if source else None,
        "model": net_name(model),
        # Three convolutions a unit, the stem and the head: 50 of (3, 4, 6, 3).
        "depth": 3 * sum(blocks) + 2 if bit else None,
        "width": model["width"] if bit else None,
        "params": cost.get("parameters"),
        "init": init["kind"],
        "start": start_words(init, run.get("freeze", {})),
        "target": set_name(data, phantom),
        "target_size": target_size(report),
        "target_distance": target_distance(data, phantom),
        "shots": data["shots"],
        "seed": run["seed"],
        "margin": run["eval"].get("margin"),
        "family": family(about, own, source),
        "settings": json.dumps(special(own)),
        "fraction": data.get("fraction", 1.0),  # runs may be older than these fields
        "sampling": data.get("sampling", "uniform"),
        "mix": ":".join(f"{share:g}" for share in data.get("mix", ())) or None,
        "space": data.get("space", "union") if "+" in data["reader"] else None,
        "protocol": protocol(run["optim"]),
        "steps": cost["steps"],
        "images": cost["images"],
        "flops": cost["flops"],
        "device_seconds": cost["device_seconds"],
        "lacking": lacking(result["metrics"]),
        **of_splits(result),
        "synthetic": phantom,
        "data": run_folder.data_name,
        "digest": result["digest"],
        "commit": result["commit"],
        "folder": str(folder),
    }
    # Over the columns of the config's net, which does not run.
    if encoder := about.get("features"):
        row |= of_encoder(encoder)
    for name, metric in result["metrics"].items():
        check_range(name, metric, folder)
        row[name] = metric["value"]
        row[f"{name}_low"], row[f"{name}_high"] = metric["low"], metric["high"]
    return row | of_choice(result) | of_groups(result) | of_external(result)


def of_choice(result: dict) -> Row:
    """Columns tuned, chosen and edge.

    null of a head that is older than what result.json says of it; nothing chose the rate
    of a net then.
    """
    if "tuned" not in result and "head" in result:
        return {"tuned": None, "chosen": None, "edge": None}
    if not (choice := result.get("tuned")):
        return {"tuned": "untuned", "chosen": None, "edge": None}
    words = f"{choice['what']} of {len(choice['of'])}"
    return {"tuned": words, "chosen": choice["value"], "edge": choice["edge"] or None}


def of_splits(result: dict) -> Row:
    """Columns on the images: how many are tested on, leaked, and whose labels were used."""
    labels = result.get("labels_used", {})
    leaks = result.get("leaks", {}).get("upstream", {}).get("test", {})
    return {
        "test_images": result.get("images"),
        "test_patients": result.get("patients"),
        "leaked_patients": leaks.get("patients"),
        "leaked_images": leaks.get("exact"),
        "labels_training": labels.get("training"),
        "labels_selection": labels.get("selection"),
        "select_on": labels.get("select_on"),
    }


def of_groups(result: dict) -> Row:
    """Columns gap/sex/auroc_macro and so on, with their intervals: the largest gap between
    groups of patients, sites or views.
    """
    row: Row = {}
    for factor, group in result.get("groups", {}).items():
        gap, name = group["gaps"]["auroc_macro"], f"gap/{factor}/auroc_macro"
        row |= {name: gap["value"], f"{name}_low": gap["low"]}
        row[f"{name}_high"] = gap["high"]
    return row


def of_external(result: dict) -> Row:
    """Columns of the sets of data.external: external/NAME/METRIC, and the gap to the test
    split, gap/NAME/METRIC, each with its interval.
    """
    row: Row = {}
    for name, other in result.get("external", {}).items():
        for kind, values in (("external", "metrics"), ("gap", "gaps")):
            for metric in EXTERNAL:
                for end in ("value", "low", "high") if metric in other[values] else ():
                    column = f"{kind}/{name}/{metric}" + f"_{end}" * (end != "value")
                    row[column] = other[values][metric][end]
    return row


def of_encoder(about: dict) -> Row:
    """What a row says of a features file in place of a net."""
    return {
        "upstream": about["domain"] or "unknown",
        "upstream_size": about["upstream_size"],
        "model": about["name"],
        "depth": None,
        "width": None,
    }


def said(error: Exception) -> str:
    """What an error says; a missing field's is its name alone."""
    # A KeyError's text is the key in quotes, which says nothing to a reader.
    return f"it lacks the field {error}" if type(error) is KeyError else str(error)


def config_alone(folder: Path) -> list[Row]:
    """What transfers tell of an upstream whose result cannot be read; [] if nothing."""
    try:
        about = folders.read(folder / "config.json")
        run = about["config"]
        source = {
            "digest": about["digest"],
            "target": set_name(run["data"], about["synthetic"]),
            "target_size": target_size(about["data"]),
            "images": about["plan"]["steps"] * run["optim"]["batch"],
            "target_distance": target_distance(run["data"], about["synthetic"]),
        }
    except (ValueError, OSError, KeyError, TypeError):
        return []
    return [source]


def target_size(report: dict) -> int | None:
    """Training images, after the draw."""
    # Of few-shot runs the count below is that of the split, before the draw.
    drawn = report.get("drawn")
    return len(drawn) if drawn else report.get("counts", {}).get("train")


def target_distance(data: dict, synthetic: bool) -> float | None:
    return data["phantom"]["distance"] if synthetic else None


def check_range(name: str, metric: dict[str, Any], folder: Path) -> None:
    """ValueError where a value, or an end of its interval, is none that can be."""
    most = metrics.largest(name)
    for end in ("value", "low", "high"):
        value = metric[end]
        if value is not None and not 0 <= value <= most:
            raise ValueError(
                f"{folder / 'result.json'}: {end} of {name} is {value:g}, outside"
                f" [0, {most:g}]; do the run again"
            )


def lacking(metrics_of_run: dict[str, dict]) -> str | None:
    """Why a run has no macro AUROC, which names the classes that the test split lacks."""
    macro = metrics_of_run.get("auroc_macro", {"value": 0.0})
    return macro.get("reason") if macro["value"] is None else None


def find_upstream(folder: Path, init: dict) -> tuple[Path, dict] | None:
    """(folder, config.json) of a transfer's upstream; None where it is not at hand.

    The folder lies beside the transfer's, named by its digest, or is where the transfer
    took its parameters from. A folder of another digest is not taken.
    """
    checkpoint = Path(init.get("checkpoint") or "params.npz")
    beside = folder.parent / (init.get("digest") or "none")
    if folder.parent.name == "draws":  # CELL/draws/DIGEST
        beside = folder.parents[2] / beside.name
    for place in (beside, checkpoint, checkpoint.parent):
        try:
            about = folders.read(place / "config.json")
            # The checkpoint may have been trained anew since, with other settings.
            if about["digest"] == init["digest"]:
                return place, about
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def family(about: dict, own: dict[str, Any], source: tuple[Path, dict] | None) -> str:
    """16 hex digits of what runs share that differ in nothing but seeds.

    These are the settings `own`, the data (by their content) and the family of
    the upstream; its digest takes that place where its folder is not at hand. `about`
    is the run's config.json, `source` what find_upstream found.
    """
    # Not the upstream's digest, which holds its seed: seeds are averaged.
    upstream = about["config"]["init"].get("digest") or ""
    if source:
        place, before = source
        settings = config.settings(config.from_dict(before["config"]))
        further = find_upstream(place, before["config"]["init"])
        upstream = family(before, settings, further)
    return config.hash_of([own, provenance.data_name(about), upstream])


def special(own: dict[str, Any]) -> dict[str, Any]:
    """{"optim/lr": 0.01, ...}: the settings that differ from the default."""
    plain = config.defaults()
    return {name: value for name, value in own.items() if value != plain[name]}


def start_words(init: dict, freeze: dict) -> str | None:
    """Describe a start beyond its upstream: "mean_var up to block2, 50% fixed".

    None where the whole upstream is taken as it is, and all trains. Runs may be older
    than some of the fields.
    """
    words = ["gabor"] if init["kind"] == "gabor" else []
    taken = config.taken(init)
    words += [taken] if taken != "copy" else []
    if freeze.get("bottom"):
        words.append(f"{freeze['bottom']:.0%} fixed")
    if freeze.get("top"):
        words.append(f"top {freeze['top']:.0%} trains")
    if freeze.get("top_layers"):
        words.append(f"top {freeze['top_layers']} layers train")
    if freeze.get("head", "trained") != "trained":
        words.append(f"{freeze['head']} head")
    return ", ".join(words) or None


def set_name(data: dict, synthetic: bool) -> str:
    """What a data set is called: its reader, or the folder of own images."""
    if synthetic:
        if data["reader"] == "folder":
            return "phantom-natural"  # shapes, which none of the knobs change
        plain = {"distance": 0, "severity": 1, "shortcut": 0}
        knobs = {k: data["phantom"].get(k, v) for k, v in plain.items()}
        marks = [f"{k}={v:g}" for k, v in knobs.items() if v != plain[k]]
        return " ".join([f"phantom-{data['reader']}", *marks])
    # Two own sets have the same reader; their folders tell them apart.
    if data["reader"] in ("csv", "folder"):
        return "-".join(filter(None, (Path(data["root"]).name, data["version"])))
    return "-".join(filter(None, (data["reader"], data["version"])))


def protocol(optim: dict) -> str:
    """How the run was trained: "hyperrule-code", or the schedule of an own recipe."""
    schedule, variant = optim["schedule"], optim["variant"]
    return f"{schedule}-{variant}" if schedule == "hyperrule" else schedule


def _source(init: dict) -> str:
    """The best name of an upstream that is not in the table: its file, or config."""
    if init.get("kind") == "imagenet":
        return "imagenet"
    checkpoint = Path(init["checkpoint"])
    # Every run folder's file is called params.npz.
    if checkpoint.suffix == ".npz" and checkpoint.stem != "params":
        return checkpoint.stem
    return Path(init["upstream"].partition(":")[0]).stem or init["digest"]
