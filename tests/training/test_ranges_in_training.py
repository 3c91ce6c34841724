from training_helpers import BUSY, train

WRONG = {
    "trainer.max_steps": 0,
    "trainer.num_nodes": 0,
    "trainer.accumulate_grad_batches": 0,
    "trainer.gradient_clip_val": 0,
    "trainer.val_check_interval": 0,
    "trainer.log_every_n_steps": 0,
    "trainer.precision": "64-true",  # images and noise are float32
    "callbacks.checkpoint.every_minutes": 0,
    "callbacks.checkpoint.every_n_steps": 0,
    "callbacks.checkpoint.keep_every_n_steps": 0,
    "callbacks.progress.every_n_steps": 0,
    "callbacks.samples.every_n_steps": 0,
    "callbacks.samples.num_samples": 0,
    "callbacks.samples.columns": 0,
    "callbacks.samples.seed": -1,
    "callbacks.trajectory.every_n_steps": 0,
    "callbacks.trajectory.num_samples": 0,
    "callbacks.trajectory.num_times": 1,
    "callbacks.trajectory.seed": -1,
    "evaluation.every_n_steps": 0,
    "evaluation.num_samples": 0,
    "evaluation.batch_size": 0,
    "evaluation.seed": -1,
}


def test_what_is_out_of_range_is_reported_all_at_once(tmp_path):
    run = train(tmp_path, *BUSY, *(f"{path}={value}" for path, value in WRONG.items()), status=1)
    assert not run.directory.exists()
    reported = {line.strip().partition(": ")[0]: line for line in run.err.splitlines()}
    for path, value in WRONG.items():
        assert f"is {value}" in reported[path] or f"is '{value}'" in reported[path]
        assert "allowed: " in reported[path]
    assert "Traceback" not in run.err


def test_the_least_that_is_in_range_is_allowed(tmp_path):
    least = {path: 1 for path, value in WRONG.items() if value == 0} | {
        "trainer.precision": "32-true",
        "trainer.gradient_clip_val": 1e-9,
        "trainer.limit_val_batches": 1,
        "callbacks.checkpoint.every_minutes": 1e-9,
        "callbacks.trajectory.num_times": 2,
        "callbacks.samples.seed": 0,
    }
    run = train(tmp_path, *BUSY, *(f"{path}={value}" for path, value in least.items()))
    assert [row["step"] for row in run.rows] == ["1"]
