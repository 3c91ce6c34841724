"""The one loop over numbered samples: a process's share of them, batch by batch, until the end or a signal."""

from collections.abc import Iterator

from tqdm import tqdm

from langevin.bars import progress_bar
from langevin.interrupt import stop_on_signal


class Batches:
    """Whole batches of numbered samples, dealt out to the processes in turn; iterating gives those of this process.

    There are the same batches for any number of processes, and so the same results bit for bit: in floating point, a
    network's output for a sample depends a little on the rest of the batch. The first process shows a progress bar.
    After a signal all processes stop after the same round, with `Interrupted`.

    Args:
        number: how many samples there are, over all processes.
        size: samples in a batch; the last one may have fewer.
        rank: which process this is.
        world_size: how many there are.
        doing: names the work on the progress bar, such as "sample".
        where: the point of the command's work, for the message about a signal, such as "at step 4".

    Attributes:
        all: the batches of all processes, each the numbers of its samples.
    """

    def __init__(
        self, number: int, size: int, rank: int = 0, world_size: int = 1, doing: str = "", where: str = ""
    ) -> None:
        self.all = [range(start, min(start + size, number)) for start in range(0, number, size)]
        self.size = size
        self.rank = rank
        self.world_size = world_size
        self.doing = doing
        self.where = where
        self._bar = tqdm(disable=True)
        self._done = self._under_way = 0

    def __iter__(self) -> Iterator[range]:
        mine = self.all[self.rank :: self.world_size]
        rounds = -(-len(self.all) // self.world_size)
        self._done = 0
        options = {"total": sum(map(len, mine)), "desc": self.doing, "unit": "sample"}
        with progress_bar(**options, disable=self.rank > 0) as self._bar:
            for indices in stop_on_signal(mine, rounds, self.where):
                self._under_way = len(indices)
                yield indices
                self.progress(1)
                self._done += len(indices)

    def progress(self, part: float) -> None:
        """Show that so much, in [0, 1], of the batch under way is done."""
        self._bar.update(self._done + int(part * self._under_way) - self._bar.n)
