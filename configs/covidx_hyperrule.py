"""COVIDx by the BiT-HyperRule.

  python -m bigxfer.transfer --config configs/covidx_hyperrule.py \\
      --config.data.root=COVIDX_FOLDER --config.init.checkpoint=RUN_OR_NPZ \\
      --config.data.shots=5 --config.seed=0

The rule below 20,000 images: 500 steps of batch 512, SGD 0.9, lr 0.003, no mixup;
variant=code (the published code, the default): x0.1 at steps 200, 300 and 400, resize
512, crop 480; variant=paper: at 150, 300 and 450, resize 448, crop 384. res=R
overrides that pair for small images (resize 5R/4, crop R); a smaller batch= scales the
learning rate linearly, not the steps, as BiT's code does.

Three classes with --config.data.version=9A, two with 9B. Any other target by its
reader: --config.data.reader=csv takes a folder with metadata.csv. Costs 500 x 512
images x 112 GFLOP = 29 PFLOP at R50x1, 480 px.
"""

from bigxfer import config, presets
from bigxfer.protocols import hyperrule


def get_config(arg: str = "") -> config.Run:
    defaults = {
        "model": "R50x1",
        "res": 0,
        "variant": "code",
        "batch": 0,
        "steps": 0,
        "phantom": 0,
    }
    a = presets.parse_arg(arg, **defaults)
    run = config.Run(kind="transfer", arg=arg, model=presets.bit(a["model"]))
    run.keep = "upstream"
    run.data.reader, run.data.views = "covidx", ()
    run.optim.schedule, run.optim.mixup = "hyperrule", -1.0
    run.optim.variant = a["variant"]
    big = a["model"] == "R152x4"
    rule = hyperrule.rule(1, 1000 * 1000, a["variant"], big)  # radiographs are large
    run.data.resize, run.data.crop = rule.resize, rule.crop
    if a["res"]:
        presets.set_res(run.data, a["res"])
    run.init.kind = "pretrained"
    args = f"model={a['model']},res={a['res'] or 224}"
    run.init.upstream = f"configs/upstream_chexpert.py:{args}"
    presets.set_length(run.optim, a["batch"], a["steps"])
    presets.set_phantom(run.data, a["phantom"])
    return run
