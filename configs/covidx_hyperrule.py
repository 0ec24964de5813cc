"""COVIDx by the BiT-HyperRule.

  python -m bigxfer.transfer --config configs/covidx_hyperrule.py \\
      --config.data.root=COVIDX_FOLDER --config.init.checkpoint=RUN_OR_NPZ \\
      --config.data.shots=5 --config.seed=0

The rule below 20,000 images: 500 steps of batch 512, SGD 0.9, lr 0.003, no mixup;
variant=code (the published code, the default): x0.1 at steps 200, 300 and 400, resize
512, crop 480; variant=paper: at 150, 300 and 450, resize 448, crop 384. That pair is for
images of 96 x 96 pixels or more; pixels=P says that the set's are P x P, and below 96
both variants take 160, crop 128 (the run says which pair it took, and whether it is the
one for its images). res=R overrides the pair (resize 5R/4, crop R). A smaller batch=
scales the learning rate linearly, which is ours: BiT's code scales neither rate nor
steps, and its README proposes a rate of 0.001 at a batch of 128.

Three classes with --config.data.version=9A, two with 9B. Any other target by its
reader: --config.data.reader=csv takes a folder with metadata.csv. Costs 500 x 512
images x 112 GFLOP = 29 PFLOP at R50x1, 480 px.
"""

from bigxfer import config, presets
from bigxfer.protocols import hyperrule


def get_config(arg: str = "") -> config.Run:
    defaults = {"res": 0, "variant": "code", "pixels": 1000}  # radiographs are large
    a = presets.parse_arg(arg, **{**presets.COMMON, **defaults})
    run = config.Run(kind="transfer", arg=arg)
    run.data.reader, run.data.views = "covidx", ()
    # The pixels of the rule depend on no number of images: any stands for it.
    rule = hyperrule.rule(1, a["pixels"] ** 2, a["variant"], a["model"] == "R152x4")
    run.data.resize, run.data.crop = rule.resize, rule.crop
    # -1: as the rule says, by the size of the training set.
    run.optim.schedule, run.optim.mixup = "hyperrule", -1.0
    run.optim.variant = a["variant"]
    # An upstream of the same net; where the rule chooses the pixels (res=0), at 224.
    upstream = f"model={a['model']},res={a['res'] or 224}"
    run.init.kind = "pretrained"
    run.init.upstream = f"configs/upstream_chexpert.py:{upstream}"
    return presets.apply(run, a)
