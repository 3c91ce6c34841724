"""All operators, and compositions that are solved in each of the ways."""

import numpy as np

from langevin.restoration.operators.average import Average
from langevin.restoration.operators.bicubic import Bicubic
from langevin.restoration.operators.blur import Blur
from langevin.restoration.operators.box import BoxMask
from langevin.restoration.operators.composition import Composition
from langevin.restoration.operators.grey import Grey
from langevin.restoration.operators.mask import FileMask
from langevin.restoration.operators.random_mask import RandomMask


def drawn(folder, height=8, width=12):
    """A mask from a file: the corner is white."""
    white = np.zeros((height, width), bool)
    white[:3, :5] = True
    np.save(folder / "mask.npy", white)
    return FileMask(str(folder / "mask.npy"))


ALONE = {
    "mask": drawn,
    "box": lambda folder: BoxMask(0.5, 0.25, left=0.5),
    "random_mask": lambda folder: RandomMask(0.3),
    "average": lambda folder: Average(2),
    "bicubic": lambda folder: Bicubic(4),
    "blur": lambda folder: Blur(1.2),
    "grey": lambda folder: Grey(),
}
"""By the names of their options."""
COMPOSED = {
    "average,mask": lambda folder: Composition({"average": Average(2), "mask": drawn(folder, 4, 6)}),
    "grey,average,blur": lambda folder: Composition({"grey": Grey(), "average": Average(2), "blur": Blur(0.8)}),
    "grey,average": lambda folder: Composition({"grey": Grey(), "average": Average(2)}),
    "blur,average": lambda folder: Composition({"blur": Blur(0.7), "average": Average(2)}),
    "random_mask,bicubic": lambda folder: Composition({"random_mask": RandomMask(0.3), "bicubic": Bicubic(2)}),
    "random_mask,grey,mask": lambda folder: Composition(
        {"random_mask": RandomMask(0.3), "grey": Grey(), "mask": drawn(folder)}
    ),
}
"""The last three are solved by conjugate gradients."""
ALL = ALONE | COMPOSED
SHAPE = (3, 8, 12)
