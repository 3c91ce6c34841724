"""Training on tar shards that are read while it trains."""

import io
import signal
import tarfile

import pytest
from helpers.commands import wait_for
from PIL import Image
from sklearn.datasets import load_digits
from training_helpers import QUIET, TINY, column, differing, started, train, train_by, trained

from langevin.checkpoint import read_checkpoint

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Of a run on 120 digits in six shards."""
    folder = tmp_path_factory.mktemp("shards")
    digits = load_digits()
    for shard in range(6):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for row in range(20 * shard, 20 * shard + 20):
                file = io.BytesIO()
                Image.fromarray((digits.images[row] * 15).astype("uint8")).save(file, "PNG")
                for suffix, content in (("png", file.getvalue()), ("cls", str(digits.target[row]).encode())):
                    info = tarfile.TarInfo(f"{row:04}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    of_data = ("data=tar_shards", f"data.path={folder}", "data.image_size=8", "data.channels=1")
    return (*QUIET, *of_data, "loader=blocks", "loader.window=2", "loader.num_workers=0")


def test_a_run_resumes_to_the_same_end_and_a_window_is_of_its_identity(tmp_path, options):
    # 20 steps of 8 of 120 images: beyond an epoch, and stopped within a pool.
    train(tmp_path, *options, "trainer.max_steps=7")
    resumed = train(tmp_path, *options, "trainer.max_steps=20")
    assert "from step 7 to 20; 120 images of (1, 8, 8)" in resumed.out
    whole = train(tmp_path, *options, "trainer.max_steps=20", "loader.num_workers=1", name="whole")
    assert differing(trained(resumed), trained(whole)) == []
    assert resumed.rows == whole.rows
    other = train(tmp_path, *options, "loader.window=3", "trainer.max_steps=21", status=1)
    assert "loader.window: 2 in the run, 3 now" in other.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("loader.window=0",), "loader.window: is 0; allowed: a whole number, at least 1"),
        (("data=digits",), "reads data that lies in blocks, and digits does not"),
        (("metrics=[class_accuracy]",), "loader=blocks: keeps no decoded training set, which this needs: metrics="),
        (("captions=templates", "conditions=[text,class_label]", "text=bag"), "captions: are written of a cache"),
    ],
)
def test_what_blocks_cannot_do_is_refused(tmp_path, options, given, message):
    kept = options if given != ("data=digits",) else (*QUIET, "loader=blocks")
    assert message in train(tmp_path, *kept, *given, status=1).err


@pytest.mark.slow
def test_a_run_that_is_killed_five_times_ends_as_an_undisturbed_one(tmp_path, monkeypatch, options):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    often = (*options, "callbacks.checkpoint.every_minutes=0.0005")
    step, metrics = 0, tmp_path / "run" / "metrics.csv"
    for _ in range(5):
        with started(tmp_path, *often, "trainer.max_steps=100000") as (process, log):
            rows = step + 8
            wait_for(lambda rows=rows: metrics.exists() and metrics.read_text().count("\n") > rows, process, log)
            process.kill()
            assert process.wait(120) == -signal.SIGKILL
        saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"]
        assert saved > step
        step = saved
    resumed = train(tmp_path, *often, f"trainer.max_steps={step + 5}")
    whole = train(tmp_path, *often, f"trainer.max_steps={step + 5}", name="whole")
    assert differing(trained(resumed), trained(whole)) == []
    assert resumed.rows == whole.rows


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, options):
    given = (*TINY, *options, "model.dropout=0", "trainer.max_steps=20")
    one, two = (train_by(processes, tmp_path, *given) for processes in (1, 2))
    assert len(one.rows) == 20
    assert column(two.rows, "train/loss") == pytest.approx(column(one.rows, "train/loss"), rel=1e-5)
