"""BiT on CheXpert, multi-label.

  python -m bigxfer.train --config configs/upstream_chexpert.py \\
      --config.data.root=FOLDER_WITH_CheXpert-v1.0-small

arg recipe=bit (1912.11370 section 3.3, the default) or predecessor (the code behind
2106.00116) or small (Adam, for two cores); batch=, steps=, res= and model= shorten or shrink it.

valid.csv is the test split (the public set has no other labels by radiologists); the
validation split is carved out of the training patients. Costs 172k images x 90 epochs
x 24.5 GFLOP = 0.38 EFLOP at R50x1, 224 px. Not run by us on the real set.
"""

from bigxfer import config, presets


def get_config(arg: str = "") -> config.Run:
    a = presets.parse_arg(arg, **presets.COMMON, recipe="bit")
    run = config.Run(kind="upstream", arg=arg)
    run.data.reader = "chexpert"
    presets.set_recipe(run, a["recipe"])
    return presets.apply(run, a)
