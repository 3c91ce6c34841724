"""The encoder of T5, as the library `transformers` has it."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from langevin.text.files import with_config
from langevin.text.frozen import Files, FrozenTextEncoder, Opened, of_transformers, pretrained, reading

NOT_OF_ENCODER = ("decoder.", "lm_head.")


class T5TextEncoder(FrozenTextEncoder):
    """T5's encoder (Raffel et al. 2020, arXiv 1910.10683), frozen; Imagen's (Saharia et al. 2022).

    It gives the tokens of its last layer, and no vector of the whole caption: a network must attend to them. Without a
    mask every word attends to padding as well, so a model is sampled with the mask that it was trained with.

    Args:
        path: a folder with `config.json`, weights and tokenizer (of a T5, its encoder, or a pipeline of which it is a
            part), or a name on the Hugging Face hub, such as google/t5-v1_1-xxl.
        length: of a caption, in tokens; longer ones are cut, and their end is kept.
        mask: whether the words and the network are kept from attending to padding.
        weights: the digest of its files; None: as they are.
        channels: the size of its embeddings; None: as the files say.
    """

    option = "t5"
    package = module = "transformers"

    def __init__(
        self,
        path: str,
        length: Annotated[int, Ge(3)] = 128,
        mask: bool = True,
        weights: str | None = None,
        channels: Annotated[int, Ge(1)] | None = None,
    ) -> None:
        super().__init__(path, length, mask, {"weights": weights, "channels": channels})

    @classmethod
    def files(cls, path: str) -> Files:
        """See `FrozenTextEncoder`."""
        network, tokenizer, config = with_config(path, cls.option)
        from transformers import T5Config

        with reading(path, "a T5"):
            full = T5Config(**config)
        return Files(network, tokenizer, config, NOT_OF_ENCODER, {"channels": full.d_model}, None)

    def open(self, files: Files) -> Opened:
        """See `FrozenTextEncoder`."""
        from transformers import T5EncoderModel, T5Tokenizer

        network = pretrained(T5EncoderModel, files.network, self.path)
        with reading(self.path, "T5's tokenizer"):
            tokenizer = T5Tokenizer.from_pretrained(str(files.tokenizer), local_files_only=True)

        def encode(ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
            attended = mask.long() if self.mask else None
            return network(input_ids=ids, attention_mask=attended).last_hidden_state, None

        return Opened(network, of_transformers(tokenizer, self.length), encode)
