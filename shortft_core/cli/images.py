"""`shortft generate` and `shortft score`."""

from __future__ import annotations

from collections.abc import Container
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
) -> None:
    """Makes pictures with a base model, or with an adapter on the chain it was trained for."""
    from dataclasses import replace

    from shortft_core.generate import save_all

    if adapter is not None and steps is not None:
        raise UserError("steps", "an adapter serves only its own chain", "Drop --steps")
    if adapter is None and adapter_scale != 1.0:
        raise UserError("adapter_scale", "there is no adapter to scale", "Name --adapter")
    if adapter is None and compare_base:
        raise UserError("compare_base", "there is no adapter to compare with", "Name --adapter")
    silence_libraries()
    base = _load_model(model)
    pixels = base.image_size
    size = (pixels if height is None else height, pixels if width is None else width)
    base.latent_shape(*size)
    sampler = _sampler(base, adapter, adapter_scale, steps or 50)
    console = Console()
    if adapter is not None:
        console.print(_chain(sampler), soft_wrap=True, highlight=False)
    if guidance_scale is not None:
        _warn_of_guidance(sampler, guidance_scale)
        sampler = replace(sampler, guidance_scale=guidance_scale)
    sampler = replace(sampler, batch_size=batch_size, size=size)
    left = _untuned(base, sampler) if compare_base else None
    wanted = [prompt for prompt in prompts for _ in range(count)]
    seeds = [seed + number for _ in prompts for number in range(count)]
    saved = save_all(sampler, wanted, seeds, out, base=left)
    for path in track(saved, "generating", total=len(wanted), console=console):
        console.print(str(path), soft_wrap=True, highlight=False)


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
    from dataclasses import replace

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
