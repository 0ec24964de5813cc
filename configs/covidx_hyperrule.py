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
    a = presets.parse_arg(arg, **{**presets.COMMON, "res": 0}, variant="code")
    run = config.Run(kind="transfer", arg=arg, keep="upstream")
    run.data.reader, run.data.views = "covidx", ()
    rule = hyperrule.rule(1, 1000 * 1000, a["variant"], a["model"] == "R152x4")
    run.data.resize, run.data.crop = rule.resize, rule.crop  # radiographs are large
    run.optim.schedule, run.optim.mixup = "hyperrule", -1.0
    run.optim.variant = a["variant"]
    upstream = f"model={a['model']},res={a['res'] or 224}"
    run.init.kind = "pretrained"
    run.init.upstream = f"configs/upstream_chexpert.py:{upstream}"
    return presets.apply(run, a)
