import pytest

from langevin import interrupt
from langevin.batches import Batches


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_every_image_falls_to_one_process_in_the_same_batches(world):
    shares = [list(Batches(10, 4, rank, world)) for rank in range(world)]
    assert sorted(batch.start for share in shares for batch in share) == [0, 4, 8]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(10))
    assert shares[0][0] == range(4)
    assert all(batch in Batches(10, 4).all for share in shares for batch in share)


def test_after_a_signal_no_further_batch_is_begun(monkeypatch):
    begun = []

    def work():
        for batch in Batches(12, 4, where="at step 4"):
            begun.append(batch.start)
            if batch.start == 4:
                monkeypatch.setattr(interrupt, "_received", "SIGUSR1")

    with pytest.raises(interrupt.Interrupted, match="by SIGUSR1 at step 4"):
        work()
    assert begun == [0, 4], "the batch under way is finished"


def test_the_bar_shows_how_far_a_batch_is(capsys):
    batches, shown = Batches(10, 4, doing="sample"), []
    for _ in batches:
        batches.progress(0.5)
        shown.append(batches._bar.n)
    assert shown == [2, 6, 9]
    assert batches._bar.n == 10
    assert "sample" in capsys.readouterr().err
    list(Batches(10, 4, rank=1, world_size=2, doing="sample"))
    assert capsys.readouterr().err == "", "the first process alone shows it"
