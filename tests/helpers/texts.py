"""An encoder of text that is as simple as one can be."""

import torch
from torch import nn

from langevin.conditions.text import Text
from langevin.text.encoder import Encoded, TextEncoder

LENGTH, WIDTH = 6, 8


class Letters(TextEncoder):
    """A token a letter, of the first six; keeps what it was asked for."""

    token_channels, pooled_channels = WIDTH, WIDTH
    function = "letters"

    def __init__(self) -> None:
        super().__init__()
        self.columns = {"text": ((LENGTH,), torch.int64), "text_mask": ((LENGTH,), torch.bool)}
        self.table = nn.Embedding(128, WIDTH)
        self.asked: list[list[str]] = []

    def prepare(self, captions, device="cpu"):
        self.asked.append(list(captions))
        ids = [[ord(letter) % 128 for letter in text[:LENGTH]] for text in captions]
        text = torch.tensor([row + [0] * (LENGTH - len(row)) for row in ids], dtype=torch.int64).reshape(-1, LENGTH)
        return {"text": text, "text_mask": text > 0}

    def forward(self, columns):
        tokens = self.table(columns["text"])
        return Encoded(tokens, columns["text_mask"], tokens.mean(1))


class Captioned(nn.Module):
    """A network that adds a function of the caption; the same at any batch size, up to rounding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.condition = Text(Letters(), 0.1, WIDTH)
        self.seen = []

    def forward(self, x, c_noise, cond=None):
        self.seen.append(cond)
        vector = self.condition(cond, len(x)).vector
        return 0.3 * x + 0.15 * vector.sum(1).reshape(-1, 1, 1, 1).tanh()

    def null_condition(self, cond):
        return self.condition.null(cond)
