"""From a request to a job: everything that can be known to be wrong is said now, all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sqlalchemy.orm import Session

from api.auth import Caller
from api.mistakes import first_of_each_field, raised, refusal
from api.schemas.common import checked_id
from api.schemas.jobs import LONGEST_LABEL, LONGEST_LABEL_TEXT, MOST_LABELS
from api.service import Service
from api.texts import WHY, unstorable
from api.weights import NeededWeights, check_weights, needed_by_job
from shortft_core import catalog
from shortft_core.errors import UserError
from shortft_core.spec import (
    AlignSpec,
    AnyReward,
    DistilSpec,
    Evaluation,
    Guard,
    PromptSource,
    Source,
    Spec,
)
from shortft_core.spec.read import parse_job
from store import prompt_sets
from store.errors import NotFoundError

AnyJob = AlignSpec | DistilSpec
_MOST_INLINE_PROMPTS: Final = 1_000
_MOST_INLINE_CHARACTERS: Final = 200_000
_SOME_MODEL: Final = Source(id="some/model")
"""Of which the catalog knows nothing."""
_SOME_PROMPTS: Final = PromptSource(name="shapes-train")
"""Which any judge can read."""
_OWN_TO_A_MODEL: Final = frozenset({"method.shortcut", "method.few_step", "guard.action"})
"""Fields that the catalog fills in, or checks, by the base model."""


def resolved(service: Service, caller: Caller, spec: AnyJob) -> AnyJob:
    """The job with every default filled in, ready for a row; raises ProblemError 422.

    The answer lists all mistakes, not the first one.
    """
    found = first_of_each_field(_mistakes(service, caller, spec))
    if found:
        raise refusal(found)
    complete = catalog.resolve_job(_with_whole_paths(service, spec))
    check_files(service, needed_by_job(complete))
    return complete


def hold_uploads(session: Session, caller: Caller, spec: AnyJob) -> None:
    """Keeps the prompt sets of a job from being deleted before its row is there.

    Raises ProblemError 422 for those that were deleted since they were looked at.
    """
    gone = list(_absent_uploads(session, caller, spec, prompt_sets.hold))
    if gone:
        raise refusal(gone)


def check_files(service: Service, needed: Iterator[NeededWeights]) -> None:
    """Raises ProblemError 422 for weights that are absent while downloads are switched off."""
    missing = first_of_each_field(check_weights(needed, service.settings))
    if missing:
        raise refusal(missing)


def _mistakes(service: Service, caller: Caller, spec: AnyJob) -> Iterator[UserError]:
    yield from _labels(spec.metadata)
    oversized = tuple(_inline(spec))
    yield from oversized
    if not oversized:
        # Else there might be a mistake for each of a million prompts.
        yield from (UserError(field, WHY, "Remove it") for field in unstorable(spec, ""))
    absent: dict[str, UserError] = {}
    if any(_uploads(spec)):
        with service.database.read() as session:
            found = _absent_uploads(session, caller, spec, prompt_sets.get)
            absent = {error.field: error for error in found}
    for field, source in _sources(spec, ""):
        if source.path is not None:
            yield from _path(service, source.path, f"{field}.path")
        if f"{field}.id" in absent:
            yield absent[f"{field}.id"]
    yield from _names(spec)


def _labels(metadata: dict[str, str]) -> Iterator[UserError]:
    if len(metadata) > MOST_LABELS:
        yield UserError("metadata", f"it has {len(metadata)} labels", f"Keep {MOST_LABELS}")
    for name, text in metadata.items():
        if not 0 < len(name) <= LONGEST_LABEL or len(text) > LONGEST_LABEL_TEXT:
            limits = f"Keep names to {LONGEST_LABEL} characters and texts to {LONGEST_LABEL_TEXT}"
            yield UserError("metadata", "a label is too long, or has no name", limits)


def _inline(spec: AnyJob) -> Iterator[UserError]:
    """Prompts within the specification are copied with it into every answer."""
    for field, source in _sources(spec, ""):
        texts = (source.inline if isinstance(source, PromptSource) else None) or ()
        characters = sum(map(len, texts))
        if len(texts) > _MOST_INLINE_PROMPTS or characters > _MOST_INLINE_CHARACTERS:
            yield UserError(
                f"{field}.inline",
                f"it has {len(texts)} prompts of {characters} characters, more than "
                f"{_MOST_INLINE_PROMPTS} or {_MOST_INLINE_CHARACTERS}",
                "Upload it with `POST /prompt-sets`",
            )


def _sources(part: Any, field: str) -> Iterator[tuple[str, Source | PromptSource]]:
    """Every source of weights and prompts in a specification, by the path of its field."""
    if isinstance(part, Source | PromptSource):
        yield field, part
    elif isinstance(part, Spec):
        for name in type(part).model_fields:
            yield from _sources(getattr(part, name), f"{field}.{name}".lstrip("."))
    elif isinstance(part, tuple):
        for index, item in enumerate(part):
            yield from _sources(item, f"{field}.{index}")


def _path(service: Service, path: str, field: str) -> Iterator[UserError]:
    """A path of the service's machine is the operator's business, below one folder."""
    folder = service.settings.model_dir
    if folder is None:
        yield UserError(field, "paths are for the command line", "Use a name, an id, or an upload")
        return
    root = folder.resolve()
    parts = PurePosixPath(path).parts
    if "\0" in path or path.startswith("/") or ".." in parts or not parts:
        yield UserError(
            field, "it leads out of the folder of models", "Name a file or folder below it"
        )
    elif not _is_below(root / path, root):
        yield UserError(field, "the folder of models has no such file", "Correct the name")


def _is_below(path: Path, folder: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(folder)
    except OSError:
        # Absent, or a name that no file system holds.
        return False


def _with_whole_paths(service: Service, spec: AnyJob) -> AnyJob:
    """The job with checked paths as workers see them, wherever they run."""
    folder = service.settings.model_dir
    named = [field for field, source in _sources(spec, "") if source.path is not None]
    if folder is None or not named:
        return spec
    content = spec.model_dump(mode="json")
    for field in named:
        part: Any = content
        for key in field.split("."):
            part = part[int(key)] if isinstance(part, list) else part[key]
        part["path"] = str(folder.resolve() / part["path"])
    return parse_job(content)


def _absent_uploads(
    session: Session, caller: Caller, spec: AnyJob, look: Callable[[Session, str, str], object]
) -> Iterator[UserError]:
    for field, row_id in _uploads(spec):
        try:
            look(session, checked_id("prompt set", row_id), caller.project)
        except NotFoundError as error:
            yield UserError(field, str(error), "Upload it with `POST /prompt-sets`")


def _uploads(spec: AnyJob) -> Iterator[tuple[str, str]]:
    """The uploaded sets that a specification names, by the paths of their fields."""
    for field, source in _sources(spec, ""):
        if isinstance(source, PromptSource) and source.id is not None:
            yield f"{field}.id", source.id


def _names(spec: AnyJob) -> Iterator[UserError]:
    """What the catalog refuses; stand-ins for unknown names let it look at the rest."""
    unknown = [*raised(partial(_known_base, spec.base_model)), *_prompt_sets(spec)]
    yield from unknown
    fields = {error.field for error in unknown}
    for error in _parts(_with_stand_ins(spec, fields)):
        # What follows from an unknown model is no second mistake.
        if "base_model.name" not in fields or error.field not in _OWN_TO_A_MODEL:
            yield error


def _known_base(source: Source) -> None:
    if source.name is not None:
        catalog.find(catalog.BASE_MODELS, source.name, "base_model.name")


def _prompt_sets(spec: AnyJob) -> Iterator[UserError]:
    for field, source in _sources(spec, ""):
        if isinstance(source, PromptSource) and source.name is not None:
            find = partial(catalog.find, catalog.PROMPT_SETS, source.name, f"{field}.name")
            yield from raised(find)


def _with_stand_ins(spec: AnyJob, unknown: AbstractSet[str]) -> AnyJob:
    changes: dict[str, object] = {}
    if "base_model.name" in unknown:
        changes["base_model"] = _SOME_MODEL
    if "prompts.name" in unknown:
        changes["prompts"] = _SOME_PROMPTS
    if "evaluation.prompts.name" in unknown:
        changes["evaluation"] = spec.evaluation.model_copy(update={"prompts": _SOME_PROMPTS})
    return spec.model_copy(update=changes)


def _parts(spec: AnyJob) -> Iterator[UserError]:
    """Each part alone, then the whole: there the catalog stops at the first mistake."""
    if isinstance(spec, AlignSpec):
        yield from raised(partial(catalog.resolve_method, spec.method, spec.base_model))
        yield from _rewards(spec.rewards, spec.base_model, "rewards")
        yield from _judges(spec.evaluation.held_out or ())
        yield from raised(partial(catalog.resolve, _unjudged(spec)))
    else:
        yield from _rewards(spec.evaluation.rewards, spec.base_model, "evaluation.rewards")
    yield from raised(partial(catalog.resolve_job, spec))


def _rewards(terms: Sequence[AnyReward], base_model: Source, field: str) -> Iterator[UserError]:
    for index, term in enumerate(terms):
        yield from raised(partial(catalog.resolve_reward, term, base_model, f"{field}.{index}"))


def _judges(names: Sequence[str]) -> Iterator[UserError]:
    known = dict.fromkeys((*catalog.REWARDS, catalog.ORACLE))
    for index, name in enumerate(names):
        yield from raised(partial(catalog.find, known, name, f"evaluation.held_out.{index}"))


def _unjudged(spec: AlignSpec) -> AlignSpec:
    """The job without judges and weights of rewards: what is left is whether it can be tuned."""
    changes = {
        "rewards": tuple(type(term)() for term in spec.rewards),
        "evaluation": Evaluation(held_out=()),
        "guard": Guard(),
    }
    return spec.model_copy(update=changes)
