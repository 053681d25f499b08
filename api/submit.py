"""From a request to a job: everything that can be known to be wrong is said now, all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

from api.auth import Caller
from api.problems import ProblemError
from api.schemas.common import checked_id
from api.schemas.jobs import LONGEST_LABEL, LONGEST_LABEL_TEXT, MOST_LABELS
from api.schemas.problems import Mistake
from api.service import Service
from api.texts import WHY, unstorable
from api.weights import NeededWeights, check_weights, needed_by_job
from shortft_core import catalog
from shortft_core.errors import (
    MissingWeightsError,
    PlanError,
    ShortFTError,
    UnknownNameError,
    UserError,
)
from shortft_core.spec import AlignSpec, DistilSpec, PromptSource, Source, Spec
from shortft_core.spec.read import parse_job
from store import prompt_sets
from store.errors import NotFoundError

AnyJob = AlignSpec | DistilSpec
_MOST_INLINE_PROMPTS: Final = 1_000
_MOST_INLINE_CHARACTERS: Final = 200_000
_CODES: Final = (
    (MissingWeightsError, "model_not_available_offline"),
    (PlanError, "no_legal_plan"),
    (UnknownNameError, "unknown_name"),
    (UserError, "invalid_value"),
)


def resolved(service: Service, caller: Caller, spec: AnyJob) -> AnyJob:
    """The job with every default filled in, ready for a row; raises ProblemError 422.

    The answer lists all mistakes, not the first one.
    """
    found = _first_of_each_field(_mistakes(service, caller, spec))
    if found:
        raise refusal(found)
    complete = catalog.resolve_job(_with_whole_paths(service, spec))
    check_files(service, needed_by_job(complete))
    return complete


def check_files(service: Service, needed: Iterator[NeededWeights]) -> None:
    """Raises ProblemError 422 for weights that are absent while downloads are switched off."""
    missing = _first_of_each_field(check_weights(needed, service.settings.hub_folder()))
    if missing:
        raise refusal(missing)


def _mistakes(service: Service, caller: Caller, spec: AnyJob) -> Iterator[UserError]:
    yield from _labels(spec.metadata)
    oversized = tuple(_inline(spec))
    yield from oversized
    if not oversized:
        # Else there might be a mistake for each of a million prompts.
        yield from (UserError(field, WHY, "Remove it") for field in unstorable(spec, ""))
    for field, source in _sources(spec, ""):
        if source.path is not None:
            yield from _path(service, source.path, f"{field}.path")
        if isinstance(source, PromptSource) and source.id is not None:
            yield from _uploaded(service, caller, source.id, f"{field}.id")
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


def _uploaded(service: Service, caller: Caller, row_id: str, field: str) -> Iterator[UserError]:
    try:
        with service.database.read() as session:
            prompt_sets.get(session, checked_id("prompt set", row_id), caller.project)
    except NotFoundError as error:
        yield UserError(field, str(error), "Upload it with `POST /prompt-sets`")


def _names(spec: AnyJob) -> Iterator[UserError]:
    """What the catalog refuses: as a whole, and in each part that can be looked at alone."""
    unknown = tuple(_raised(partial(_known_base, spec.base_model)))
    yield from unknown
    if isinstance(spec, AlignSpec):
        if not unknown:
            # What follows from an unknown model is no second mistake.
            yield from _raised(partial(catalog.resolve_method, spec.method, spec.base_model))
        for index, term in enumerate(spec.rewards):
            field = f"rewards.{index}"
            yield from _raised(partial(catalog.resolve_reward, term, spec.base_model, field))
    if not unknown:
        yield from _raised(partial(catalog.resolve_job, spec))


def _known_base(source: Source) -> None:
    if source.name is not None:
        catalog.find(catalog.BASE_MODELS, source.name, "base_model.name")


def _raised(work: Callable[[], object]) -> Iterator[UserError]:
    try:
        work()
    except UserError as error:
        yield error


def _first_of_each_field(found: Iterator[UserError]) -> list[UserError]:
    by_field: dict[str, UserError] = {}
    for error in found:
        by_field.setdefault(error.field, error)
    return list(by_field.values())


def refusal(found: list[UserError]) -> ProblemError:
    """Mistakes of one kind under its code, others under a common one."""
    first = found[0]
    codes = {code_of(error) for error in found}
    code = codes.pop() if len(codes) == 1 else "invalid_request"
    more = f" ({len(found) - 1} more in `errors`)" if len(found) > 1 else ""
    mistakes = [
        Mistake(
            where="body",
            pointer="/" + error.field.replace(".", "/"),
            code=code_of(error),
            message=f"{error.problem}. {error.remedy}.",
        ).model_dump()
        for error in found
    ]
    return ProblemError(code, f"{first}{more}", param=first.field, extra={"errors": mistakes})


def code_of(error: ShortFTError) -> str:
    """The code of a user's mistake in the table of problems."""
    return next(code for kind, code in _CODES if isinstance(error, kind))
