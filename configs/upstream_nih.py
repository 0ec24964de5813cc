"""BiT on NIH ChestX-ray14, multi-label.

  python -m bigxfer.train --config configs/upstream_nih.py \\
      --config.data.root=FOLDER_WITH_images_and_Data_Entry_2017_v2020.csv

Recipes (arg recipe=): "bit", that of 1912.11370 section 3.3 with CheXpert's labels,
and "predecessor", that of 2106.00116's code (configs/chexpert_*.yaml at fe6232b).
Expect a macro AUROC of about 0.75 to 0.80 at R50x1; not run by us on the real set.
Costs about 223k images x 90 epochs x 24.5 GFLOP = 0.5 EFLOP at R50x1, 224 px.
"""

from bigxfer import config


def get_config(arg: str = "") -> config.Run:
    a = config.parse_arg(arg, model="R50x1", res=224, batch=0, steps=0, recipe="bit")
    run = config.Run(kind="upstream", arg=arg, model=config.bit(a["model"]))
    run.data.reader = "nih"
    config.set_res(run.data, a["res"])
    config.set_recipe(run, a["recipe"])
    config.set_length(run.optim, a["batch"], a["steps"])
    return run
