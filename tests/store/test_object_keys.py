from __future__ import annotations

import pytest

from store import object_keys
from store.objects import _KEY


def test_prefixes_are_those_that_others_rely_on() -> None:
    assert object_keys.job_prefix("job_a") == "jobs/job_a/"
    assert object_keys.checkpoint_prefix("job_a", 40, 3) == "jobs/job_a/checkpoints/000040.t3/"
    assert object_keys.best_prefix("job_a", 40, 3) == "jobs/job_a/best/000040.t3/"
    assert object_keys.samples_prefix("job_a", 3) == "jobs/job_a/samples/t3/"
    assert object_keys.prompts_prefix("job_a") == "jobs/job_a/prompts/"
    assert object_keys.artifacts_prefix("job_a", 12) == "jobs/job_a/artifacts/t12/"
    assert object_keys.generation_prefix("gen_a", 1) == "generations/gen_a/t1/"
    assert object_keys.upload_prefix("gen_a") == "uploads/gen_a/"


def test_a_checkpoint_is_found_by_the_key_of_its_row() -> None:
    prefix = object_keys.checkpoint_prefix("job_a", 40, 3)
    key = object_keys.checkpoint_state(prefix)
    assert key == "jobs/job_a/checkpoints/000040.t3/state.safetensors"
    assert object_keys.checkpoint_folder(key) == prefix
    assert object_keys.checkpoint_adapter(key) == prefix + "adapter/"


@pytest.mark.parametrize(
    ("key", "token"),
    [
        (object_keys.checkpoint_prefix("job_a", 40, 3) + "adapter/shortft.json", 3),
        (object_keys.artifacts_prefix("job_a", 12) + "report.html", 12),
        (object_keys.generation_prefix("gen_t7", 1) + "0.png", 1),
        (object_keys.samples_prefix("job_a", 4) + "000030/t5.png", 4),
        # As an earlier version has stored it.
        (object_keys.job_prefix("job_a") + "samples/000030/t5.png", None),
        (object_keys.upload_prefix("gen_a") + "0", None),
    ],
)
def test_the_token_of_the_writer_is_in_the_key(key: str, token: int | None) -> None:
    assert _KEY.fullmatch(key)
    assert object_keys.token_of(key) == token
