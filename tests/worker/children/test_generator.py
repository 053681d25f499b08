"""The real generation process on the bundled model: what it answers, and that it lives on."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shortft_core.spec import Source
from shortft_core.spec.generation import GenerationSpec, ScoredImage, ScoreSpec
from shortft_core.spec.rewards import reward_term
from tests.worker.generate.samples import asked, served, write_adapter
from tests.worker.generate.talk import ask, generator
from worker.generate.messages import Answer
from worker.pipes import Child

RED, BLUE = "a red circle", "a blue star on a white background"


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with generator(tmp_path_factory.mktemp("generator")) as started:
        yield started


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return write_adapter(folder / "a", seed=1), write_adapter(folder / "b", seed=2, rank=2)


def pixels(answer: Answer, position: int = 0) -> NDArray[np.int16]:
    assert answer.problem is None, answer.problem
    with Image.open(answer.pictures[position].file) as picture:
        return np.asarray(picture).astype(np.int16)


def distance(left: NDArray[np.int16], right: NDArray[np.int16]) -> int:
    return int(np.abs(left - right).max())


def test_a_picture_does_not_depend_on_its_batch(child: Child, tmp_path: Path) -> None:
    specs = [asked(RED), asked(BLUE, RED, seeds=(3, 4)), asked(BLUE, seeds=(9,))]
    together = ask(child, tmp_path / "together", *specs)
    alone = [ask(child, tmp_path / f"alone{n}", spec)[0] for n, spec in enumerate(specs)]
    assert [len(answer.pictures) for answer in together] == [1, 2, 1]
    for ours, theirs in zip(together, alone, strict=True):
        for position in range(len(ours.pictures)):
            # fp32 sums differ in their last digits with the size of the batch.
            assert distance(pixels(ours, position), pixels(theirs, position)) <= 1
    assert distance(pixels(together[0]), pixels(together[2])) > 50
    assert together[1].pictures[1].seed == 4
    assert together[1].pictures[1].prompt == RED


def test_a_picture_can_be_made_again_from_what_its_file_says(
    child: Child, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    spec = asked(
        RED, adapters=(served(adapters[0], scale=0.5),), negative_prompt=BLUE, compare_base=True
    )
    (answer,) = ask(child, tmp_path / "first", spec, adapters=adapters[:1])
    assert [picture.kind for picture in answer.pictures] == ["base", "tuned"]
    for picture, files in zip(answer.pictures, ((), adapters[:1]), strict=True):
        with Image.open(picture.file) as opened:
            document = json.loads(opened.info["shortft"])
            parameters = str(opened.info["parameters"])
        again = GenerationSpec.model_validate(document["request"])
        (repeated,) = ask(child, tmp_path / picture.kind, again, adapters=files)
        assert repeated.pictures[0].file.read_bytes() == picture.file.read_bytes()
        assert "Steps: 4, Sampler: DDIM, CFG scale: 3, Seed: 7, Size: 64x64" in parameters
        assert parameters.startswith(f"{RED}\nNegative prompt: {BLUE}\n")
        hashes = [sha256[:12] for sha256 in document["branch_sha256"].get("adp_a", [])]
        assert len(hashes) == (2 if picture.kind == "tuned" else 0)
        assert ("Lora hashes" in parameters) == bool(hashes)
        assert all(sha256 in parameters for sha256 in hashes)
        # Where the service keeps it is not for others.
        assert not any(adapter["prefix"] for adapter in document["request"]["adapters"])
    assert distance(pixels(answer, 0), pixels(answer, 1)) > 20


@pytest.mark.parametrize(("kind", "quality"), [("jpeg", 95), ("webp", 80), ("jpeg", None)])
def test_other_formats_say_the_same_in_exif(
    child: Child, tmp_path: Path, kind: str, quality: int | None
) -> None:
    (answer,) = ask(
        child, tmp_path, asked("a réd circle", output_format=kind, output_quality=quality)
    )
    picture = answer.pictures[0]
    assert picture.media_type == f"image/{kind}"
    with Image.open(picture.file) as opened:
        assert opened.format == kind.upper()
        exif = opened.getexif()
    comment = exif.get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be").startswith("a réd circle\nSteps: 4")
    assert json.loads(exif[0x010E])["request"]["seeds"] == [7]


def test_two_adapters_act_together_and_each_scale_counts(
    child: Child, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    def drawn(name: str, *scales: float) -> NDArray[np.int16]:
        pairs = zip(adapters, scales, strict=False)
        spec = asked(RED, adapters=tuple(served(folder, scale=scale) for folder, scale in pairs))
        answer = ask(child, tmp_path / name, spec, adapters=adapters[: len(scales)])[0]
        return pixels(answer)

    both = drawn("both", 1.0, 1.0)
    assert distance(both, drawn("first", 1.0)) > 20
    assert distance(drawn("second off", 1.0, 0.0), drawn("first again", 1.0)) <= 1
    (base,) = ask(child, tmp_path / "base", asked(RED))
    assert distance(drawn("both off", 0.0, 0.0), pixels(base)) <= 1


def test_another_guidance_than_trained_is_served_with_a_warning(
    child: Child, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    spec = asked(RED, adapters=(served(adapters[0]),), guidance_scale=1.0, negative_prompt=BLUE)
    (answer,) = ask(child, tmp_path, spec, adapters=adapters[:1])
    assert answer.warnings == (
        "adp_a was trained at guidance 3, not 1",
        "negative_prompt has no effect at guidance 1",
    )
    assert answer.pictures[0].kind == "tuned"


def test_every_picture_is_scored_as_a_stored_one_is(child: Child, tmp_path: Path) -> None:
    rewards = (reward_term("symmetry", None), reward_term("hps_v2", Source(name="shapes")))
    (made,) = ask(child, tmp_path, asked(RED, BLUE, score_with=rewards))
    images = tuple(
        ScoredImage(key="uploads/a.png", sha256="0" * 64, prompt=picture.prompt)
        for picture in made.pictures
    )
    files = [picture.file for picture in made.pictures]
    (found,) = ask(child, tmp_path, ScoreSpec(rewards=rewards, images=images), pictures=files)
    for ours, theirs in zip(made.pictures, found.pictures, strict=True):
        assert set(ours.scores) == {"symmetry", "hps_v2"}
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-6)
        assert (theirs.seed, theirs.media_type, theirs.width) == (None, "image/png", 64)
    assert made.pictures[0].scores != made.pictures[1].scores
    assert made.seconds.keys() == {"load", "generate", "score", "encode"}


def test_a_request_that_cannot_be_served_is_refused_and_the_others_have_their_pictures(
    child: Child, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    missing = asked(RED, base_model=Source(id="nobody/nothing"))
    wrong, innocent, unknown = ask(child, tmp_path, asked(RED, height=63), asked(BLUE), missing)
    assert wrong.problem is not None
    assert (wrong.problem.code, wrong.problem.field) == ("invalid_config", "height")
    assert wrong.problem.message == "63 is not a multiple of 4. Use 64, for example."
    assert unknown.problem is not None
    assert (unknown.problem.code, unknown.problem.field) == ("model_not_found", "base_model")
    assert innocent.problem is None
    assert len(innocent.pictures) == 1


def test_an_adapter_keeps_its_chain_and_its_files(child: Child, tmp_path: Path) -> None:
    torn = write_adapter(tmp_path / "torn", seed=5)
    spec = asked(RED, adapters=(served(torn),), steps=5)
    (longer,) = ask(child, tmp_path, spec, adapters=(torn,))
    assert longer.problem is not None
    assert (longer.problem.code, longer.problem.field) == ("invalid_config", "steps")
    with (torn / "branch_1.safetensors").open("ab") as file:
        file.write(b"x")
    spec = asked(RED, adapters=(served(torn, card_sha256="1" * 64),))
    (changed,) = ask(child, tmp_path, spec, adapters=(torn,))
    assert changed.problem is not None
    assert changed.problem.code == "storage_error"
    assert "changed after it was written" in changed.problem.message


def test_a_picture_that_is_none_fails_alone(child: Child, tmp_path: Path) -> None:
    (made,) = ask(child, tmp_path, asked(RED))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    image = ScoredImage(key="uploads/a.png", sha256="0" * 64, prompt=RED)
    spec = ScoreSpec(rewards=(reward_term("symmetry", None),), images=(image, image))
    files = [made.pictures[0].file, broken]
    (failed,) = ask(child, tmp_path, spec, pictures=files)
    assert failed.problem is not None
    assert (failed.problem.code, failed.problem.field) == ("invalid_config", "images.1")
    assert failed.pictures == ()


def test_a_line_that_is_no_order_is_passed_over(child: Child, tmp_path: Path) -> None:
    child.send({"type": "dance"})
    (answer,) = ask(child, tmp_path, asked(RED))
    assert answer.problem is None
    assert "this line is no order" in child.log_tail()


def test_a_picture_that_does_not_fit_into_memory_is_refused_and_the_process_lives(
    child: Child, tmp_path: Path
) -> None:
    ask(child, tmp_path / "warm", asked(RED))
    status = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8")
    size = next(line for line in status.splitlines() if line.startswith("VmSize"))
    limit = (int(size.split()[1]) << 10) + (96 << 20)
    before = resource.prlimit(child.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    (large,) = ask(child, tmp_path / "large", asked(RED, steps=1, height=2048, width=2048))
    resource.prlimit(child.pid, resource.RLIMIT_AS, before)
    assert large.problem is not None
    assert large.problem.code == "out_of_memory"
    (after,) = ask(child, tmp_path / "after", asked(RED))
    assert after.problem is None
