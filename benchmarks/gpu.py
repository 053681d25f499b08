"""Stable Diffusion 1.5 at its real size: time, memory and utilization of one update per method.

Weights are random, the chain, the loaders and the methods are those of a job. `--tiny` runs the
same code on the CPU with a tiny model, to prove that it works; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.official_size import (
    OFFICIAL,
    TINY,
    Size,
    write_few_step,
    write_hps,
    write_pipeline,
)
from benchmarks.results import (
    NOT_MEASURED,
    RESULTS,
    machine,
    markdown_table,
    read_csv,
    read_json,
    write_csv,
    write_json,
)
from benchmarks.updates import Timed, Tuning, attach
from shortft_core import catalog, models, rewards
from shortft_core.device import peak_memory_bytes
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.spec import (
    AlignProp,
    AlignSpec,
    AnyMethod,
    Direct,
    DraftK,
    DraftLV,
    DRTune,
    PromptSource,
    ReFL,
    ShortFT,
    Source,
)
from shortft_core.spec.rewards import HPSv2

log = logging.getLogger("benchmarks")

CSV: Final = RESULTS / "gpu.csv"
PEAK_TERAFLOPS: Final[Mapping[str, float]] = {
    "H200": 989.0,
    "H100": 989.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
    "4090": 165.0,
}
"""Part of the device's name -> dense bf16 peak of its data sheet."""
PROMPT: Final = "a photograph of an astronaut riding a horse"
GIBIBYTE: Final = 2**30


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements share."""

    size: Size
    model: DiffusionModel
    reward: Composite
    base: Source
    few_step: Source
    peak_teraflops: float | None
    """Of the device; None where utilization cannot be stated."""


def variants(size: Size, few_step: Source) -> dict[str, tuple[AnyMethod, int]]:
    """Name -> method and stage; all on the 50-step chain with the guidance of the base model."""
    common: dict[str, Any] = {"rank": size.rank, "updates": 100}
    shortft: dict[str, Any] = {"shortcut": few_step, **common}
    stages = {f"shortft stage {n}": (ShortFT(**shortft), n) for n in range(1, 5)}
    return {
        **stages,
        "shortft stage 1, checkpointed": (ShortFT(gradient_checkpointing=True, **shortft), 1),
        "shortft stage 1, n = 12": (ShortFT(first_segment_grad_steps=12, **shortft), 1),
        "draft_k 1": (DraftK(**common), 1),
        "draft_k 5": (DraftK(gradient_steps=5, **common), 1),
        "draft_k 50, checkpointed": (
            DraftK(gradient_steps=50, gradient_checkpointing=True, **common),
            1,
        ),
        "draft_lv": (DraftLV(**common), 1),
        "refl": (ReFL(**common), 1),
        "alignprop, checkpointed": (AlignProp(**common), 1),
        "drtune, K = 5": (DRTune(trained_steps=5, **common), 1),
        "direct": (Direct(few_step=few_step, **common), 1),
    }


def peak_of(device: torch.device, given: float | None) -> float | None:
    """The peak of the device: the given one, that of its data sheet, or None if it is unknown."""
    if given is not None or device.type != "cuda":
        return given
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TERAFLOPS.items() if part in name), None)


def prepare(folder: Path, *, tiny: bool, device: torch.device, peak: float | None) -> Bench:
    """Writes random weights in the official layouts and loads them as a job does."""
    size = TINY if tiny else OFFICIAL
    dtype = torch.float32 if tiny else torch.bfloat16
    base = Source(path=str(write_pipeline(folder / "pipeline", size)))
    model = models.load(base, device=device, dtype=dtype)
    lora = write_few_step(folder / "few_step" / "lora.safetensors", model, size.shortcut_rank)
    hps = Source(name="shapes") if tiny else _random_hps(folder)
    reward = rewards.build([HPSv2(source=hps)], device=device, dtype=dtype)
    return Bench(size, model, reward, base, Source(path=str(lora)), peak)


def _random_hps(folder: Path) -> Source:
    return Source(path=str(write_hps(folder / "hps" / "open_clip_model.safetensors")))


def measure(bench: Bench, name: str, batch_size: int, *, timed: int = 3) -> dict[str, object]:
    """One row: seconds, memory, FLOPs; a row without numbers where memory does not suffice."""
    method, stage = variants(bench.size, bench.few_step)[name]
    sized = method.model_copy(update={"batch_size": batch_size})
    spec = catalog.resolve(
        AlignSpec(
            base_model=bench.base,
            method=sized,
            rewards=(HPSv2(),),
            prompts=PromptSource(inline=(PROMPT,)),
            evaluation={"prompts": {"inline": (PROMPT,)}},
        )
    )
    attached = attach(spec, bench.model, bench.reward)
    try:
        attached.enter_stage(stage)
        numbers = _numbers(Tuning(spec, attached), bench, timed)
    except torch.cuda.OutOfMemoryError:
        numbers = {"outcome": "out of memory"}
    finally:
        attached.bank.detach()
    return {"method": name, "batch_size": batch_size, **EMPTY, **numbers}


EMPTY: Final[Mapping[str, object]] = {
    "outcome": "done",
    "seconds_per_image": "",
    "fastest": "",
    "slowest": "",
    "peak_gibibytes": "",
    "units": "",
    "teraflop_per_image": "",
    "flop_utilization": "",
}


def _numbers(tuning: Tuning, bench: Bench, timed: int) -> dict[str, object]:
    """One update warms up, one counts the FLOPs; the others are timed without the counter."""
    device, size = bench.model.device, tuning.spec.method.batch_size
    batch = tuning.batch(0)
    tuning.update(batch)
    with FlopCounterMode(display=False) as counter:
        tuning.update(batch)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    updates = [_timed(tuning, device) for _ in range(timed)]
    seconds = [update.seconds for update in updates]
    # The same batch throughout: what a method draws by chance costs the same as what was counted.
    teraflops = counter.get_total_flops() / 1e12
    per_second = teraflops / median(seconds)
    utilization = "" if bench.peak_teraflops is None else per_second / bench.peak_teraflops
    return {
        "seconds_per_image": median(seconds) / size,
        "fastest": min(seconds) / size,
        "slowest": max(seconds) / size,
        "peak_gibibytes": peak_memory_bytes(device) / GIBIBYTE,
        "units": updates[0].units,
        "teraflop_per_image": teraflops / size,
        "flop_utilization": utilization,
    }


def _timed(tuning: Tuning, device: torch.device) -> Timed:
    """One update, the device's queue included in its time."""
    _wait(device)
    started = time.perf_counter()
    units = tuning.timed(tuning.batch(0)).units
    _wait(device)
    return Timed(time.perf_counter() - started, units)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_all(
    bench: Bench, names: Sequence[str], batch_sizes: Sequence[int], *, timed: int = 3
) -> Iterator[dict[str, object]]:
    """Every method at every batch size; memory of one is given back before the next."""
    for name in names:
        for batch_size in batch_sizes:
            row = measure(bench, name, batch_size, timed=timed)
            gc.collect()
            if bench.model.device.type == "cuda":
                torch.cuda.empty_cache()
            log.info("%s", row)
            yield {key: _rounded(value) for key, value in row.items()}


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def publish(rows: Sequence[Mapping[str, object]], device: torch.device) -> None:
    """The committed table and its facts."""
    write_csv(CSV, rows)
    facts = {"machine": machine(), "device": torch.cuda.get_device_name(device)}
    write_json(CSV.with_suffix(".json"), facts)


def section() -> str:
    """What the document says, from the files of `publish`."""
    rows = read_csv(CSV)
    if not rows:
        return NOT_MEASURED
    head = [name.replace("_", " ") for name in rows[0]]
    table = markdown_table(head, [list(row.values()) for row in rows])
    device = read_json(CSV.with_suffix(".json"))["device"]
    return f"{device}, bf16, 512 x 512:\n\n{table}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    known = variants(TINY, Source(name="few-step"))
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--only", choices=known, action="append")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--timed", type=int, default=3, help="timed updates per row")
    parser.add_argument("--peak-teraflops", type=float, help="of a device that is not in the table")
    parser.add_argument("--csv", type=Path, help="write here and leave the documents alone")
    options = parser.parse_args(arguments)
    if not options.tiny and not torch.cuda.is_available():
        parser.error("no CUDA device was found: the real size needs one, --tiny does not")
    device = torch.device("cpu" if options.tiny else "cuda")
    peak = peak_of(device, options.peak_teraflops)
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(Path(folder), tiny=options.tiny, device=device, peak=peak)
        names = options.only or list(known)
        rows = list(measure_all(bench, names, options.batch_sizes, timed=options.timed))
    if options.csv is not None:
        write_csv(options.csv, rows)
    elif not options.tiny:
        publish(rows, device)


if __name__ == "__main__":
    main()
