"""Training on tar shards and Parquet files that are read while it trains."""

import io
import signal

import pytest
from helpers.block_files import Parquets, Row, Tars
from helpers.commands import wait_for
from PIL import Image
from sklearn.datasets import load_digits
from training_helpers import QUIET, TINY, column, differing, started, train, train_by, trained

from langevin.checkpoint import read_checkpoint

pytestmark = pytest.mark.e2e


def options_of(kind, folder):
    """Of a run on 120 digits in six blocks of a kind of file."""
    digits, rows = load_digits(), []
    for row in range(120):
        file = io.BytesIO()
        Image.fromarray((digits.images[row] * 15).astype("uint8")).save(file, "PNG")
        label = int(digits.target[row])
        rows.append(Row(file.getvalue(), "png", label, [f"a {label}", f"the digit {label}"]))
    kind.write(folder, [rows[first : first + 20] for first in range(0, 120, 20)])
    of_data = (f"data={kind.name}", f"data.path={folder}", "data.image_size=8", "data.channels=1")
    return (*QUIET, *of_data, "loader=blocks", "loader.window=2", "loader.num_workers=0")


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Of a run on tar shards."""
    return options_of(Tars, tmp_path_factory.mktemp("shards"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Tars, Parquets], ids=lambda kind: kind.name)
def test_a_run_on_captions_resumes_to_the_same_end(tmp_path, kind):
    ((name, value),) = kind.captions.items()
    of_text = ("conditions=[class_label,text]", "text=bag", f"data.{name}={value}")
    given = (*options_of(kind, tmp_path / "files"), *of_text)
    train(tmp_path, *given, "trainer.max_steps=7")
    resumed = train(tmp_path, *given, "trainer.max_steps=20")
    assert "120 images in 10 classes, 240 captions (20 of them distinct)" in resumed.out
    whole = train(tmp_path, *given, "trainer.max_steps=20", "loader.num_workers=1", name="whole")
    assert differing(trained(resumed), trained(whole)) == []
    assert resumed.rows == whole.rows


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
        (("conditions=[class_label,text]", "text=bag"), "read those of data=tar_shards (data.captions=true)"),
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
