"""BiT on CheXpert, multi-label.

  python -m bigxfer.train --config configs/upstream_chexpert.py \\
      --config.data.root=FOLDER_WITH_CheXpert-v1.0-small

Recipes (arg recipe=): "bit", that of 1912.11370 section 3.3 with CheXpert's labels,
and "predecessor", that of 2106.00116's code (configs/chexpert_*.yaml at fe6232b).
Expect a macro AUROC of about 0.75 to 0.80 at R50x1; not run by us on the real set.
Costs about 223k images x 90 epochs x 24.5 GFLOP = 0.5 EFLOP at R50x1, 224 px.
"""

from bigxfer import config, presets


def get_config(arg: str = "") -> config.Run:
    defaults = {
        "model": "R50x1",
        "res": 224,
        "batch": 0,
        "steps": 0,
        "recipe": "bit",
        "phantom": 0,
    }
    a = presets.parse_arg(arg, **defaults)
    run = config.Run(kind="upstream", arg=arg, model=presets.bit(a["model"]))
    run.data.reader = "chexpert"
    presets.set_res(run.data, a["res"])
    presets.set_recipe(run, a["recipe"])
    presets.set_length(run.optim, a["batch"], a["steps"])
    presets.set_phantom(run.data, a["phantom"])
    return run
