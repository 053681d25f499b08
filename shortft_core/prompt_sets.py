"""The prompt sets that a specification may name; bundled, or downloaded at first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSetEntry:
    """Where the prompts of one name come from; the ending of the file tells its format."""

    summary: str
    licence: str
    bundled: str | None = None
    """File below `shortft_core/bundled/prompts`; else `url` is set."""
    url: str | None = None
    sha256: str | None = None
    """Hash of the file at `url` where it was seen; else recorded at the first download."""
    column: str | None = None
    """Column or key of the prompt, where it is not called `prompt`."""
    distinct: bool = False
    """Whether the file repeats a prompt for every row that asks about it."""
    evaluation: str | None = None
    """The set that its authors hold out for evaluation."""


_GITHUB: Final = "https://raw.githubusercontent.com"
_HUB: Final = "https://huggingface.co/datasets"
_ALIGNPROP: Final = f"{_GITHUB}/mihirp1998/AlignProp/b22918afd53f254f2ba66eb1233d94121aade5fc"
_ALIGNPROP_LICENCE: Final = "MIT; captions of MS-COCO, CC BY 4.0"
_COMPBENCH: Final = f"{_GITHUB}/Karine-Huang/T2I-CompBench/1b7094991a57f3c22abdd4f6e8ba6c1a15517073"
_COMPBENCH_SHA256: Final = {
    "3d_spatial": (
        "0bba7e9ad31b0ce7908f6cbf2426a4b7ef6e8b841c1b737d0ad2d5b8e688dd93",
        "c9953597315f36a5fcb41291bb19bdc6ab5f64a0fa760d691b4854a73f5d1fe9",
    ),
    "color": (
        "db5d3287027d453f8c977f0c7315f8a01a770f02f61fa54ae19406762982393f",
        "1634259756dbc77d13093d907d414480080ec9790a8c97ad09efaea7b2534f2d",
    ),
    "complex": (
        "d214ac45cb3c5307dd14a144c8c69aa5ffdcc7be74ff71b5dac989f8ca9f924b",
        "1b808018b8d9916db3d47d5aa2ef18377a3549a56901a474156f799824cdf3b4",
    ),
    "non_spatial": (
        "dbac5a9ec83204dcd0c3538a12d3212e2ce66db6f7ba45b49a1d869b2d3f2430",
        "04c56cc9ac441dc9ea6c5157652058bd1635b5308526dd31bb29a1caab9a758d",
    ),
    "numeracy": (
        "f66bb8708cb0be23c0406e14d892b25661b2b71e3e72abddc79c38466ab629c6",
        "dad8df141604b70ba7554bec724e3db0a80023680769b5c514854ea2d2527bbe",
    ),
    "shape": (
        "451bdfccd330d4cf979d45664817be7959e89250b93d5c591cc562b858175a87",
        "37e1a276906c7ea9516cbd7ac8501be896006c0c17ca7344f260562834455bae",
    ),
    "spatial": (
        "af14cdf2320057d98f94077e6211c2ddfaabfbb9e3842873657baabb17e00de6",
        "8707a1d7e42ce3002d95363cf55f74bd043c843ae27108f5125aaaa7840ca988",
    ),
    "texture": (
        "4846315c5972f9e9cc82e4833099e8ec2c28b999ca77269512715f3f56bde54f",
        "fbb5363515b4a28009e360afaaaf389d2dd2289e50dbb0c6ef4ea0c7fe4f3d4f",
    ),
}
"""Category -> hashes of its train and its validation file."""


def _compbench_name(category: str, split: str) -> str:
    return f"t2i-compbench-{category.replace('_', '-')}-{split}"


def _compbench(category: str, split: str, sha256: str) -> PromptSetEntry:
    return PromptSetEntry(
        summary=f"T2I-CompBench, {category.replace('_', ' ')}, {split}",
        licence="MIT",
        url=f"{_COMPBENCH}/examples/dataset/{category}_{split}.txt",
        sha256=sha256,
        evaluation=_compbench_name(category, "val") if split == "train" else None,
    )


def _hpdv2(style: str) -> PromptSetEntry:
    return PromptSetEntry(
        summary=f"HPDv2 benchmark, {style}",
        licence="Apache-2.0",
        url=f"{_HUB}/zhwang/HPDv2/resolve/main/benchmark/{style}.json",
    )


PROMPT_SETS: Final[Mapping[str, PromptSetEntry]] = {
    "shapes-train": PromptSetEntry(
        summary="Captions of the bundled shapes world, for tuning",
        licence="Apache-2.0",
        bundled="shapes-train.txt",
        evaluation="shapes-eval",
    ),
    "shapes-eval": PromptSetEntry(
        summary="Captions of the bundled shapes world, held out",
        licence="Apache-2.0",
        bundled="shapes-eval.txt",
    ),
    "shapes-held-out": PromptSetEntry(
        summary="Captions of the bundled shapes world with color-shape pairs no model was shown",
        licence="Apache-2.0",
        bundled="shapes-held-out.txt",
    ),
    "drawbench": PromptSetEntry(
        summary="DrawBench (Imagen), hard prompts in eleven categories",
        licence="MIT (the repository); the list is Google's",
        url=f"{_GITHUB}/openai/dalle3-eval-samples/d7c88c07b492ad7b9fd3003126d00719a2edabb1"
        "/prompts/drawbench.txt",
        sha256="3d4f4b2db7520208ee056d470202c07fd77766b96d133ea9f4ab00a323381e9a",
    ),
    "partiprompts": PromptSetEntry(
        summary="PartiPrompts (P2), words to paragraphs",
        licence="Apache-2.0",
        url=f"{_GITHUB}/google-research/parti/5a657978134374ce28973948331b319adef164bd"
        "/PartiPrompts.tsv",
        sha256="fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb",
        column="Prompt",
    ),
    "hpdv2-photo-alignprop": PromptSetEntry(
        summary="HPDv2 photo prompts that AlignProp trains on",
        licence=_ALIGNPROP_LICENCE,
        url=f"{_ALIGNPROP}/assets/hps_v2_all.txt",
        sha256="52f0074b2d5fe70a8ffd0ca8daf7b5ad420c9a930f03c38a97e7f2d8aa5df429",
        evaluation="hpdv2-photo-alignprop-eval",
    ),
    "hpdv2-photo-alignprop-eval": PromptSetEntry(
        summary="HPDv2 photo prompts that AlignProp holds out",
        licence=_ALIGNPROP_LICENCE,
        url=f"{_ALIGNPROP}/assets/hps_v2_all_eval.txt",
        sha256="1af515e74b71687531d6a4e83489b10c7214a8d5c4da04621c45bf76fe739049",
    ),
    "hpdv2-anime": _hpdv2("anime"),
    "hpdv2-concept-art": _hpdv2("concept-art"),
    "hpdv2-paintings": _hpdv2("paintings"),
    "hpdv2-photo": _hpdv2("photo"),
    "geneval": PromptSetEntry(
        summary="GenEval, objects, counts, colors, positions",
        licence="MIT",
        url=f"{_GITHUB}/djghosh13/geneval/af4902f24d3ca90ebbb446dd9891a59e0f82725f"
        "/prompts/evaluation_metadata.jsonl",
        sha256="5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
    ),
    **{
        _compbench_name(category, split): _compbench(category, split, sha256)
        for category, hashes in _COMPBENCH_SHA256.items()
        for split, sha256 in zip(("train", "val"), hashes, strict=True)
    },
    "imagereward": PromptSetEntry(
        summary="ImageReward benchmark, prompts of DiffusionDB",
        licence="Apache-2.0; prompts CC0",
        url=f"{_GITHUB}/THUDM/ImageReward/c1392c6dd0fd6ecd6d416c96959ab744a6d0a8fb"
        "/benchmark/benchmark-prompts.json",
        sha256="34682e824ebb3ad8e2531b3cde1b362dc72e1e29946ff6fab77bb49e9edb4b21",
    ),
    "dpg-bench": PromptSetEntry(
        summary="DPG-Bench, dense paragraphs",
        licence="Apache-2.0",
        url=f"{_GITHUB}/TencentQQGYLab/ELLA/3c228f1dc6c4d3cad0a47493816151a419f14db3"
        "/dpg_bench/dpg_bench.csv",
        column="text",
        distinct=True,
    ),
    "unigenbench": PromptSetEntry(
        summary="UniGenBench, English test prompts",
        licence="CC BY 4.0, (c) 2025 Tencent",
        url=f"{_GITHUB}/CodeGoat24/UniGenBench/49d0bcebb0b9418d975d3957c2fee10f34811d14"
        "/data/test_prompts_en.csv",
        sha256="f82e8ce854985ef963378eaaf8ce12f2e3a57dd6f53e1aea84a61fbeadfe4459",
        column="prompt_en",
    ),
    "ddpo-animals": PromptSetEntry(
        summary="DDPO simple animals, one noun each",
        licence="MIT, (c) 2023 Kevin Black",
        url=f"{_GITHUB}/kvablack/ddpo-pytorch/1958463f020112c9a7bc85768d296daacc2e1b4b"
        "/ddpo_pytorch/assets/simple_animals.txt",
        sha256="ee3d9b638ce2a40e896a34319af85709d3c1c3188da0b8feda739dcb7363188d",
    ),
}
