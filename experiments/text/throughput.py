"""What does it cost a training step that captions' tokens come from the data?

Usage: ``python -m experiments.text.throughput [BATCH_SIZE] [ROUNDS]``

Steps of one network, in turn: on batches of the loader, with tokens of a memory map as large as CLIP's (77 x 768,
float16, all of each caption of the digits), and on one batch whose tokens lie in memory. Only their ratio counts.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from langevin.conditions.text import Text
from langevin.data.digits import Digits
from langevin.data.module import DataModule, preprocess
from langevin.data.templates import Templates
from langevin.data.tokens import CaptionEncoder
from langevin.networks.unet import UNet
from langevin.text.encoder import TEXT, Encoded, TextEncoder

LENGTH, CHANNELS = 77, 768


class Fixed(TextEncoder):
    """Tokens that no network computes: a frozen encoder is not run in training either."""

    columns = {TEXT: ((LENGTH, CHANNELS), torch.float16)}  # noqa: RUF012 (as the interface has it)
    token_channels = CHANNELS
    cached = True
    function = "fixed"

    def prepare(self, captions: Sequence[str], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """See `TextEncoder`."""
        rows = [torch.randn(LENGTH, CHANNELS, generator=torch.Generator().manual_seed(len(each))) for each in captions]
        return {TEXT: torch.stack(rows).half()}

    def forward(self, columns: Mapping[str, Tensor]) -> Encoded:
        """See `TextEncoder`."""
        return Encoded(tokens=columns[TEXT].float())


def main() -> None:
    """Print the time of a step on batches of the loader, of one on a batch in memory, and their ratio."""
    batch_size, rounds = (int(each) for each in (*sys.argv[1:], *("32", "60")[len(sys.argv) - 1 :]))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = Fixed()
    network = UNet(
        in_channels=1,
        out_channels=1,
        image_size=16,
        condition=lambda dim: Text(encoder, 0.0, dim),
        channels=64,
        channel_multipliers=[1, 2],
        blocks_per_level=2,
        attention_resolutions=[8],
        cross_attention=True,
        transformer_depth=1,
    )
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def step(batch: Mapping[str, Tensor]) -> None:
        cond = {name: batch[name] for name in encoder.columns}
        output = network(batch["x"], torch.zeros(batch_size), cond)
        nn.functional.mse_loss(output, batch["x"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    def encode(captions: Sequence[str]) -> Mapping[str, NDArray]:
        return {name: rows.numpy() for name, rows in encoder.prepare(captions).items()}

    columns = {TEXT: ((LENGTH, CHANNELS), np.dtype(np.float16))}
    with tempfile.TemporaryDirectory() as folder:
        data = DataModule(Digits(image_size=16), batch_size, cache_dir=folder, captions=Templates())
        data.prepare_data()
        data.tokenize(CaptionEncoder(encoder.function, columns, True, encode))
        loader = iter(data.train_dataloader())
        kept = preprocess(next(loader), data.source.modality)
        times: dict[str, list[float]] = {"loader": [], "memory": []}
        for turn in range(rounds + 3):
            for name in ("loader", "memory") if turn % 2 else ("memory", "loader"):
                start = time.process_time()
                step(preprocess(next(loader), data.source.modality) if name == "loader" else kept)
                if turn >= 3:  # the first are slower
                    times[name].append(time.process_time() - start)
    ratios = [loader / memory for loader, memory in zip(times["loader"], times["memory"], strict=True)]
    error = statistics.stdev(ratios) / len(ratios) ** 0.5
    loader_ms, memory_ms = (1000 * statistics.median(times[name]) for name in times)
    print(f"a step of {batch_size}: {loader_ms:.1f} ms CPU time with the loader, {memory_ms:.1f} ms with a kept batch")
    print(f"ratio: median {statistics.median(ratios):.3f}, mean {statistics.mean(ratios):.3f} +- {error:.3f}")


if __name__ == "__main__":
    main()
