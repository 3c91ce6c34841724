"""The text half of a CLIP of the library `open_clip`."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from langevin.errors import OptionError
from langevin.text.files import OF_OPEN_CLIP, WEIGHTS_OF_OPEN_CLIP, folder_of, read_json
from langevin.text.frozen import Files, FrozenTextEncoder, Opened, Tokenized, reading

NOT_OF_TEXT = ("visual.", "logit_scale", "logit_bias")
REFUSED = ("hf_model_name", "hf_tokenizer_name", "embed_cls")
"""Of a text encoder's config: another library's encoder or tokenizer, and a token beside those of the caption."""


class OpenCLIPTextEncoder(FrozenTextEncoder):
    """An OpenCLIP's text transformer (Ilharco et al. 2021), frozen.

    Its tokens are the last layer's, after the final layer normalization, and the vector is the caption's embedding in
    the space that it shares with images, not normalized.

    Args:
        path: a folder with `open_clip_config.json` and weights, or a name on the Hugging Face hub, such as
            laion/CLIP-ViT-H-14-laion2B-s32B-b79K.
        length: of a caption, in tokens; longer ones are cut, and their end is kept.
        mask: whether the network is kept from attending to padding.
        weights: the digest of its files; None: as they are.
        channels: the size of a token's embedding; None: as the files say.
        pooled_channels: of a caption's; likewise.
    """

    option = "open_clip"
    package = "open_clip_torch"
    module = "open_clip"

    def __init__(
        self,
        path: str,
        length: Annotated[int, Ge(3)] = 77,
        mask: bool = False,
        weights: str | None = None,
        channels: Annotated[int, Ge(1)] | None = None,
        pooled_channels: Annotated[int, Ge(1)] | None = None,
    ) -> None:
        known = {"weights": weights, "channels": channels, "pooled_channels": pooled_channels}
        super().__init__(path, length, mask, known)

    @classmethod
    def files(cls, path: str) -> Files:
        """See `FrozenTextEncoder`."""
        folder = folder_of(path)
        if not (folder / OF_OPEN_CLIP).is_file():
            allowed = "a folder of open_clip (text=clip and text=t5 read those of transformers)"
            raise OptionError("path", f"is {path}, which has no {OF_OPEN_CLIP}; allowed: {allowed}")
        config = read_json(folder / OF_OPEN_CLIP).get("model_cfg")
        text = config.get("text_cfg") if isinstance(config, dict) else None
        if not isinstance(config, dict) or not isinstance(text, dict):
            raise OptionError("path", f"is {path}, whose {OF_OPEN_CLIP} describes no text encoder; fetch it again")
        if used := [name for name in REFUSED if text.get(name)]:
            raise OptionError(
                "path", f"is {path}, whose text encoder has {used[0]}; allowed: open_clip's own encoder and tokenizer"
            )
        with reading(path, "a CLIP of open_clip"):
            sizes = {"channels": int(text.get("width", 512)), "pooled_channels": int(config["embed_dim"])}
            positions = int(text.get("context_length", 77))
        decides = {**config, "vision_cfg": None}
        return Files(folder, None, decides, NOT_OF_TEXT, sizes, positions, WEIGHTS_OF_OPEN_CLIP)

    def open(self, files: Files) -> Opened:
        """See `FrozenTextEncoder`: with the vision half, which the library does not leave out."""
        import open_clip

        with reading(self.path, "a CLIP of open_clip"):
            # The library would choose a file by itself; it must be the one that the digest is of.
            (weights,) = files.weights
            whole = open_clip.create_model(f"local-dir:{files.network}", load_weights=False, pretrained_text=False)
            open_clip.load_checkpoint(whole, str(weights))
            tokenizer: Any = open_clip.get_tokenizer(f"local-dir:{files.network}")
        whole.visual = nn.Identity()
        text = getattr(whole, "text", whole)
        seen: list[Tensor] = []
        text.ln_final.register_forward_hook(lambda _module, _given, tokens: seen.append(tokens))
        positions = files.positions or self.length

        def tokenize(captions: Sequence[str]) -> Tokenized:
            ids = tokenizer(list(captions), context_length=self.length)
            long = torch.tensor([len(tokenizer.encode(caption)) + 2 for caption in captions])
            mask = torch.arange(self.length) < long[:, None]
            return Tokenized(ids, mask, long > self.length)

        def encode(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            seen.clear()
            # The library takes no shorter rows; padding comes last, so that it changes no word.
            pooled = whole.encode_text(nn.functional.pad(ids, (0, positions - self.length)))
            return seen.pop()[:, : self.length], pooled

        return Opened(whole, tokenize, encode)
