"""Answers batches of requests: all pictures through the model together, each answer on its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Final, Literal, TypeVar

import torch
from PIL import Image
from torch import Tensor

from shortft_core.errors import DivergedError, UserError
from shortft_core.generate import Sampler, to_pil
from shortft_core.models import DiffusionModel
from shortft_core.preprocessing import quantize
from shortft_core.rewards import Composite
from shortft_core.spec import Source
from shortft_core.spec.generation import GenerationSpec, ScoreSpec, ServedAdapter
from worker.children.endings import ending_of
from worker.children.memory import is_out_of_memory
from worker.children.pictures import Chain, Provenance, encode, read_picture
from worker.children.pipelines import Pipelines, chain_of, warnings_of
from worker.generate.messages import Answer, Batch, Picture, Problem, Request

Wanted = tuple[str, int]
"""Prompt and seed: what a picture follows from, on one chain."""
_Item = TypeVar("_Item")
_LOG: Final = logging.getLogger(__name__)
_SUFFIXES: Final = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


@dataclass(kw_only=True)
class Batches:
    """Works on batches; nothing that a request holds makes it raise."""

    pipelines: Pipelines
    batch_size: int
    """Most pictures at once; halved for a batch that does not fit into memory."""
    answer: Callable[[Answer], None]
    alive: Callable[[str], None]
    """Told before every piece of work that may take long."""

    def run(self, batch: Batch) -> None:
        """Gives every request of the batch one answer."""
        requests = sorted(batch.requests, key=_group)
        for _, alike in groupby(requests, key=_group):
            self._run_alike(batch, list(alike))

    def preload(self, source: Source) -> None:
        """Loads a base model before it is asked for; a failure is told to whoever asks later."""
        self.alive(f"loading {source}")
        try:
            self.pipelines.model(source)
        except Exception:  # noqa: BLE001 - logged, and met again by the first request
            _LOG.exception("%s was not loaded", source)

    def _run_alike(self, batch: Batch, requests: list[Request]) -> None:
        try:
            answers = _Work(self, batch).answers(requests)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller has to be told
            _LOG.exception("%s of batch %s failed", [one.id for one in requests], batch.id)
            problem = problem_of(error)
        else:
            for answer in answers:
                self.answer(answer)
            return
        # Outside of the handler: a live exception holds the tensors of the frames it went through.
        if len(requests) == 1:
            self.answer(Answer(batch=batch.id, request=requests[0].id, problem=problem))
            return
        for request in requests:
            self._run_alike(batch, [request])


def problem_of(error: Exception) -> Problem:
    """What a caller is told of an error."""
    text = error.problem + ". " + error.remedy + "." if isinstance(error, UserError) else str(error)
    code = "out_of_memory" if is_out_of_memory(error) else ending_of(error).error_code
    return Problem(
        code=code or "internal",
        message=text or type(error).__name__,
        field=error.field if isinstance(error, UserError) else None,
    )


def _group(request: Request) -> str:
    return request.spec.batch_key()


@dataclass
class _Work:
    """One pass over requests that run together."""

    batches: Batches
    batch: Batch
    batch_size: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.batch_size = self.batches.batch_size

    def answers(self, requests: Sequence[Request]) -> list[Answer]:
        """What each request gets; raises where even one of them has none."""
        first = requests[0].spec
        if isinstance(first, ScoreSpec):
            return [self._scored(request) for request in requests]
        return self._generated(requests, first)

    def _generated(self, requests: Sequence[Request], first: GenerationSpec) -> list[Answer]:
        folders = requests[0].adapters
        with self._timed("load"):
            sampler = self.batches.pipelines.sampler(first, folders)
        specs = [one.spec for one in requests if isinstance(one.spec, GenerationSpec)]
        tuned = self._images(sampler, [one for spec in specs for one in _wanted(spec)], first)
        compared = [one for spec in specs if spec.compare_base for one in _wanted(spec)]
        kinds = {"tuned": _Kind("tuned", tuned, first.adapters, chain_of(first, folders, sampler))}
        if compared:
            untuned = self.batches.pipelines.base(first, sampler)
            base = self._images(untuned, compared, first)
            chain = chain_of(first.model_copy(update={"adapters": ()}), (), untuned)
            kinds = {"base": _Kind("base", base, (), chain), **kinds}
        answers = []
        for request, spec in zip(requests, specs, strict=True):
            made = _Made(
                spec, [kinds[name] for name in kinds if spec.compare_base or name != "base"]
            )
            answers.append(self._finish(request, made, warnings_of(spec, folders, sampler)))
        return answers

    def _images(
        self, sampler: Sampler, wanted: Sequence[Wanted], spec: GenerationSpec
    ) -> dict[Wanted, Tensor]:
        """Each distinct prompt and seed once; raises DivergedError for values that are no color."""

        def make(pairs: Sequence[Wanted]) -> Tensor:
            prompts, seeds = zip(*pairs, strict=True)
            with self._reported(sampler.model):
                return replace(sampler, batch_size=len(pairs)).images(prompts, seeds)

        distinct = list(dict.fromkeys(wanted))
        with self._timed("generate"):
            images = self._in_parts(make, distinct, spec)
        if not torch.isfinite(images).all():
            raise DivergedError("the model gave a picture with values that are not finite")
        return dict(zip(distinct, images, strict=True))

    @contextmanager
    def _reported(self, model: DiffusionModel) -> Iterator[None]:
        """Meanwhile every call of the denoiser is told: on a CPU a chain takes many minutes."""
        hook = model.denoiser.register_forward_pre_hook(lambda *_: self.batches.alive("denoising"))
        try:
            yield
        finally:
            hook.remove()

    def _in_parts(
        self,
        make: Callable[[Sequence[_Item]], Tensor],
        items: Sequence[_Item],
        spec: GenerationSpec,
    ) -> Tensor:
        """Everything through `make`, a part at a time; parts are halved where memory ends."""
        parts, done, room_made = [], 0, False
        while done < len(items):
            part = items[done : done + self.batch_size]
            self.batches.alive(f"{done} of {len(items)}")
            made = _unless_out_of_memory(make, part)
            if made is not None:
                parts.append(made)
                done += len(part)
            elif not room_made:
                self.batches.pipelines.make_room(spec)
                room_made = True
            elif len(part) > 1:
                self.batch_size = len(part) // 2
            else:
                raise torch.OutOfMemoryError("a single picture does not fit into memory")
        return torch.cat(parts)

    def _finish(self, request: Request, made: _Made, warnings: Sequence[str]) -> Answer:
        scores = self._scores(made)
        with self._timed("encode"):
            pictures = made.write(self.batch.folder / request.id, scores)
        return Answer(
            batch=self.batch.id,
            request=request.id,
            pictures=tuple(pictures),
            warnings=tuple(warnings),
            seconds=dict(self.seconds),
        )

    def _scores(self, made: _Made) -> list[dict[str, float]]:
        rows = made.rows()
        if not made.spec.score_with:
            return [{} for _ in rows]
        with self._timed("load"):
            composite = self.batches.pipelines.rewards(made.spec.score_with)
        with self._timed("score"):
            return [
                score(composite, image[None], prompt, self.batches.pipelines.device)
                for _, (prompt, _), image in rows
            ]

    def _scored(self, request: Request) -> Answer:
        spec = request.spec
        assert isinstance(spec, ScoreSpec)  # noqa: S101 - batches are grouped by kind
        with self._timed("load"):
            composite = self.batches.pipelines.rewards(spec.rewards)
        pictures = []
        for position, (path, scored) in enumerate(zip(request.pictures, spec.images, strict=True)):
            self.batches.alive(f"picture {position + 1} of {len(spec.images)}")
            image, media_type = read_picture(path, f"images.{position}")
            with self._timed("score"):
                scores = score(composite, image, scored.prompt, self.batches.pipelines.device)
            height, width = image.shape[-2:]
            pictures.append(
                Picture(
                    position=position,
                    file=path,
                    prompt=scored.prompt,
                    width=width,
                    height=height,
                    media_type=media_type,
                    scores=scores,
                )
            )
        return Answer(
            batch=self.batch.id,
            request=request.id,
            pictures=tuple(pictures),
            seconds=dict(self.seconds),
        )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        self.batches.alive(name)
        started = time.monotonic()
        try:
            yield
        finally:
            taken = time.monotonic() - started
            self.seconds[name] = round(self.seconds.get(name, 0.0) + taken, 4)


@dataclass(frozen=True, slots=True)
class _Kind:
    """All tuned pictures of a batch, or all of the base model."""

    name: Literal["base", "tuned"]
    images: Mapping[Wanted, Tensor]
    adapters: tuple[ServedAdapter, ...]
    chain: Chain


@dataclass(frozen=True, slots=True)
class _Made:
    """The pictures of one request."""

    spec: GenerationSpec
    kinds: Sequence[_Kind]

    def rows(self) -> list[tuple[_Kind, Wanted, Tensor]]:
        """In the order of the answer: the base model's picture stands before the tuned one."""
        return [
            (kind, wanted, kind.images[wanted])
            for wanted in _wanted(self.spec)
            for kind in self.kinds
        ]

    def write(self, folder: Path, scores: Sequence[dict[str, float]]) -> Iterator[Picture]:
        """Writes the files, and says what each one is."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = enumerate(zip(self.rows(), scores, strict=True))
        for position, ((kind, wanted, image), own) in rows:
            (picture,) = to_pil(image[None])
            path = folder / f"{position:03d}-{kind.name}{_SUFFIXES[self.spec.output_format]}"
            path.write_bytes(encode(picture, self._provenance(kind, wanted, picture)))
            yield Picture(
                position=position,
                kind=kind.name,
                file=path,
                prompt=wanted[0],
                seed=wanted[1],
                width=picture.width,
                height=picture.height,
                media_type=f"image/{self.spec.output_format}",
                scores=own,
            )

    def _provenance(self, kind: _Kind, wanted: Wanted, picture: Image.Image) -> Provenance:
        alone = self.spec.model_copy(
            update={
                "adapters": kind.adapters,
                "prompts": wanted[:1],
                "seeds": wanted[1:],
                "steps": kind.chain.steps,
                "guidance_scale": kind.chain.guidance_scale,
                "width": picture.width,
                "height": picture.height,
                "compare_base": False,
                "score_with": (),
            }
        )
        return Provenance(request=alone, chain=kind.chain, size=picture.size)


def score(
    composite: Composite, images: Tensor, prompt: str, device: torch.device
) -> dict[str, float]:
    """Raw scores of one image [1, 3, H, W], preprocessed as published numbers were made.

    Raises DivergedError for a score that is not finite.
    """
    with torch.no_grad():
        # As the stored picture has it, also for rewards that know no other preprocessing.
        terms = composite.terms(quantize(images.to(device)), [prompt], exact=True)
    scores = {name: values.item() for name, values in terms.items()}
    broken = [name for name, value in scores.items() if not torch.isfinite(torch.tensor(value))]
    if broken:
        raise DivergedError(f"{broken[0]} gives a picture a score that is not finite")
    return scores


def _wanted(spec: GenerationSpec) -> list[Wanted]:
    return list(zip(spec.prompts, spec.seeds, strict=True))


def _unless_out_of_memory(
    make: Callable[[Sequence[_Item]], Tensor], part: Sequence[_Item]
) -> Tensor | None:
    try:
        return make(part)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None
