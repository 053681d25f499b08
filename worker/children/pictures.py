"""Picture files that say how they were made: PNG text chunks, or EXIF in JPEG and WebP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from shortft_core.errors import UserError
from shortft_core.spec.generation import GenerationSpec

SHORTFT_CHUNK: Final = "shortft"
PARAMETERS_CHUNK: Final = "parameters"
_UNICODE: Final = b"UNICODE\0"
"""How EXIF marks a comment that is not ASCII; what follows is UTF-16."""
_SHORT_HASH: Final = 10
_LORA_HASH: Final = 12
_FORMATS: Final = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """What all pictures of a batch were made with, as they say it themselves."""

    model: str
    """Name, hub id or path of the base model."""
    model_sha256: str
    steps: int
    guidance_scale: float
    lora_sha256: Mapping[str, Sequence[str]]
    """Adapter -> hash of each branch file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """How one picture was made."""

    request: GenerationSpec
    """A request that makes this picture alone."""
    chain: Chain
    size: tuple[int, int]
    """(width, height)"""

    def parameters(self) -> str:
        """The text that image tools read: prompt, negative prompt, and one line of settings."""
        request, chain = self.request, self.chain
        settings = {
            "Steps": str(chain.steps),
            "Sampler": "DDIM",
            "CFG scale": f"{chain.guidance_scale:g}",
            "Seed": str(request.seeds[0]),
            "Size": f"{self.size[0]}x{self.size[1]}",
            "Model hash": chain.model_sha256[:_SHORT_HASH],
            "Model": chain.model,
            **self._loras(),
            "Version": f"shortft {version('shortft')}",
        }
        lines = [request.prompts[0]]
        if request.negative_prompt:
            lines.append(f"Negative prompt: {request.negative_prompt}")
        return "\n".join([*lines, ", ".join(f"{name}: {text}" for name, text in settings.items())])

    def _loras(self) -> dict[str, str]:
        hashes = [
            f"{name}.branch_{branch}: {sha256[:_LORA_HASH]}"
            for name, files in self.chain.lora_sha256.items()
            for branch, sha256 in enumerate(files, start=1)
        ]
        return {"Lora hashes": f'"{", ".join(hashes)}"'} if hashes else {}

    def document(self) -> dict[str, Any]:
        """Everything that is needed to make the picture again, bit for bit."""
        # Where the service keeps an adapter is nobody's business.
        adapters = [one.model_copy(update={"prefix": ""}) for one in self.request.adapters]
        request = self.request.model_copy(update={"adapters": tuple(adapters)})
        return {
            "request": request.model_dump(mode="json"),
            "model_sha256": self.chain.model_sha256,
            "branch_sha256": {name: list(files) for name, files in self.chain.lora_sha256.items()},
            "guidance_scale": self.chain.guidance_scale,
            "versions": {package: version(package) for package in ("shortft", "torch")},
        }


def encode(picture: Image.Image, provenance: Provenance) -> bytes:
    """The bytes of a picture file in the format that was asked for."""
    kind = provenance.request.output_format
    parameters, document = provenance.parameters(), json.dumps(provenance.document())
    options: dict[str, Any] = {}
    if kind == "png":
        chunks = PngInfo()
        chunks.add_itxt(PARAMETERS_CHUNK, parameters)
        chunks.add_itxt(SHORTFT_CHUNK, document)
        options["pnginfo"] = chunks
    else:
        exif = Image.Exif()
        exif[Base.ImageDescription] = document
        exif.get_ifd(IFD.Exif)[Base.UserComment] = _UNICODE + parameters.encode("utf-16-be")
        options["exif"] = exif
        if provenance.request.output_quality is not None:
            options["quality"] = provenance.request.output_quality
    buffer = BytesIO()
    picture.save(buffer, format=_FORMATS[kind], **options)
    return buffer.getvalue()


def read_picture(path: Path, field: str) -> tuple[Tensor, str]:
    """One image [1, 3, H, W] in [0, 1] and its media type; UserError for an unreadable one."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
            media_type = Image.MIME.get(picture.format or "", "application/octet-stream")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(
            field, f"the picture cannot be read ({type(error).__name__})", "Give a PNG or JPEG"
        ) from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255, media_type
