"""Networks by torch's compiler."""

from torch import nn

from langevin import interrupt
from langevin.conditions.condition import Condition

VARIANTS = 8
"""Of a block: batch sizes, with and without gradients, training and not, weights and EMA weights."""


def compile_blocks(network: nn.Module) -> None:
    """Compile a network block by block, each when it first runs: the members of its lists; without lists, as a whole.

    Identical blocks share their compiled code, so that this takes a fraction of the time that the whole network
    would. The names of the weights stay. Every further batch size is compiled again.

    Args:
        network: changed in place.
    """
    from torch._dynamo import callback_handler, config  # takes two seconds

    if _begin not in callback_handler.start_callbacks:
        callback_handler.register_start_callback(_begin)
        callback_handler.register_end_callback(_end)
    blocks = blocks_of(network) or [network]
    # Blocks of one class are variants of one function to the compiler, of which it makes only eight by default.
    config.recompile_limit = max(config.recompile_limit, VARIANTS * len(blocks))
    for block in blocks:
        block.compile(dynamic=False)


def _begin(_: object) -> None:
    # Compiling takes up to minutes, and the compiled code has not started to run.
    interrupt.drop_at_once("while the network was compiled")


def _end(_: object) -> None:
    interrupt.keep()


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The members of the outermost lists; not those of a condition, which are small and not always called forward."""
    found: list[nn.Module] = []
    for child in network.children():
        if not isinstance(child, Condition):
            found += child if isinstance(child, nn.ModuleList) else blocks_of(child)
    return found
