"""BiT on ImageNet, or on any folder of class folders: the natural upstream.

  python -m bigxfer.train --config configs/upstream_imagenet.py \\
      --config.data.root=FOLDER_WITH_train_AND_test

FOLDER/train/CLASS/IMAGE and FOLDER/test/CLASS/IMAGE; for ILSVRC-2012 the validation
images are the test split. BiT-S is this at R50x1 .. R152x4 with batch=4096 (1912.11370
section 3.3). Costs 1.28M images x 90 epochs x 24.5 GFLOP = 2.8 EFLOP at R50x1, 224 px.
Not run by us on ImageNet; without a root it draws unrelated shapes and textures.
"""

from bigxfer import config, presets


def get_config(arg: str = "") -> config.Run:
    a = presets.parse_arg(arg, **presets.COMMON, recipe="bit")
    run = config.Run(kind="upstream", arg=arg)
    run.data.reader, run.data.channels, run.data.views = "folder", 3, ()
    run.data.size = (1_281_167, 1000)  # of ILSVRC-2012; yours: --config.data.size
    presets.set_recipe(run, a["recipe"])
    # Predecessor and small take affine views, which are for radiographs.
    if a["recipe"] != "short":
        run.data.augment = "inception"
    return presets.apply(run, a)
