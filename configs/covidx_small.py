"""A small net on a small set of radiographs, with a schedule of its own.

  python -m bigxfer.transfer --config configs/covidx_small.py:model=R26x0.5,res=64 \\
      --config.data.reader=csv --config.data.root=FOLDER \\
      --config.init.checkpoint=RUN_OR_NPZ --config.data.shots=full

For a thousand images and two cores, where the HyperRule's 256,000 views are dear: 900
steps of 64 with Adam (a few shots do with steps=300). The rate, the augmentation and
the length were chosen on a validation split of a fifth of the training patients of
1,277 public radiographs in three classes, at R26x0.25 from scratch: macro AUROC 0.786
(crops, lr 1e-3, 300 steps), 0.793 (crops, 4e-3), 0.778 (affine, 1e-3), 0.805 (affine,
4e-3) and 0.878 (affine, 4e-3, 900 steps), where logistic regression on 32 px pixels
has 0.832 and a random forest 0.836. The test split played no part.
"""

from bigxfer import config, presets


def get_config(arg: str = "") -> config.Run:
    defaults = {**presets.COMMON, "model": "R26x0.5", "res": 64}
    a = presets.parse_arg(arg, **defaults)
    run = config.Run(kind="transfer", arg=arg)
    run.data.reader, run.data.views = "covidx", ()
    run.optim, run.data.augment = presets.small_schedule(900), "affine"
    run.init.kind = "pretrained"
    upstream = f"model={a['model']},res={a['res']}"
    run.init.upstream = f"configs/upstream_nih.py:{upstream}"
    return presets.apply(run, a)
