"""The bundled oracle on rendered scenes, and its refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from shapes.data import batch
from shortft_core.errors import MissingWeightsError, PromptError, UserError, WeightsError
from shortft_core.oracle import reader
from shortft_core.oracle.reader import Detections, OracleJudge, build, load_reader
from shortft_core.oracle.reading import ATTRIBUTES, compare, total

SEED = 911


@pytest.fixture(scope="module")
def judge() -> OracleJudge:
    return build(device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize(("held_out", "least"), [(False, 0.97), (True, 0.95)])
def test_reads_every_attribute_of_rendered_scenes(
    judge: OracleJudge, *, held_out: bool, least: float
) -> None:
    scenes, images, _ = batch(SEED, 0, 256, held_out=held_out)
    readings = reader.read(judge.network, images)
    truths = [scenes.scene(index) for index in range(len(scenes))]
    marks = total(compare(*pair) for pair in zip(readings, truths, strict=True))
    rates = {attribute: marks.rate(attribute) for attribute in ATTRIBUTES}
    assert all(rate is not None and rate >= least for rate in rates.values()), rates


def test_finds_the_centers_within_two_pixels(judge: OracleJudge) -> None:
    scenes, images, _ = batch(SEED, 1, 64, two_shapes=0.0)
    readings = reader.read(judge.network, images)
    found = torch.tensor([[r.shapes[0].x, r.shapes[0].y] for r in readings if r.shapes])
    truth = torch.from_numpy(scenes.center[[bool(r.shapes) for r in readings], 0])
    assert len(found) >= 62
    assert (found - truth).norm(dim=-1).mean() < 2.0


def test_true_captions_score_higher_than_captions_of_other_scenes(judge: OracleJudge) -> None:
    _, images, captions = batch(SEED, 2, 64)
    true = judge.score(images, captions)
    others = judge.score(images, [*captions[1:], captions[0]])
    assert true.shape == (64,)
    assert true.mean() > 0.97
    assert others.mean() < 0.5


def test_a_batch_scores_as_its_images_alone_and_carries_no_gradient(judge: OracleJudge) -> None:
    _, images, captions = batch(SEED, 3, 4)
    together = judge.score(images.requires_grad_(), captions, exact=True)
    alone = [judge.score(images[i : i + 1], [captions[i]]).item() for i in range(4)]
    assert together.tolist() == alone
    assert not together.requires_grad


def test_an_empty_picture_has_no_shapes(judge: OracleJudge) -> None:
    blank = torch.full((1, 3, 64, 64), 0.95)
    (reading,) = reader.read(judge.network, blank)
    assert reading.shapes == ()
    assert reading.background == "white"


def test_presence_shared_by_two_cells_is_one_shape() -> None:
    presence = torch.full((1, 8, 8), -20.0)
    presence[0, 3, 3], presence[0, 3, 4] = -0.2, -0.3
    center = (reader._corners(8)[None] + 0.5) * reader.CELL
    center[0, 3, 3:5] = torch.tensor([32.0, 28.0])
    found = Detections(
        presence=presence,
        kind=torch.zeros(1, 8, 8, 8),
        color=torch.zeros(1, 8, 8, 12),
        size=torch.zeros(1, 8, 8, 3),
        center=center,
        background=torch.zeros(1, 12),
    )
    ((shape,),) = [reading.shapes for reading in reader._decode(found)]
    assert (shape.x, shape.y) == (32.0, 28.0)
    assert shape.confidence == pytest.approx(0.450166 + 0.425557, abs=1e-5)


def test_refuses_prompts_outside_the_grammar(judge: OracleJudge) -> None:
    with pytest.raises(PromptError, match="a photo of a cat"):
        judge.score(torch.zeros(1, 3, 64, 64), ["a photo of a cat"])


@pytest.mark.parametrize("shape", [(1, 3, 128, 128), (1, 1, 64, 64), (3, 64, 64)])
def test_refuses_other_sizes(judge: OracleJudge, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="64 x 64"):
        judge.score(torch.zeros(shape), ["a red circle"])


def test_refuses_missing_and_foreign_weights(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"model\.safetensors"):
        load_reader(tmp_path)
    shutil.copytree(reader.FOLDER, tmp_path / "oracle")
    path = tmp_path / "oracle" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"colors": ["red"]}), encoding="utf-8")
    with pytest.raises(WeightsError, match="another vocabulary"):
        load_reader(tmp_path / "oracle")
