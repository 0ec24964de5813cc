"""Your own images: a small net for two cores, pre-trained or from scratch.

  bigxfer transfer --config configs/own_images.py:root=FOLDER \\
      --config.init.checkpoint=RUN_OR_NPZ --config.data.shots=5

FOLDER holds metadata.csv: `file` (or `path`), `label` (or a 0/1 column a class),
`patient_id`, and if you have them `split` (train, valid, test), `source`, `view`. Without a
`split` column add --config.data.split=patient. Other layouts: --config.data.reader=folder,
dicom, ... (`bigxfer datasets`). --config.init.kind=random trains from scratch.

The schedule of covidx_small.py, 300 steps of 64 images (steps=, batch=), R26x0.25 at 64
pixels (model=, res=): some minutes on two cores. docs/tutorial.md shows a whole session.
"""

from bigxfer import config, presets


def get_config(arg: str = "") -> config.Run:
    defaults = {"model": "R26x0.25", "res": 64, "steps": 300}
    a = presets.parse_arg(arg, **{**presets.COMMON, **defaults})
    run = config.Run(kind="transfer", arg=arg)
    run.data.reader, run.data.views = "csv", ()
    # The recipe of covidx_small.py; steps= shortens it in presets.apply.
    run.optim, run.data.augment = presets.small_schedule(900), "affine"
    run.init.kind = "pretrained"
    return presets.apply(run, a)
