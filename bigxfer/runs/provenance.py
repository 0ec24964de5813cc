"""What two config.json say of one run: whether its data are the same, what else differs."""

from typing import Any

from bigxfer.data import identity


def data_name(about: dict[str, Any]) -> str:
    """16 hex digits of the data that a config.json tells of."""
    if "identity" in about:
        return identity.name(about["identity"])
    return about.get("manifest_hash", "")[: identity.LENGTH] or "unknown"


def data_differs(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between the data of two config.json, in words; "" if nothing does.

    Of a run from before the identities only the hash of the manifest is known, which
    says nothing of pixels.
    """
    if "identity" in before:
        return " and ".join(identity.differences(before["identity"], now["identity"]))
    if before.get("manifest_hash") != now["manifest_hash"]:
        return "images, labels or splits"
    # Equal manifests can have been drawn from differently, before data.negatives.
    drawn = [about.get("data", {}).get("drawn") for about in (before, now)]
    if None not in drawn and drawn[0] != drawn[1]:
        return (
            "the images of the shots (drawn before 2026-11-30 as"
            " --config.data.negatives=none draws)"
        )
    return ""


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What else differs, a line each: commit, packages, decoder, place of the data."""
    pairs = {"commit": (before["commit"], now["commit"])}
    pairs |= {
        package: (before["versions"].get(package), version)
        for package, version in now["versions"].items()
    }
    forms = [about.get("identity", {}).get("form") for about in (before, now)]
    roots = [about["config"]["data"]["root"] for about in (before, now)]
    # The form names decoder and sizes, the root may be a copy: worth a line, no error.
    pairs |= {"pixels": tuple(forms), "data.root": tuple(roots)}
    return [
        f"{what} {new} (then {old or 'not recorded'})"
        for what, (old, new) in pairs.items()
        if old != new
    ]
