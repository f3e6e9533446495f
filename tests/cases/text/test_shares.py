"""Does validation get about what was asked, and are copies across the split said?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runners.text.document_split import misses_grossly
from tests.cases.text.inputs import DATA, plan, prose, read


def test_four_books(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = read(DATA / "books", tmp_path / "cache")
    assert found.share == pytest.approx(0.05, abs=0.02)
    assert all(text.endswith(b"\n") for text in found.validation), "cut at paragraphs"
    whole = sum(path.stat().st_size for path in (DATA / "books").iterdir())
    assert found.corpus.num_train_bytes + found.corpus.num_val_bytes == whole
    answer = plan(DATA / "books", tmp_path, capfd)
    assert answer.code == 0
    assert "4 long documents are cut at paragraphs or lines: whole, validation would" in answer.err
    assert "hold 57.7% of the bytes, 5.0% was asked" in answer.err
    assert "training: 74 documents, 13,246 bytes, 13,320 tokens; validation: 4 docum" in answer.out


def test_both_sizes_are_in_the_document(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    answer = plan(DATA / "books", tmp_path, capfd, "--json")
    assert json.loads(answer.out)["text"] == {
        "training": {"documents": 74, "bytes": 13_246, "tokens": 13_320},
        "validation": {"documents": 4, "bytes": 711, "tokens": 715},
    }


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("sizes", [(900, 20), (500, 500), (30, 500, 20, 400)])
def test_a_few_long_files_meet_the_share_or_it_is_said(
    tmp_path: Path, sizes: tuple[int, ...], fraction: float
) -> None:
    folder = tmp_path / "books"
    folder.mkdir()
    for number, size in enumerate(sizes):
        (folder / f"{number}.txt").write_text(prose(number, size))
    found = read(folder, tmp_path / "cache", validation_fraction=fraction)
    is_near = found.share == pytest.approx(fraction, rel=0.5)
    assert is_near or "warning: validation holds" in found.said
    assert not misses_grossly(found.share, fraction)


def test_one_long_document_among_many_short_ones_alone_is_cut(tmp_path: Path) -> None:
    records = [prose(1, 3_000), *(prose(10 + number, 1) for number in range(60))]
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in records))
    found = read(path, tmp_path / "cache")
    assert found.share == pytest.approx(0.05, abs=0.02)
    assert {text.encode() for text in records[1:]} <= {*found.train, *found.validation}


def test_text_without_lines_is_cut_between_words(tmp_path: Path) -> None:
    folder = tmp_path / "books"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.txt").write_text(prose(number, 400).replace("\n", " "))
    found = read(folder, tmp_path / "cache")
    assert found.share == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("count", [5, 8, 12, 40])
def test_a_share_that_is_near_leaves_documents_whole(tmp_path: Path, count: int) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    texts = [prose(number, 20).encode() for number in range(count)]
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_bytes(text)
    found = read(folder, tmp_path / "cache")
    assert {*found.train, *found.validation} == {*texts}
    assert found.corpus.source.endswith("split by hash, 0.05 of the bytes")
    assert ("warning: validation holds" in found.said) == (count < 10)


def test_copies_that_no_cut_can_split_are_said(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    records = [prose(number, 1) for number in range(2)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in records * 50))
    found = read(path, tmp_path / "cache")
    assert "98 of 100 documents are copies of others" in found.said
    assert "warning: validation holds 49.8% of the bytes, 5.0% was asked" in found.said


def _write_sides(folder: Path, train: list[str], validation: list[str]) -> Path:
    folder.mkdir()
    for name, texts in (("train", train), ("val", validation)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


def test_documents_of_both_sides(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    texts = [prose(number) for number in range(12)]
    folder = _write_sides(tmp_path / "text", texts[:10], texts[8:])
    found = read(folder, tmp_path / "cache")
    assert found.train == [text.encode() for text in texts[:8]]
    words = "2 of 10 training documents are validation documents as well: left out of training"
    assert words in found.said
    assert words in plan(folder, tmp_path, capfd).err


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.upper(),
        lambda text: text.replace("\n\n", "\r\n"),
        lambda text: text.replace("bread", "cheese", 1),
        lambda text: "Another beginning. " + text + prose(99),
        lambda text: text[40:],
    ],
    ids=["case", "line ends", "one word", "inside another", "beginning cut"],
)
def test_near_copies_of_both_sides(tmp_path: Path, change) -> None:
    texts = [prose(number) for number in range(12)]
    validation = [*texts[10:], texts[3], texts[7]]
    train = [change(text) if number in (3, 7) else text for number, text in enumerate(texts[:10])]
    found = read(_write_sides(tmp_path / "text", train, validation), tmp_path / "cache")
    assert "warning: 2 of 4 validation documents (" in found.said
    assert "stand in the training text as well" in found.said
    assert found.corpus.num_train_documents == 10, "they are said, not removed"


def test_short_copies(tmp_path: Path) -> None:
    folder = _write_sides(
        tmp_path / "text", ["Hello, world!", "Goodbye."], ["hello world", "Well?"]
    )
    assert "warning: 1 of 2 validation documents" in read(folder, tmp_path / "cache").said


def test_near_copies_in_a_split_by_hash(tmp_path: Path) -> None:
    texts = [prose(number) for number in range(40)]
    path = tmp_path / "twice.jsonl"
    both = [*texts, *(text.upper() for text in texts)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in both))
    found = read(path, tmp_path / "cache", validation_fraction=0.2)
    assert "validation documents" in found.said
    assert "warning" in found.said


def test_a_book_that_holds_itself_twice(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(prose(1, 300) + "An interlude.\n\n" + prose(1, 300))
    assert "warning: " in read(path, tmp_path / "cache").said


def test_text_without_copies_gives_no_warning(tmp_path: Path) -> None:
    for source in (None, DATA / "lines.jsonl"):
        assert "warning" not in read(source, tmp_path / "cache").said
