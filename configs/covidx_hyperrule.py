"""COVIDx by the BiT-HyperRule, as published in big_transfer's code (variant code).

  python -m bigxfer.transfer --config configs/covidx_hyperrule.py \\
      --config.data.root=COVIDX_FOLDER --config.init.checkpoint=RUN_OR_NPZ \\
      --config.data.shots=5 --config.seed=0

Three classes of COVIDx (--config.data.version=9A; 9B for two). The rule: below 20,000
images 500 steps of batch 512, SGD 0.9, lr 0.003, x0.1 at steps 200, 300, 400, no
mixup, resize 512, crop 480 (res=R overrides that pair). A smaller
--config.optim.batch scales the learning rate linearly. Costs 500 x 512 x 112 GFLOP =
29 PFLOP at R50x1, 480 px: about 5 minutes on a recent GPU.
"""

from bigxfer import config, presets


def get_config(arg: str = "") -> config.Run:
    defaults = {"model": "R50x1", "res": 0, "batch": 0, "steps": 0, "phantom": 0}
    a = presets.parse_arg(arg, **defaults)
    run = config.Run(kind="transfer", arg=arg, model=presets.bit(a["model"]))
    run.keep = "upstream"
    run.data.reader = "covidx"
    run.data.resize, run.data.crop = 512, 480
    if a["res"]:
        presets.set_res(run.data, a["res"])
    run.init.kind = "pretrained"
    args = f"model={a['model']},res={a['res'] or 224}"
    run.init.upstream = f"configs/upstream_chexpert.py:{args}"
    run.optim.schedule, run.optim.mixup = "hyperrule", -1.0
    presets.set_length(run.optim, a["batch"], a["steps"])
    presets.set_phantom(run.data, a["phantom"])
    return run
