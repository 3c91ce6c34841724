"""Encoders of other libraries, whose weights are not trained with the model."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from langevin.errors import OptionError, UserError
from langevin.text.encoder import MASK, POOLED, TEXT, Encoded, TextEncoder
from langevin.text.files import WEIGHTS, digest_of_files, require_package, vocabulary_files, weight_files
from langevin.visible import visible

BATCH = 32
"""Captions that are encoded at once."""
SHOWN = 40
"""Letters of a caption in a message."""


class Tokenized(NamedTuple):
    """Captions as another library's tokenizer gives them.

    Attributes:
        ids: int64 (N, length).
        mask: bool (N, length): the beginning, the text and its end, not the padding that follows.
        cut: bool (N,): which captions were too long.
    """

    ids: Tensor
    mask: Tensor
    cut: Tensor


class Files(NamedTuple):
    """An encoder that is not loaded.

    Attributes:
        network: the folder of its weights.
        tokenizer: the folder of its tokenizer; None: its library has that.
        config: what its library needs to know of it.
        left_out: what the names of weights begin with that are not the encoder's, such as those of its vision half.
        sizes: "channels" of a token's embedding and, where a caption has one, its "pooled_channels".
        positions: the longest caption, in tokens; None: any.
        names: of the files of weights, see `weight_files`.
    """

    network: Path
    tokenizer: Path | None
    config: Mapping[str, Any]
    left_out: Sequence[str]
    sizes: Mapping[str, int]
    positions: int | None
    names: Sequence[str] = WEIGHTS

    @property
    def weights(self) -> list[Path]:
        """The files of its weights, see `weight_files`."""
        return weight_files(self.network, self.names)

    @property
    def digest(self) -> str:
        """Of all of them, see `digest_of_files`."""
        tokenizer = [] if self.tokenizer is None else vocabulary_files(self.tokenizer)
        return digest_of_files(self.weights, tokenizer, self.config, self.left_out)


class Opened(NamedTuple):
    """An encoder that is loaded.

    Attributes:
        network: its weights, in float32.
        tokenize: gives the tokens of captions.
        encode: gives of ids and mask, on the network's device, the tokens' embeddings (N, length, D) and, if it has
            any, those of the whole captions (N, D').
    """

    network: nn.Module
    tokenize: Callable[[Sequence[str]], Tokenized]
    encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


class _Held:
    """Holds a loaded encoder, which is neither copied with its owner nor stored with it."""

    def __init__(self) -> None:
        self.opened: Opened | None = None
        self.has_warned = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[type["_Held"], tuple[()]]:
        return _Held, ()


class FrozenTextEncoder(TextEncoder):
    """An encoder that is loaded from its files only where captions are encoded.

    No state dict holds its weights; a run's config records their digest. Its columns are in float16.

    Args:
        path: the folder of its files, or its name on the Hugging Face hub.
        length: of a caption, in tokens, the beginning and the end included.
        mask: whether padding is masked.
        known: what `found` gives, where that is known.

    Attributes:
        option: that of the group `text`.
        package: what it is read by, by its name on the package index.
        module: what that is imported as.
    """

    cached = True
    option: ClassVar[str]
    package: ClassVar[str]
    module: ClassVar[str]

    def __init__(self, path: str, length: int, mask: bool, known: Mapping[str, Any]) -> None:
        super().__init__()
        if None in known.values():
            known = self.found({"path": path, "length": length})
        channels, pooled = known["channels"], self.pooled_size(known)
        self.path = path
        self.length = length
        self.mask = mask
        self.weights: str = known["weights"]
        self.token_channels = channels
        self.pooled_channels = pooled
        self.columns = {TEXT: ((length, channels), torch.float16)}
        self.columns |= {MASK: ((length,), torch.bool)} if mask else {}
        self.columns |= {} if pooled is None else {POOLED: ((pooled,), torch.float16)}
        self.function = f"{self.option} {self.weights} length {length} mask {mask}"
        self._held = _Held()

    @classmethod
    def found(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """See `TextEncoder`: "weights", the digest of its files, and the sizes of its embeddings."""
        require_package(f"text={cls.option}", cls.package, cls.module)
        files, length = cls.files(options["path"]), options["length"]
        if files.positions is not None and length > files.positions:
            raise OptionError("length", f"is {length}; allowed: 3 to {files.positions}, the encoder's positions")
        return {"weights": files.digest, **files.sizes}

    @staticmethod
    def pooled_size(known: Mapping[str, Any]) -> int | None:
        """The size of a caption's embedding, of what `found` gives; None: it has none."""
        return known.get("pooled_channels")

    @classmethod
    @abstractmethod
    def files(cls, path: str) -> Files:
        """Find its files.

        Raises:
            OptionError: when they are missing, damaged or another encoder's.
        """

    @abstractmethod
    def open(self, files: Files) -> Opened:
        """Load the encoder from its files, onto the CPU."""

    def own_files(self) -> Files:
        """The files that it was built of.

        Raises:
            UserError: when they, or its package, are missing, or the files are other ones than recorded.
        """
        require_package(f"text={self.option}", self.package, self.module)
        with _named():
            files = self.files(self.path)
            if (digest := files.digest) != self.weights:
                text = f"is {self.path}, of the digest {digest[:8]}; allowed: the encoder of {self.weights[:8]}"
                raise OptionError("path", text)
        return files

    def prepare(self, captions: Sequence[str], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """See `TextEncoder`: tokens, mask and vector; its weights stay loaded until `release`."""
        number = len(captions)
        rows = {name: torch.zeros((number, *shape), dtype=dtype) for name, (shape, dtype) in self.columns.items()}
        opened = self._opened()
        opened.network.to(device)
        for first in range(0, number, BATCH):
            # Half of a pair of surrogates is no character, and other libraries do not take it.
            some = [text.encode("utf-8", "replace").decode() for text in captions[first : first + BATCH]]
            ids, mask, cut = opened.tokenize(some)
            if bool(cut.any()):
                self._warn(some[int(cut.nonzero()[0])])
            with torch.no_grad():
                tokens, pooled = opened.encode(ids.to(device), mask.to(device))
            if self.mask:
                tokens = tokens.masked_fill(~mask.to(device)[..., None], 0)
            for name, values in ((TEXT, tokens), (MASK, mask), (POOLED, pooled)):
                if name in rows and values is not None:
                    rows[name][first : first + BATCH] = values.to("cpu", rows[name].dtype)
        return rows

    def release(self) -> None:
        """See `TextEncoder`: forgets its weights."""
        self._held.opened = None

    def forward(self, columns: Mapping[str, Tensor]) -> Encoded:
        """See `TextEncoder`: they are finished."""
        tokens, mask, pooled = (columns.get(name) for name in (TEXT, MASK, POOLED))
        return Encoded(None if tokens is None else tokens.float(), mask, None if pooled is None else pooled.float())

    def _opened(self) -> Opened:
        if self._held.opened is None:
            files = self.own_files()
            with _named():
                opened = self.open(files)
            opened.network.eval().requires_grad_(False)
            self._held.opened = opened
        return self._held.opened

    def _warn(self, caption: str) -> None:
        if not self._held.has_warned:
            self._held.has_warned = True
            warnings.warn(
                f"text.length={self.length}: captions with more tokens are cut, such as "
                f'"{visible(caption[:SHOWN])}..." of {len(caption):,} letters',
                stacklevel=3,
            )


@contextmanager
def _named() -> Iterator[None]:
    """Have an error name its option in full: where captions are encoded, nobody knows that it is of text=NAME.

    Raises:
        UserError: in place of an `OptionError`.
    """
    try:
        yield
    except OptionError as error:
        raise UserError(f"text.{error}") from error


@contextmanager
def reading(path: str, kind: str) -> Iterator[None]:
    """Report whatever another library raises of an encoder's files.

    Raises:
        OptionError: in its place.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of a stranger's files, by another library: may be anything
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        text = f"is {path}, which cannot be read as {kind} ({type(error).__name__}: {visible(reason)}); fetch it again"
        raise OptionError("path", text) from error


def of_transformers(tokenizer: Any, length: int) -> Callable[[Sequence[str]], Tokenized]:
    """What tokenizes with a tokenizer of the library `transformers`, to rows of some length."""
    tokenizer.padding_side = tokenizer.truncation_side = "right"

    def tokenize(captions: Sequence[str]) -> Tokenized:
        rows = tokenizer(list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        mask = rows["attention_mask"].bool()
        cut = mask.all(1)
        for place in cut.nonzero().flatten().tolist():  # or just as long
            cut[place] = len(tokenizer(captions[place], verbose=False)["input_ids"]) > length
        return Tokenized(rows["input_ids"], mask, cut)

    return tokenize


def pretrained(kind: Any, folder: Path, path: str) -> nn.Module:
    """A network of the library `transformers` with the weights of a folder, in float32.

    Args:
        kind: its class.
        folder: the weights.
        path: the option that names it.

    Raises:
        OptionError: when they cannot be read, or some are missing.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # it lists what it does not use, such as the vision half
    with reading(path, kind.__name__):
        network, report = kind.from_pretrained(
            str(folder), local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    if missing := sorted(report["missing_keys"]):
        text = f"is {path}, whose weights lack {visible(missing[0])} and {len(missing) - 1} others"
        raise OptionError("path", f"{text}; allowed: the weights of a {kind.__name__}")
    found: nn.Module = network
    return found
