from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortft_core import prompts
from shortft_core.errors import MissingWeightsError, PromptError, UnknownNameError, WeightsError
from shortft_core.prompt_sets import PROMPT_SETS
from shortft_core.settings import settings
from shortft_core.spec import PromptSource

SHARED = Path(__file__).parents[2] / "../shared/prompts"
"""Copies of the public sets, where a machine has them: (name, file, number of prompts)."""
COPIES = [
    ("drawbench", "drawbench/drawbench.txt", 200),
    ("partiprompts", "partiprompts/PartiPrompts.tsv", 1632),
    ("hpdv2-photo-alignprop", "hpdv2_photo_alignprop/hps_v2_all.txt", 750),
    ("hpdv2-photo-alignprop-eval", "hpdv2_photo_alignprop/hps_v2_all_eval.txt", 50),
    ("geneval", "geneval/evaluation_metadata.jsonl", 553),
    ("imagereward", "imagereward/benchmark-prompts.json", 100),
    ("unigenbench", "unigenbench/test_prompts_en.csv", 600),
    ("ddpo-animals", "ddpo/simple_animals.txt", 45),
    *(
        (
            f"t2i-compbench-{category.replace('_', '-')}-{split}",
            f"t2i_compbench/{category}_{split}.txt",
            count,
        )
        for category in (
            "3d_spatial",
            "color",
            "complex",
            "non_spatial",
            "numeracy",
            "shape",
            "spatial",
            "texture",
        )
        for split, count in (("train", 700), ("val", 300))
    ),
]
UNSEEN = {"dpg-bench", "hpdv2-anime", "hpdv2-concept-art", "hpdv2-paintings", "hpdv2-photo"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SHORTFT_CACHE_DIR", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def file_source(folder: Path, name: str, content: bytes, column: str | None = None) -> PromptSource:
    path = folder / name
    path.write_bytes(content)
    return PromptSource(path=str(path), column=column)


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("a.txt", "a cat\na dog, asleep\n", None),
        ("a.txt", "a cat\r\na dog, asleep\r\n", None),
        ("a.TXT", "\ufeffa cat\na dog, asleep", None),
        ("a.csv", 'id,prompt\n1,a cat\n2,"a dog, asleep"\n', None),
        ("a.csv", 'Prompt,id\r\na cat,1\r\n"a dog,\nasleep",2\r\n', None),
        ("a.csv", 'text,prompt\na cat,x\n"a dog, asleep",y\n', "text"),
        ("a.tsv", 'Prompt\tNote\na cat\t"odd\na dog, asleep\tb\n', None),
        ("a.json", '["a cat", "a dog, asleep"]', None),
        ("a.json", '[{"prompt": "a cat"}, {"prompt": "a dog, asleep"}]', None),
        ("a.json", '[{"caption": "a cat"}, "a dog,   asleep"]', "caption"),
        ("a.jsonl", '{"prompt": "a cat", "n": 1}\n"a dog, asleep"\n', None),
    ],
)
def test_every_format_gives_the_same_set(
    tmp_path: Path, name: str, content: str, column: str | None
) -> None:
    found = prompts.load(file_source(tmp_path, name, content.encode(), column))
    assert found.prompts == ("a cat", "a dog, asleep")
    assert found.sha256 == hashlib.sha256(b"a cat\na dog, asleep\n").hexdigest()
    assert found.warnings() == ()


def test_quotes_of_a_tsv_are_text() -> None:
    found = prompts.parse(b'Prompt\n"a sign" saying "hi"\n"unclosed\n', "tsv")
    assert found.prompts == ('"a sign" saying "hi"', '"unclosed')


def test_duplicates_and_empty_lines_are_reported() -> None:
    found = prompts.parse(b"a cat\n\na dog\n \t\na  cat \na cat\n\n", "lines")
    assert found.prompts == ("a cat", "a dog", "a cat", "a cat")
    assert found.duplicates == (5, 6)
    assert found.empties == (2, 4, 7)
    assert found.warnings() == (
        "2 repeat an earlier prompt: lines 5, 6",
        "3 are empty: lines 2, 4, 7",
    )


def test_a_distinct_set_keeps_each_prompt_once() -> None:
    found = prompts.parse(b"text,q\na,1\na,2\nb,1\n", "csv", column="text", distinct=True)
    assert found.prompts == ("a", "b")
    assert found.duplicates == (3,)


def test_line_numbers_of_a_csv_count_lines_within_quotes() -> None:
    found = prompts.parse(b'prompt\n"a\ncat"\n""\n\n', "csv")
    assert found.prompts == ("a cat",)
    assert found.empties == (4, 5)


def test_separators_inside_a_prompt_do_not_end_it() -> None:
    assert prompts.parse("a\u2028cat\x0bhere\n".encode(), "lines").prompts == ("a cat here",)


def test_composed_and_decomposed_letters_are_one_prompt() -> None:
    found = prompts.parse("un caf\u00e9\nun cafe\u0301\n".encode(), "lines")
    assert found.duplicates == (2,)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("eins\nzwei\nKäse\n".encode("latin-1"), 3),
        ("a cat\n".encode("utf-16"), 1),
        ("a cat\na dog\n".encode("utf-16-le"), 1),
        (b"a cat\na \0 dog\n", 2),
    ],
    ids=["latin-1", "utf-16", "utf-16 without mark", "zero byte"],
)
def test_a_wrong_encoding_names_the_line_and_the_remedy(content: bytes, line: int) -> None:
    with pytest.raises(PromptError, match=f"line {line} is not UTF-8") as caught:
        prompts.parse(content, "lines", field="evaluation.prompts.path")
    assert caught.value.field == "evaluation.prompts.path"
    assert caught.value.remedy == "Save the file as UTF-8"


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(PromptError, match="line 2 is not UTF-8"):
        prompts.parse(b'["a cat", "\\ud800"]', "json")


@pytest.mark.parametrize(
    ("file_format", "content", "problem"),
    [
        ("lines", b"", "there is no prompt"),
        ("lines", b"\n \n", "there is no prompt"),
        ("csv", b"", "no column 'prompt'"),
        ("csv", b"prompt\n", "there is no prompt"),
        ("csv", b"text,id\na,1\n", "no column 'prompt'.*'text', 'id'"),
        ("csv", b"id,prompt\n1,a\n2\n", "line 3 ends before column 'prompt'"),
        ("csv", b'prompt\na cat\n"a dog\n', "line 3: unexpected end of data"),
        ("json", b'["a",\n "b"', "line 2 is not JSON"),
        ("json", b'{"prompt": "a"}', "not a list"),
        ("json", b'["a", 3]', "item 2 holds no text"),
        ("json", b'[{"prompt": null}]', "item 1 holds no text under 'prompt'"),
        ("json", b'[{"text": "a"}]', "item 1 holds no text under 'prompt'.*'text'"),
        ("json", b"[" * 200_000, "cannot be read"),
        ("json", b"[" + b"1" * 5_000 + b"]", "cannot be read"),
        ("jsonl", b'"a"\n\n{"prompt"}\n', "line 3 is not JSON"),
        ("jsonl", b'"a"\n["b"]\n', "line 2 holds no text"),
    ],
)
def test_what_cannot_be_read_is_named(
    file_format: prompts.Format, content: bytes, problem: str
) -> None:
    with pytest.raises(PromptError, match=problem) as caught:
        prompts.parse(content, file_format)
    assert caught.value.field == "prompts"
    assert caught.value.remedy


def test_an_unknown_ending_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"\.txt, \.csv, \.tsv, \.json, \.jsonl"):
        prompts.load(file_source(tmp_path, "prompts.xlsx", b"a cat"))


@pytest.mark.parametrize("name", ["absent.txt", "."])
def test_an_unreadable_path_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(PromptError, match=r"No such file|Is a directory") as caught:
        prompts.load(PromptSource(path=str(tmp_path / name)))
    assert caught.value.field == "prompts.path"


def test_inline_prompts() -> None:
    found = prompts.load(PromptSource(inline=("a cat", "", " a cat")))
    assert (found.prompts, found.duplicates, found.empties) == (("a cat", "a cat"), (3,), (2,))
    with pytest.raises(PromptError, match="no prompt") as caught:
        prompts.load(PromptSource(inline=()), field="evaluation.prompts")
    assert caught.value.field == "evaluation.prompts.inline"


def test_an_uploaded_set_is_refused_without_the_service() -> None:
    with pytest.raises(PromptError, match="known to the service only") as caught:
        prompts.load(PromptSource(id="pst_1"))
    assert caught.value.field == "prompts.id"


def test_an_unknown_name_gets_the_nearest_known() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean drawbench") as caught:
        prompts.load(PromptSource(name="drawbnch"), field="evaluation.prompts")
    assert caught.value.field == "evaluation.prompts.name"


def test_the_split_depends_on_each_prompt_alone() -> None:
    everything = tuple(f"prompt {number}" for number in range(2000))
    training, evaluation = prompts.split(prompts.load(PromptSource(inline=everything)))
    assert set(training.prompts) | set(evaluation.prompts) == set(everything)
    assert not set(training.prompts) & set(evaluation.prompts)
    assert 160 < len(evaluation.prompts) < 240
    again = prompts.split(prompts.load(PromptSource(inline=everything[::-1])))
    assert again[1].prompts == evaluation.prompts[::-1]
    assert again[1].sha256 != evaluation.sha256


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1), st.floats(0, 1))
def test_any_split_is_a_partition_in_order(texts: list[str], share: float) -> None:
    whole = prompts.load(PromptSource(inline=tuple(t.replace("\0", "") + "x" for t in texts)))
    training, evaluation = prompts.split(whole, share)
    chosen = set(evaluation.prompts)
    assert training.prompts == tuple(p for p in whole.prompts if p not in chosen)
    assert evaluation.prompts == tuple(p for p in whole.prompts if p in chosen)


def test_a_source_may_ask_for_one_side_of_the_split() -> None:
    inline = tuple(f"prompt {number}" for number in range(100))
    training, evaluation = prompts.split(prompts.load(PromptSource(inline=inline)))
    assert prompts.load(PromptSource(inline=inline, split="train")) == training
    assert prompts.load(PromptSource(inline=inline, split="eval")) == evaluation


def test_an_empty_side_of_the_split_has_a_remedy() -> None:
    sides: tuple[PromptSource, ...] = (
        PromptSource(inline=("a cat",), split="train"),
        PromptSource(inline=("a cat",), split="eval"),
    )
    with pytest.raises(PromptError, match="none of the 1 prompts") as caught:
        tuple(prompts.load(side) for side in sides)
    assert "evaluation.prompts" in caught.value.remedy


@pytest.mark.parametrize("name", [n for n, entry in PROMPT_SETS.items() if entry.bundled])
def test_bundled_sets_are_clean(name: str) -> None:
    found = prompts.load(PromptSource(name=name))
    assert len(found.prompts) >= 100
    assert found.empties == ()


def test_bundled_evaluation_was_never_tuned_on() -> None:
    training = prompts.load(PromptSource(name="shapes-train")).prompts
    for held_out in ("shapes-eval", "shapes-held-out"):
        assert not set(training) & set(prompts.load(PromptSource(name=held_out)).prompts)


@pytest.mark.parametrize(("name", "file", "count"), COPIES, ids=[name for name, *_ in COPIES])
def test_public_sets_verify_and_parse(cache: Path, name: str, file: str, count: int) -> None:
    copy = SHARED / file
    if not copy.is_file():
        pytest.skip(f"no copy of {name} on this machine")
    (cache / "prompts").mkdir()
    (cache / "prompts" / f"{name}{copy.suffix}").write_bytes(copy.read_bytes())
    found = prompts.load(PromptSource(name=name))
    assert PROMPT_SETS[name].sha256
    assert len(found.prompts) + len(found.empties) >= count
    assert len(found.prompts) == count


def test_a_public_set_that_was_changed_is_refused(cache: Path) -> None:
    (cache / "prompts").mkdir()
    (cache / "prompts" / "drawbench.txt").write_text("A red colored car.\n", encoding="utf-8")
    with pytest.raises(WeightsError, match="sha256") as caught:
        prompts.load(PromptSource(name="drawbench"))
    assert caught.value.field == "prompts.name"


def test_a_public_set_offline_names_the_address(cache: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"PartiPrompts\.tsv") as caught:
        prompts.load(PromptSource(name="partiprompts"))
    assert caught.value.field == "prompts.name"


def test_dense_paragraphs_repeated_per_question_are_read_once(cache: Path) -> None:
    (cache / "prompts").mkdir()
    rows = 'item_id,text,question\n1,"A field,\nwide.",q1\n1,"A field,\nwide.",q2\n2,A hut.,q1\n'
    (cache / "prompts" / "dpg-bench.csv").write_text(rows, encoding="utf-8")
    assert prompts.load(PromptSource(name="dpg-bench")).prompts == ("A field, wide.", "A hut.")


def test_every_entry_says_where_it_comes_from() -> None:
    for name, entry in PROMPT_SETS.items():
        assert (entry.bundled is None) != (entry.url is None), name
        assert entry.licence, name
        assert entry.summary, name
        assert entry.evaluation is None or entry.evaluation in PROMPT_SETS, name
    assert {n for n, e in PROMPT_SETS.items() if e.url and e.sha256 is None} == UNSEEN
    assert {n for n, e in PROMPT_SETS.items() if e.sha256} == {name for name, *_ in COPIES}


def test_json_of_the_set_is_the_set(tmp_path: Path) -> None:
    found = prompts.load(PromptSource(name="shapes-eval"))
    again = file_source(tmp_path, "a.json", json.dumps(found.prompts).encode())
    assert prompts.load(again).sha256 == found.sha256
