"""The text half of CLIP, as the library `transformers` has it."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.text.files import with_config
from langevin.text.frozen import Files, FrozenTextEncoder, Opened, of_transformers, pretrained, reading

TEXT_HALF = "clip_text_model"
"""The `model_type` of a text half that lies by itself."""
NOT_OF_TEXT = ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")


class CLIPTextEncoder(FrozenTextEncoder):
    """CLIP's text transformer (Radford et al. 2021, arXiv 2103.00020), frozen; Stable Diffusion's encoder.

    Its tokens are the last layer's, after the final layer normalization, and the vector is that of the end. A word sees
    only those before it, so that padding changes no word; Stable Diffusion attends to padding all the same.

    Args:
        path: a folder with `config.json`, weights and tokenizer (of a CLIP, its text half, or a pipeline of which it is
            a part), or a name on the Hugging Face hub, such as openai/clip-vit-large-patch14.
        length: of a caption, in tokens; longer ones are cut, and their end is kept.
        mask: whether the network is kept from attending to padding; Stable Diffusion's is not.
        weights: the digest of its files; None: as they are.
        channels: the size of its embeddings; None: as the files say.
    """

    option = "clip"
    package = module = "transformers"

    def __init__(
        self,
        path: str,
        length: Annotated[int, Ge(3)] = 77,
        mask: bool = False,
        weights: str | None = None,
        channels: Annotated[int, Ge(1)] | None = None,
    ) -> None:
        super().__init__(path, length, mask, {"weights": weights, "channels": channels})

    @staticmethod
    def pooled_size(known: Mapping[str, Any]) -> int:
        """See `FrozenTextEncoder`: that of a token."""
        channels: int = known["channels"]
        return channels

    @classmethod
    def files(cls, path: str) -> Files:
        """See `FrozenTextEncoder`."""
        network, tokenizer, config = with_config(path, cls.option)
        from transformers import CLIPTextConfig

        # Of a whole CLIP, the config that its text half has by itself.
        config = {**config.get("text_config", config), "model_type": TEXT_HALF}
        with reading(path, "a CLIP"):
            full = CLIPTextConfig(**config)
        return Files(
            network, tokenizer, config, NOT_OF_TEXT, {"channels": full.hidden_size}, full.max_position_embeddings
        )

    def open(self, files: Files) -> Opened:
        """See `FrozenTextEncoder`."""
        from transformers import CLIPTextModel, CLIPTokenizer

        network = pretrained(CLIPTextModel, files.network, self.path)
        with reading(self.path, "CLIP's tokenizer"):
            tokenizer = CLIPTokenizer.from_pretrained(str(files.tokenizer), local_files_only=True)

        def encode(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            tokens = network(input_ids=ids).last_hidden_state
            # The library takes the first token that is an end, or of old configs the largest id: a word that was added
            # to the vocabulary, or a caption that spells the end, would be taken for it.
            return tokens, tokens[torch.arange(len(tokens), device=tokens.device), mask.sum(1) - 1]

        return Opened(network, of_transformers(tokenizer, self.length), encode)
