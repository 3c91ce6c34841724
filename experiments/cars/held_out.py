"""Split Stanford Cars' training images in the official layout: the last of them become its test images.

Usage: ``python -m experiments.cars.held_out FOLDER_OR_TAR OUT [--images=512]``. The images of the official test split
are not in every copy, and a figure of training images would say nothing.
"""

import argparse
import shutil
import tarfile
import tempfile
from pathlib import Path

from scipy.io import loadmat, savemat

ANNOTATIONS = "cars_train_annos.mat"
LABELLED = "cars_test_annos_withlabels.mat"


def split(data: Path, out: Path, images: int) -> tuple[int, int]:
    """Write the data anew, with its last images as the test split.

    Args:
        data: holds ``cars_train`` and ``devkit``.
        out: the new folder.
        images: how many are held out.

    Returns:
        how many images the two splits have.
    """
    annotations = loadmat(data / "devkit" / ANNOTATIONS, squeeze_me=True)["annotations"]
    parts = {"train": (annotations[:-images], ANNOTATIONS), "test": (annotations[-images:], LABELLED)}
    (out / "devkit").mkdir(parents=True)
    shutil.copy(data / "devkit" / "cars_meta.mat", out / "devkit")
    for part, (cars, file) in parts.items():
        (out / f"cars_{part}").mkdir()
        for name in cars["fname"]:
            shutil.copy(data / "cars_train" / str(name), out / f"cars_{part}")
        savemat(out / "devkit" / file, {"annotations": cars})
    return len(annotations) - images, images


def main() -> None:
    """Split the data that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = options.data
        if data.is_file():
            with tarfile.open(data) as tar:
                tar.extractall(folder, filter="data")
            data = Path(folder)
        root = data if (data / "devkit").is_dir() else data / "stanford_cars"
        print("training and held-out images: {}, {}".format(*split(root, options.out, options.images)))


if __name__ == "__main__":
    main()
