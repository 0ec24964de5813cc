"""BiT on NIH ChestX-ray14, multi-label.

  python -m bigxfer.train --config configs/upstream_nih.py \\
      --config.data.root=FOLDER_WITH_images_and_Data_Entry_2017_v2020.csv

arg recipe=bit (1912.11370 section 3.3, the default) or predecessor (the code behind
2106.00116) or small (Adam, for two cores); batch=, steps=, res= and model= shorten or shrink it.

The official split by patient; --config.data.split=patient draws another. Costs 78k
images x 90 epochs x 24.5 GFLOP = 0.17 EFLOP at R50x1, 224 px. Gives a macro AUROC of
0.8 or so on the real set in the literature (CheXNet and after); not run by us on it.
"""

from bigxfer import config, presets


def get_config(arg: str = "") -> config.Run:
    a = presets.parse_arg(arg, **presets.COMMON, recipe="bit")
    run = config.Run(kind="upstream", arg=arg)
    run.data.reader = "nih"
    presets.set_recipe(run, a["recipe"])
    return presets.apply(run, a)
