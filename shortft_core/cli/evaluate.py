"""`shortft evaluate`: base beside tuned on the same prompts and seeds, judged with intervals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from shortft_core import catalog
from shortft_core.cli.images import source
from shortft_core.cli.quiet import silence_libraries
from shortft_core.errors import DivergedError, UnknownNameError, UserError
from shortft_core.paired import Change, changes
from shortft_core.spec import PromptSource, Source

if TYPE_CHECKING:
    import torch

    from shortft_core.evaluate import Panel, Scores
    from shortft_core.generate import Sampler
    from shortft_core.models import DiffusionModel


def evaluate(
    prompts: Annotated[str, typer.Option(help="Prompt set of the catalog, or a file.")],
    reward: Annotated[list[str], typer.Option(help="Judges: rewards of the catalog, `oracle`.")],
    model: Annotated[str, typer.Option(help="Catalog name, hub id, or folder.")] = "shapes",
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter.")] = None,
    adapter_scale: Annotated[
        list[float] | None,
        typer.Option(min=0, help="How strongly it acts, default 1; several are compared."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Prompts, from the front of the set.")] = 32,
    seeds: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Every picture's seed follows from it.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Chain length; default 50. An adapter fixes its own.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    out: Annotated[Path | None, typer.Option(help="File for everything as JSON.")] = None,
) -> None:
    """Judges a base model, or an adapter beside its base model, on a set of prompts."""
    from shortft_core.device import choose_device, choose_dtype
    from shortft_core.models import load

    scales = tuple(dict.fromkeys(adapter_scale or ()))
    _refuse(reward, adapter, steps, out)
    if scales and adapter is None:
        raise UserError("adapter_scale", "there is no adapter to scale", "Name --adapter")
    silence_libraries()
    chosen = _prompts(prompts, count)
    device = choose_device()
    dtype = choose_dtype(device)
    wanted = source(model, catalog.BASE_MODELS, "model")
    base_model = load(wanted, device=device, dtype=dtype, field="model")
    base, tuned = _samplers(base_model, adapter, steps or 50, batch_size)
    panel = _panel(_pairs(chosen, seeds, seed), reward, wanted, base_model, dtype)
    console = Console()
    _warn_of_truncation(base_model, chosen)
    with console.status("pictures and their judges"):
        found = list(_compare(panel, base, tuned, scales or (1.0,)))
    console.print(found[0].table() if len(found) == 1 else _table_of_scales(scales, found))
    if out is not None:
        settings = {"prompts": prompts, "count": len(chosen), "seeds": seeds, "seed": seed}
        shown = {"model": str(wanted), "dtype": str(dtype).removeprefix("torch."), **settings}
        made = [{**_chain(base), **each.adapter, **each.content()} for each in found]
        _write(out, {**shown, **(made[0] if len(made) == 1 else {"scales": made})})
        console.print(f"scores: {out}", soft_wrap=True, highlight=False, markup=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores of the base model, and of the adapter where there is one, on one panel."""

    panel: Panel
    base: Scores
    tuned: Scores | None
    adapter: Mapping[str, str] = field(default_factory=dict)
    """What identifies the adapter and its strength."""

    @property
    def judges(self) -> list[str]:
        """Every judge; their unweighted sum, which the panel adds, means nothing here."""
        from shortft_core.evaluate import TARGET

        return [judge for judge in self.base.judges if judge != TARGET]

    def changes(self) -> dict[str, Change]:
        """Judge -> paired change; empty without an adapter."""
        if self.tuned is None:
            return {}
        indices = range(len(self.panel.prompts))
        return changes(self.panel.prompts, map(self.base.of, indices), map(self.tuned.of, indices))

    def table(self) -> Table:
        """One row per judge, and the diversity of the pictures; fits 80 columns."""
        prompts = self.panel.prompts
        title = f"{len(prompts)} images of {len(set(prompts))} prompts, raw units: mean (std)"
        heads = ["base"] if self.tuned is None else ["base", "tuned", "change, 95 %", "improved"]
        table = Table(title=title, box=SIMPLE, pad_edge=False)
        table.add_column("judge", overflow="fold")
        for head in heads:
            table.add_column(head, justify="right", no_wrap=True)
        found = self.changes()
        for judge in self.judges:
            sides = [_cell(scores, judge) for scores in (self.base, self.tuned) if scores]
            table.add_row(judge, *sides, *(_change(found[judge]) if found else ()))
        diverse = [scores.diversity for scores in (self.base, self.tuned) if scores]
        gained = [f"{diverse[1] - diverse[0]:+.4f}"] if self.tuned else []
        table.add_row("diversity", *(f"{value:.4f}" for value in diverse), *gained)
        return table

    def content(self) -> dict[str, Any]:
        """The same and every single score, for JSON."""
        sides = {"base": self.base, "tuned": self.tuned}
        made = {name: scores for name, scores in sides.items() if scores is not None}
        found = self.changes()
        judged: dict[str, dict[str, Any]] = {
            judge: {name: scores.summary()[judge].model_dump() for name, scores in made.items()}
            for judge in self.judges
        }
        for judge, entry in judged.items():
            if judge in found:
                entry["change"] = {**asdict(found[judge]), "interval": found[judge].interval}
        pairs = enumerate(zip(self.panel.prompts, self.panel.seeds, strict=True))
        images = [
            {"prompt": prompt, "seed": seed}
            | {name: self._scores_of(scores, index) for name, scores in made.items()}
            for index, (prompt, seed) in pairs
        ]
        diversity = {name: scores.diversity for name, scores in made.items()}
        return {"judges": judged, "diversity": diversity, "images": images}

    def _scores_of(self, scores: Scores, index: int) -> dict[str, float]:
        return {judge: scores.of(index)[judge] for judge in self.judges}


def _table_of_scales(scales: Sequence[float], found: Sequence[Comparison]) -> Table:
    """Change of every judge at each strength of the adapter; 0 would be the base model."""
    first = found[0]
    title = f"{len(first.panel.prompts)} images, raw units: change at each strength, 95 %"
    table = Table("judge", "base", *(f"{scale:g}" for scale in scales), title=title, box=SIMPLE)
    changed = [one.changes() for one in found]
    for judge in first.judges:
        gained = (_change(each[judge])[0] for each in changed)
        table.add_row(judge, f"{first.base.mean(judge):.4f}", *gained)
    base = first.base.diversity
    gains = (f"{one.tuned.diversity - base:+.4f}" for one in found if one.tuned is not None)
    table.add_row("diversity", f"{base:.4f}", *gains)
    return table


def _cell(scores: Scores, judge: str) -> str:
    return f"{scores.mean(judge):.4f} ({scores.std(judge):.4f})"


def _change(change: Change) -> tuple[str, str]:
    width = "" if change.half_width is None else f" \N{PLUS-MINUS SIGN} {change.half_width:.4f}"
    return f"{change.mean:+.4f}{width}", f"{change.improved} of {change.pairs}"


def _refuse(
    judges: Sequence[str], adapter: Path | None, steps: int | None, out: Path | None
) -> None:
    """Mistakes that need no weights to be seen."""
    known = {**catalog.REWARDS, catalog.ORACLE: None}
    for name in judges:
        catalog.find(known, name, "reward")
        if judges.count(name) > 1:
            raise UserError("reward", f"{name} is named twice", "Name each judge once")
    if adapter is not None and steps is not None:
        raise UserError("steps", "an adapter serves only its own chain", "Drop --steps")
    if out is not None and out.is_dir():
        raise UserError("out", f"{out} is a folder", "Name a file")


def _prompts(text: str, count: int) -> tuple[str, ...]:
    """The first prompts of a named set or a file, each once."""
    from shortft_core import prompts

    if text not in catalog.PROMPT_SETS and not Path(text).exists():
        raise UnknownNameError("prompts", text, catalog.PROMPT_SETS)
    wanted = PromptSource(name=text) if text in catalog.PROMPT_SETS else PromptSource(path=text)
    return tuple(dict.fromkeys(prompts.load(wanted).prompts))[:count]


def _pairs(prompts: Sequence[str], seeds: int, seed: int) -> list[tuple[str, int]]:
    """Prompt and picture seed: those that a job with this seed evaluates on."""
    from shortft_core.sampling import derive_seed

    return [
        (prompt, derive_seed(seed, "panel", prompt, number))
        for prompt in prompts
        for number in range(seeds)
    ]


def _samplers(
    model: DiffusionModel, adapter: Path | None, steps: int, batch_size: int
) -> tuple[Sampler, Sampler | None]:
    """What was tuned and the adapter, on the same chain; alone, the base model on its full one."""
    from dataclasses import replace

    from shortft_core.export import load_adapter
    from shortft_core.generate import base_sampler

    if adapter is None:
        return base_sampler(model, steps=steps, batch_size=batch_size), None
    tuned = load_adapter(adapter, model, batch_size=batch_size)
    plan = tuple(replace(evaluation, branches=()) for evaluation in tuned.plan)
    return replace(tuned, plan=plan, bank=None, stacks=None, adapter={}), tuned


def _compare(
    panel: Panel, base: Sampler, tuned: Sampler | None, scales: Sequence[float]
) -> Iterator[Comparison]:
    """The base model, alone or beside the adapter at each strength."""
    before = _score(panel, base)
    if tuned is None:
        yield Comparison(panel, before, None)
        return
    for scale in scales:
        sampler = _at(tuned, scale)
        yield Comparison(panel, before, _score(panel, sampler), sampler.adapter)


def _at(tuned: Sampler, scale: float) -> Sampler:
    """The adapter at this strength; its sampler at another one no longer serves."""
    from dataclasses import replace

    assert tuned.bank is not None  # noqa: S101 - a loaded adapter has one
    tuned.bank.set_scale(scale)
    # Without stacks it merges anew from the bank, or uses it as it is beside bf16 weights.
    return replace(tuned, stacks=None, adapter={**tuned.adapter, "adapter_scale": str(scale)})


def _panel(
    pairs: Sequence[tuple[str, int]],
    names: Sequence[str],
    base_model: Source,
    model: DiffusionModel,
    dtype: torch.dtype,
) -> Panel:
    """The judges with the weights that belong to the base model.

    Raises PromptError at once for a prompt that the oracle cannot judge.
    """
    import torch

    from shortft_core import rewards
    from shortft_core.evaluate import Panel
    from shortft_core.run import held_out_judges
    from shortft_core.spec.rewards import reward_term

    prompts, seeds = zip(*pairs, strict=True)
    oracle = held_out_judges(
        [name for name in names if name == catalog.ORACLE], base_model, model.device, dtype
    )
    blank = torch.zeros(1, 3, model.image_size, model.image_size, device=model.device)
    for judge in oracle.values():
        judge.score(blank.expand(len(prompts), -1, -1, -1), prompts)
    terms = [
        catalog.resolve_reward(reward_term(name), base_model, "reward")
        for name in names
        if name not in oracle
    ]
    if not terms:
        only = rewards.Composite([(judge, 1.0) for judge in oracle.values()])
        return Panel(prompts=prompts, seeds=seeds, reward=only, held_out={})
    judges = rewards.build(terms, device=model.device, dtype=dtype, field="reward")
    return Panel(prompts=prompts, seeds=seeds, reward=judges, held_out=oracle)


def _score(panel: Panel, sampler: Sampler) -> Scores:
    """Scores of one sampler; DivergedError names a judge whose score is not finite."""
    scores = panel.score(sampler)
    for judge, values in scores.judges.items():
        if not values.isfinite().all():
            raise DivergedError(f"{judge} gives a score that is not finite")
    return scores


def _warn_of_truncation(model: DiffusionModel, prompts: Sequence[str]) -> None:
    cut = model.overlong(prompts)
    if cut:
        Console(stderr=True).print(
            f"warning: the text encoder cuts {len(cut)} prompts, for example {cut[0]!r}",
            markup=False,
        )


def _chain(base: Sampler) -> dict[str, Any]:
    """What the pictures were made with; the hash is a sha256."""
    return {
        "model_sha256": base.model.fingerprint,
        "timesteps": [evaluation.timestep for evaluation in base.plan],
        "guidance_scale": base.guidance_scale,
        "batch_size": base.batch_size,
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    from shortft_core.artifacts import atomic_file

    with atomic_file(path) as file:
        file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
