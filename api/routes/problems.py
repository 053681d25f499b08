"""What the codes of refusals mean."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from api.problems import PROBLEMS, ProblemError

router = APIRouter(tags=["service"])


class ProblemPage(BaseModel):
    """What a code means, and what to do."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "code": "not_found",
                    "status": 404,
                    "title": "There is no such thing",
                    "remedy": "Check the id; those of other projects are not visible.",
                }
            ]
        }
    )

    code: str
    status: int
    title: str
    remedy: str


@router.get("/problems/{code}")
def retrieve_problem(code: str) -> ProblemPage:
    """What the `type` of a refusal points to."""
    if code not in PROBLEMS:
        raise ProblemError("not_found", f"there is no problem {code}")
    kind = PROBLEMS[code]
    return ProblemPage(code=code, status=kind.status, title=kind.title, remedy=kind.remedy)
