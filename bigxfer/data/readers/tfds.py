"""Any tensorflow-datasets builder, prepared as array_record; TensorFlow is not needed.

Prepare once, which for most builders does need TensorFlow:
tfds.builder(NAME, data_dir=ROOT, file_format="array_record").download_and_prepare()
"""

from pathlib import Path
from typing import Any

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import spellings
from bigxfer.data.readers.folder import NOBODY
from bigxfer.data.readers.tables import SEE, Columns, DataError, build


def read(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n] of the builder data.version ("cifar10", "cifar10/3.0.2").

    root is tfds's data_dir. A path is FOLDER/tfds:SPLIT#INDEX: that element of
    tfds.builder_from_directory(ROOT/FOLDER).as_data_source(SPLIT), whose first Image
    feature is the image. Examples with the label -1 (unlabelled) are dropped and
    counted, as are splits of other names. Raises DataError.
    """
    root = Path(root)
    folder = find_builder(root, data.version)
    builder, label = open_builder(folder)
    rows, unlabelled = [], 0
    for split in [name for name in builder.info.splits if name in spellings.SPLITS]:
        # Images stay encoded: only the labels are looked at here.
        source = builder.as_data_source(split, decoders=encoded(builder.info.features))
        for index in range(len(source)):
            number = int(source[index][label])
            unlabelled += number < 0  # -1 in the test split of imagenet2012
            if number >= 0:
                rows.append((split, index, number))
    where = folder.relative_to(root).as_posix()
    name = builder.info.name
    ids = [f"{split}/{index}" for split, index, _ in rows]
    return build(
        name=name,
        root=root,
        classes=tuple(builder.info.features[label].names),
        labels=[number for *_, number in rows],
        columns=Columns(
            id=ids,
            path=[f"{where}/tfds:{split}#{index}" for split, index, _ in rows],
            patient=[f"{name}-{i}" for i in ids],
            split=[spellings.SPLITS[split] for split, *_ in rows],
        ),
        notes={
            "patients": NOBODY,
            "builder": str(builder.info.full_name),
        },
        dropped={
            "examples without a label": unlabelled,
            "splits of other names": [
                s for s in builder.info.splits if s not in spellings.SPLITS
            ],
        },
    )


def find_builder(root: Path, name: str) -> Path:
    """The newest prepared version of a builder: the folder of dataset_info.json."""
    infos = sorted((root / name).glob("**/dataset_info.json")) if name else []
    if not infos:
        here = sorted(
            {p.relative_to(root).parts[0] for p in root.glob("*/**/dataset_info.json")}
        )
        raise DataError(
            f"{root}: looked for a prepared tfds builder config.data.version={name!r};"
            f" found {here}; {SEE}"
        )
    configs = {path.parent.parent for path in infos}
    if len(configs) > 1:
        names = sorted(c.relative_to(root).as_posix() for c in configs)
        raise DataError(f"{root}: several configs; set config.data.version to {names}")
    # As numbers: "10.0.0" is newer than "9.0.0".
    return max(infos, key=lambda p: [int(n) for n in p.parent.name.split(".")]).parent


def open_builder(folder: Path) -> tuple[Any, str]:
    """The builder and the name of its one ClassLabel feature."""
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise DataError(
            "the tfds reader needs: pip install tensorflow-datasets array_record"
            " importlib_resources"
        ) from None
    builder = tfds.builder_from_directory(folder)
    # tfrecord, the default, has no random access, and reading it needs TensorFlow.
    if builder.info.file_format and builder.info.file_format.value != "array_record":
        raise DataError(
            f"{folder} is prepared as {builder.info.file_format.value}; prepare it"
            " with file_format='array_record'"
        )
    features = builder.info.features
    labels = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    # cifar100 has coarse_label beside it.
    if "label" in labels:
        return builder, "label"
    if len(labels) != 1:
        raise DataError(f"{folder}: no feature 'label' of one class; found {labels}")
    return builder, labels[0]


def encoded(features: Any) -> dict[str, Any]:
    """Decoders that leave the images as bytes (PartialDecoding needs TensorFlow)."""
    import tensorflow_datasets as tfds

    images = [n for n, f in features.items() if isinstance(f, tfds.features.Image)]
    return dict.fromkeys(images, tfds.decode.SkipDecoding())
