"""What a model of captioned digits makes of prompts, also of pairs of words that it was never trained on.

Usage: ``python -m experiments.text.measure RUN [--number=N] [--steps=N] [--out=FIGURE.png] [--metrics=METRICS_JSON]``.
It ends with status 1 where the model is worse than the README says.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from experiments.quickstart.bounds import outside
from numpy.typing import NDArray

import langevin
from langevin.data.digits import Digits
from langevin.data.prompt_file import read_prompts
from langevin.data.templates import BRIGHTNESS
from langevin.images import GridLabels, labelled_grid

PROMPTS = Path(__file__).parent / "prompts.txt"
"""The ten digits in turn."""
WORDS = tuple(Digits().phrases(str(digit))[0] for digit in range(10))
GUIDANCE = 3.0
"""The scale of classifier-free guidance for pairs of words; prompts of one word are without."""
SHOWN = 4
"""Images of each pair in the figure."""
BOUNDS = {"digits": 0.95, "held out: digits": 0.8, "held out: brightness": 0.8}
"""The least values: of all prompts "a three", and of each pair that was held out."""
METRICS = {"fd_classifier": (0.0, 1.2), "recall_classifier": (0.85, 1.0)}
"""The least and the greatest, of samples of these."""
Images = NDArray[np.uint8]


class Judge:
    """Says of digits (N, 8, 8, 1) which they are, and how bright, by the training digits alone."""

    def __init__(self) -> None:
        from sklearn.svm import SVC

        train = Digits().load("train")
        images = train.lazy.array
        self.classifier = SVC(C=10.0, kernel="rbf", gamma="scale").fit(images.reshape(-1, 64) / 255, train.labels)
        self.terciles = np.quantile(images.reshape(-1, 64).mean(1), [1 / 3, 2 / 3])

    def digits(self, images: Images) -> NDArray[np.int64]:
        """Which digit each shows."""
        found: NDArray[np.int64] = self.classifier.predict(images.reshape(-1, 64) / 255)
        return found

    def brightness(self, images: Images) -> NDArray[np.int64]:
        """In which third of the training digits' brightness each is."""
        return np.searchsorted(self.terciles, images.reshape(-1, 64).mean(1))


def made_of(
    run: langevin.Run, prompts: list[str], number: int, steps: int | None, guidance: float | None = None
) -> Images:
    """`number` images of each prompt, one after the other: (P, number, 8, 8, 1)."""
    total = number * len(prompts)
    samples = run.sample(total, prompt=prompts, steps=steps, guidance=guidance, batch_size=250, device="cpu").samples
    return samples.reshape(number, len(prompts), 8, 8, 1).swapaxes(0, 1).astype(np.uint8)


def measured(run: langevin.Run, number: int, steps: int | None = None) -> tuple[Images, dict[str, dict[str, float]]]:
    """The images of every pair (10, 3, number, 8, 8, 1), and the shares of right ones, by what was asked for.

    Args:
        run: the model.
        number: of images a prompt.
        steps: of the sampler; None: the run's own.
    """
    judge = Judge()
    alone = made_of(run, read_prompts(str(PROMPTS), "prompt"), number, steps)
    asked = np.arange(10).repeat(number)
    values = {"a three, ...": {"digits": float((judge.digits(alone) == asked).mean())}}
    held_out = [set(pair) for pair in run.config["captions"]["held_out"]]
    prompts = [(word, brightness) for word in WORDS for brightness in BRIGHTNESS]
    pairs = made_of(run, [f"a {brightness} {word}" for word, brightness in prompts], number, steps, GUIDANCE)
    seen: list[dict[str, float]] = []
    for images, (word, brightness) in zip(pairs, prompts, strict=True):
        right = {
            "digits": float((judge.digits(images) == WORDS.index(word)).mean()),
            "brightness": float((judge.brightness(images) == BRIGHTNESS.index(brightness)).mean()),
        }
        if {word, brightness} in held_out:
            values[f"held out: a {brightness} {word}"] = right
        else:
            seen.append(right)
    values["all other pairs"] = {name: float(np.mean([right[name] for right in seen])) for name in seen[0]}
    return pairs.reshape(10, len(BRIGHTNESS), number, 8, 8, 1), values


def below(values: dict[str, dict[str, float]]) -> list[str]:
    """The values that are below their bounds."""
    found = []
    for asked, row in values.items():
        start = "" if asked.startswith("a three") else "held out: " if asked.startswith("held out") else None
        names = [] if start is None else [name for name in row if start + name in BOUNDS]
        found += [f"{asked}: {name}" for name in names if row[name] < BOUNDS[f"{start}{name}"]]
    return found


def main() -> None:
    """Print the values, and compare them with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--number", type=int, default=50)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--metrics", help="what langevin evaluate has measured of it, to be compared with bounds too")
    options = parser.parse_args()
    images, values = measured(langevin.load(options.run), options.number, options.steps)
    for asked, row in values.items():
        print(f"{asked:28} " + "  ".join(f"{name} {value:.3f}" for name, value in row.items()))
    if options.out is not None:
        shown = torch.from_numpy(images[:, :, :SHOWN].reshape(-1, 8, 8, 1)).movedim(-1, 1)
        labels = GridLabels([(brightness, SHOWN) for brightness in BRIGHTNESS], WORDS)
        labelled_grid(shown, SHOWN * len(BRIGHTNESS), labels).write(options.out)
    found = below(values)
    print("within the bounds" if not found else f"OUTSIDE of the bounds {BOUNDS}: {', '.join(found)}")
    sys.exit(bool(found) or (options.metrics is not None and outside(options.metrics, METRICS) > 0))


if __name__ == "__main__":
    main()
