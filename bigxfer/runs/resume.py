"""What a run folder already holds: a finished run to reuse, a half-done one, another's.

A folder is never overwritten with another config's run, or with a run on other data.
"""

from pathlib import Path

from bigxfer.config import Run
from bigxfer.runs import finished, folders, provenance
from bigxfer.runs.finished import Finished
from bigxfer.training.log import RunLog


def begun(folder: Path, digest: str) -> tuple[dict | None, Finished | None, str]:
    """(config.json, the finished run, what is wrong with it) of what a folder holds.

    (None, None, "") where no run was begun there. A damaged finished run counts as not
    finished: the text says what is wrong, and the run has to be done again. Raises
    ValueError where the folder is another config's, or is too damaged to tell.
    """
    damage, about, done = "", None, None
    if (folder / "result.json").exists():
        try:
            done = finished.read(folder)
        except ValueError as error:
            damage = f"{error}"
    if (folder / "config.json").exists():
        try:
            # finished.read has compared its sum; otherwise its own seal has to do.
            about = done.about if done else folders.read(folder / "config.json")
        except ValueError as error:
            damage = f"{error}"
    if about is None and damage:
        raise ValueError(f"{damage}; remove {folder} to do its run again")
    if about and about["digest"] != digest:
        raise ValueError(
            f"{folder} holds another config's run ({about['digest']}, not {digest});"
            " take another --workdir, or move that run away"
        )
    # The digest did not change with the field, but what is drawn did.
    if done and done.draws_no_negatives:
        raise ValueError(
            f"{folder} holds a run whose shots were drawn before they had images without"
            " a finding: it is one of --config.data.negatives=none; take another"
            " --workdir, or move that run away"
        )
    if done and done.before_strengths:
        raise ValueError(
            f"{folder} holds a run whose head was fitted by other rules, before"
            " config.eval.select_on was there (CHANGELOG.md); take another --workdir, or"
            " move that run away"
        )
    return about, done, damage


def check_data(
    folder: Path, before: dict | None, about: dict, done: Finished | None
) -> None:
    """ValueError where the run in this folder was done, or begun, with other data."""
    if before is None or not (differs := provenance.data_differs(before, about)):
        return
    how = "was done with" if done else "was begun with"
    raise ValueError(
        f"{folder} {how} other data: {differs} differ (then data"
        f" {provenance.data_name(before)} at {before['config']['data']['root']!r}, now"
        f" {provenance.data_name(about)} at {about['config']['data']['root']!r}). Take"
        " another --workdir, or move that folder away"
    )


def reuse(done: Finished, about: dict, run: Run, log: RunLog) -> dict:
    """Say one line on a finished run and return its result; about: today's config.json."""
    changes = "; ".join(provenance.changes(done.about, about)) or "nothing"
    kept = ""
    if run.keep in ("all", run.kind) and not done.keeps:
        kept = (
            ". It kept no params.npz, which config.keep asks for: remove result.json there"
            " and give the command again, which trains it again"
        )
    log.say(f"finished already, {done.line}; differs now: {changes}{kept}")
    if log.primary:
        folders.tidy(done.folder)
    return done.result
