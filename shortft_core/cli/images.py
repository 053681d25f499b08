"""`shortft generate` and `shortft score`."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import track
from rich.table import Table

from shortft_core import catalog
from shortft_core.cli.quiet import silence_libraries
from shortft_core.cli.rooms import remote
from shortft_core.errors import UserError
from shortft_core.spec import Source
from shortft_core.spec.read import user_error
from shortft_core.spec.rewards import reward_term

if TYPE_CHECKING:
    from torch import Tensor

    from shortft_core.generate import Sampler
    from shortft_core.models import DiffusionModel


def source(text: str, known: Container[str], field: str) -> Source:
    """A source on the command line: a known name, an existing path, or `owner/name[@revision]`."""
    if text in known:
        return Source(name=text)
    if Path(text).exists():
        return Source(path=text)
    try:
        if "/" in text:
            hub_id, _, revision = text.partition("@")
            return Source(id=hub_id, revision=revision or None)
        return Source(name=text)
    except ValidationError as error:
        raise UserError(
            field, f"{text!r} is no known name, existing path or hub id", "Correct it"
        ) from error


def generate(
    prompts: Annotated[list[str], typer.Argument(help="What the pictures show.")],
    model: Annotated[str, typer.Option(help="Catalog name, hub id, or folder.")] = "shapes",
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter.")] = None,
    adapter_scale: Annotated[float, typer.Option(help="0 is the base model, 1 the tuned.")] = 1.0,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("images"),
    seed: Annotated[int, typer.Option(help="Seed of the first picture; the next adds one.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 1,
    compare_base: Annotated[
        bool, typer.Option("--compare-base", help="Put the base model's picture at the left.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Chain length; default 50. An adapter fixes its own.")
    ] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Default: the model's.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; default: the model's.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; default: the model's.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 4,
    server: Annotated[
        str | None,
        typer.Option(help="Address of a service that makes them; --adapter is an id there."),
    ] = None,
) -> None:
    """Makes pictures with a base model, or with an adapter on the chain it was trained for."""
    _refuse_ignored(adapter, adapter_scale, steps, compare_base=compare_base)
    wanted = _Wanted(
        prompts=[prompt for prompt in prompts for _ in range(count)],
        seeds=[seed + number for _ in prompts for number in range(count)],
        adapter=adapter,
        adapter_scale=adapter_scale,
        compare_base=compare_base,
        steps=steps,
        guidance_scale=guidance_scale,
        height=height,
        width=width,
    )
    if server is not None:
        _make_there(server, model, wanted, out)
    else:
        _make_here(model, wanted, out, batch_size)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """Pictures to make, one per prompt and seed."""

    prompts: list[str]
    seeds: list[int]
    adapter: Path | None
    adapter_scale: float
    compare_base: bool
    steps: int | None
    guidance_scale: float | None
    height: int | None
    width: int | None


def _make_there(server: str, model: str, wanted: _Wanted, out: Path) -> None:
    adapter = {"id": str(wanted.adapter), "scale": wanted.adapter_scale}
    remote("generate")(
        server,
        out,
        prompts=wanted.prompts,
        seeds=wanted.seeds,
        base_model=None if wanted.adapter else model,
        adapters=[adapter] if wanted.adapter else None,
        compare_base=wanted.compare_base,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance_scale,
        height=wanted.height,
        width=wanted.width,
    )


def _make_here(model: str, wanted: _Wanted, out: Path, batch_size: int) -> None:
    from shortft_core.generate import save_all

    silence_libraries()
    base = _load_model(model)
    size = _size(base, wanted.height, wanted.width)
    sampler = _sampler(base, wanted.adapter, wanted.adapter_scale, wanted.steps or 50)
    console = Console()
    if wanted.adapter is not None:
        console.print(_chain(sampler), soft_wrap=True, highlight=False)
    if wanted.guidance_scale is not None:
        _warn_of_guidance(sampler, wanted.guidance_scale)
        sampler = replace(sampler, guidance_scale=wanted.guidance_scale)
    sampler = replace(sampler, batch_size=batch_size, size=size)
    left = _untuned(base, sampler) if wanted.compare_base else None
    saved = save_all(sampler, wanted.prompts, wanted.seeds, out, base=left)
    for path in track(saved, "generating", total=len(wanted.prompts), console=console):
        console.print(str(path), soft_wrap=True, highlight=False)


def _refuse_ignored(
    adapter: Path | None, scale: float, steps: int | None, *, compare_base: bool
) -> None:
    if adapter is not None and steps is not None:
        raise UserError("steps", "an adapter serves only its own chain", "Drop --steps")
    if adapter is None and scale != 1.0:
        raise UserError("adapter_scale", "there is no adapter to scale", "Name --adapter")
    if adapter is None and compare_base:
        raise UserError("compare_base", "there is no adapter to compare with", "Name --adapter")


def _size(base: DiffusionModel, height: int | None, width: int | None) -> tuple[int, int]:
    """Of the pictures; raises UserError for one that the model cannot make."""
    pixels = base.image_size
    size = (pixels if height is None else height, pixels if width is None else width)
    base.latent_shape(*size)
    return size


def _load_model(model: str) -> DiffusionModel:
    from shortft_core.device import choose_device, choose_dtype
    from shortft_core.models import load

    device = choose_device()
    wanted = source(model, catalog.BASE_MODELS, "model")
    return load(wanted, device=device, dtype=choose_dtype(device), field="model")


def _sampler(base: DiffusionModel, adapter: Path | None, scale: float, steps: int) -> Sampler:
    from shortft_core.export import load_adapter
    from shortft_core.generate import base_sampler

    if adapter is None:
        return base_sampler(base, steps=steps)
    return load_adapter(adapter, base, scale=scale)


def _untuned(base: DiffusionModel, tuned: Sampler) -> Sampler:
    """The base model on the adapter's chain, or on its own where a few-step model was tuned."""
    from shortft_core.generate import base_sampler
    from shortft_core.schedule import ddim_grid

    grid = ddim_grid(len(tuned.plan), base.train_timesteps, base.steps_offset)
    if tuple(evaluation.timestep for evaluation in tuned.plan) == grid:
        return replace(tuned, model=base, bank=None, stacks=None)
    return base_sampler(base, batch_size=tuned.batch_size, size=tuned.size)


def _chain(sampler: Sampler) -> str:
    """One line on which branches act where."""
    runs = []
    for branches, run in groupby(sampler.plan, key=lambda evaluation: evaluation.branches):
        first, *others = run
        where = f"{first.timestep}-{others[-1].timestep}" if others else f"{first.timestep}"
        runs.append(f"{where} {'+'.join(map(str, branches)) or 'base'}")
    chain = ", ".join(runs)
    return f"{len(sampler.plan)} steps at guidance {sampler.guidance_scale:g}; branches: {chain}"


def _warn_of_guidance(sampler: Sampler, guidance_scale: float) -> None:
    if sampler.bank is not None and guidance_scale != sampler.guidance_scale:
        Console(stderr=True).print(
            f"warning: the adapter was trained at guidance {sampler.guidance_scale:g}"
        )


def score(
    pictures: Annotated[list[Path], typer.Argument(help="Picture files.")],
    prompt: Annotated[str, typer.Option(help="What they should show.")],
    reward: Annotated[list[str], typer.Option(help="Rewards of the catalog.")],
    weights: Annotated[
        str | None, typer.Option(help="Catalog name, hub id or path; default: the official.")
    ] = None,
) -> None:
    """Scores pictures under a prompt, with exact preprocessing, in raw units."""
    import torch

    from shortft_core.device import choose_device
    from shortft_core.rewards import build

    silence_libraries()
    for name in reward:
        catalog.find(catalog.REWARDS, name, "reward")
    choices = {choice for name in reward for choice in catalog.source_names(name)}
    given = source(weights, choices, "weights") if weights else None
    if given is not None and not choices:
        raise UserError("weights", "these rewards have no weights", "Drop --weights")
    try:
        terms = [
            reward_term(name, given if catalog.source_names(name) else None) for name in reward
        ]
    except ValidationError as error:
        raise user_error(error, "weights") from error
    composite = build(terms, device=choose_device(), dtype=torch.float32, field="reward")
    table = Table("picture", *reward)
    for path in pictures:
        found = composite.terms(_read_picture(path), [prompt], exact=True)
        table.add_row(str(path), *(f"{found[name].item():.4f}" for name in reward))
    Console().print(table)


def _read_picture(path: Path) -> Tensor:
    """One image [1, 3, H, W] in [0, 1]; UserError for anything but a readable picture."""
    import numpy as np
    import torch
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(
            "pictures", f"{path} cannot be read ({error})", "Give a PNG or JPEG"
        ) from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
