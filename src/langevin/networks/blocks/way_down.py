"""The way down of a U-Net: what its encoder and its middle compute."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from langevin.networks.embeddings import TimeEmbedding


class WayDown(nn.Module):
    """A network with a stem, an encoder and a middle; its constructor makes them.

    Attributes:
        time: embeds the noise level.
        first: the stem.
        down: the encoder's steps.
        progressive: what takes in the image again, by the index of the step after which it does.
        middle: what the lowest level ends in.
        map_condition: whether the condition's vector joins the features of the noise level; else their embedding.
        checkpointing: whether only each step's input is kept for the gradient.
    """

    time: TimeEmbedding
    first: nn.Conv2d
    down: nn.ModuleList
    progressive: nn.ModuleDict
    middle: nn.Module
    map_condition: bool
    checkpointing: bool

    def embed(self, c_noise: Tensor, vector: Tensor | None) -> Tensor:
        """The embedding (B, D) of noise levels (B,) and of the condition's vector."""
        embedding = self.time(c_noise, vector if self.map_condition else None)
        return embedding if vector is None or self.map_condition else embedding + vector

    def encode(
        self,
        x: Tensor,
        embedding: Tensor,
        tokens: Tensor | None,
        mask: Tensor | None,
        added: Tensor | None = None,
    ) -> list[Tensor]:
        """The features after the stem, after each step down, and after the middle.

        Args:
            x: (B, C, H, W), channels innermost.
            embedding: see `embed`.
            tokens: (B, L, D'), or None.
            mask: of the tokens, (B, L), or None.
            added: to the features after the stem, of their shape.
        """
        pyramid = x
        x = self.first(x)
        seen = [x if added is None else x + added]
        for index, block in enumerate(self.down):
            x = self.run(block, seen[-1], embedding, tokens, mask)
            if str(index) in self.progressive:
                x = pyramid = self.progressive[str(index)](x, pyramid)
            seen.append(x)
        return [*seen, self.run(self.middle, seen[-1], embedding, tokens, mask)]

    def run(self, block: nn.Module, x: Tensor, embedding: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        """Apply a block; for a gradient it may be recomputed."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, embedding, tokens, mask, use_reentrant=False)
        return block(x, embedding, tokens, mask)
