"""Whether the recipe in latents is as good as its README says.

Usage: ``python -m experiments.latents.bounds METRICS_JSON_OF_THE_AUTOENCODER METRICS_JSON_OF_THE_SAMPLES``
"""

import sys

from experiments.quickstart.bounds import outside

AUTOENCODER = {"psnr": (28.0, 100.0)}
SAMPLES = {
    "class_accuracy": (0.96, 1.0),
    "fd_classifier": (0.0, 1.1),
    "recall_classifier": (0.87, 1.0),
}


def main() -> None:
    """End with status 1 if a value is outside its bounds."""
    sys.exit(outside(sys.argv[1], AUTOENCODER) + outside(sys.argv[2], SAMPLES) > 0)


if __name__ == "__main__":
    main()
