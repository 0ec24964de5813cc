"""A small net on a small set of radiographs, with a schedule of its own.

  python -m bigxfer.transfer --config configs/covidx_small.py:model=R26x0.5,res=64 \\
      --config.data.reader=csv --config.data.root=FOLDER \\
      --config.init.checkpoint=RUN_OR_NPZ --config.data.shots=full

For a thousand images and two cores, where the HyperRule's 256,000 views are dear.
Its numbers were chosen on the validation split (a tenth of the training patients) of
1,277 public radiographs in three classes; the test split was read once, for the README.
"""

from bigxfer import config, presets


def get_config(arg: str = "") -> config.Run:
    defaults = {**presets.COMMON, "model": "R26x0.5", "res": 64}
    a = presets.parse_arg(arg, **defaults)
    run = config.Run(kind="transfer", arg=arg, keep="upstream")
    run.data.reader, run.data.views = "covidx", ()
    run.optim = presets.small_schedule(600)
    run.init.kind = "pretrained"
    upstream = f"model={a['model']},res={a['res']}"
    run.init.upstream = f"configs/upstream_nih.py:{upstream}"
    return presets.apply(run, a)
