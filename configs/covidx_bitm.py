"""COVIDx by the BiT-HyperRule from Google's BiT-M (ImageNet-21k) weights.

  curl -O https://storage.googleapis.com/bit_models/BiT-M-R50x1.npz
  python -m bigxfer.transfer --config configs/covidx_bitm.py \\
      --config.data.root=COVIDX_FOLDER --config.init.checkpoint=BiT-M-R50x1.npz

BiT-M-R50x3, -R101x1, -R101x3, -R152x2 and -R152x4 lie beside it (model=R101x3); BiT-S
has the same names. To check a file: R50x1 has 68,256,659 parameters with its head of
21,843 classes, and every array carries a checksum that is read before training; a file
of another model stops with the list of what does not fit. The publisher states no
sha256; ours of the file that you used is in the run's config.json (init.digest).
"""

from bigxfer import config, presets


def get_config(arg: str = "") -> config.Run:
    run = presets.load_module("configs/covidx_hyperrule.py").get_config(arg)
    run.init.upstream = ""  # there is no run to fall back on: the npz must be named
    return run
