"""However a right table is written, it gives the right table's figures, or says what is wrong."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.cases.table_kit import (
    TABLES,
    Write,
    assert_same,
    base,
    fitted,
    frame_variant,
    left_out,
    text_variant,
    wrong_request,
)

CSV = (TABLES / "base.csv").read_text()
LINES = CSV.splitlines()
NOTES = ["note", *["caf\u00e9"] * 42]
COLUMNS = base().columns


@pytest.fixture(scope="module")
def right(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The fit of the right table."""
    from analysis.fit.fitting import fit

    return fit("chinchilla", TABLES / "base.csv").to_dict()


def retyped(change: Callable[[str, Any], str], separator: str = ",", header: str = "") -> str:
    """The right table with every entry as ``change(column, value)`` writes it."""
    rows = [
        separator.join(change(name, value) for name, value in row.items())
        for row in base().iter_rows(named=True)
    ]
    return "\n".join([header or separator.join(COLUMNS), *rows]) + "\n"


def grouped(sign: str, decimal: str = ".") -> Callable[[str, Any], str]:
    """Whole numbers in groups of three, losses with a decimal mark."""

    def change(name: str, value: Any) -> str:
        if name == "loss":
            return f"{value}".replace(".", decimal)
        return f'"{int(value):,}"'.replace(",", sign)

    return change


def suffixed(name: str, value: Any) -> str:
    """Sizes in K, tokens in M or B."""
    if name == "params":
        return f"{value / 1e3:.3f}K"
    if name == "tokens":
        return f"{value / 1e9:.9f} B" if value > 1e9 else f"{value / 1e6:.6f}M"
    return f"{value}"


def with_units(name: str, value: Any) -> str:
    """Numbers with their units."""
    return {
        "params": f"{value} params",
        "tokens": f"{value / 1e6:.6f}M tokens",
        "flops": f"{value / 1e9:.0f} GFLOPs",
        "loss": f"{value} nats",
    }[name]


def with_losses(change: Callable[[float], str]) -> str:
    """The right table with other losses."""
    return retyped(lambda name, value: change(value) if name == "loss" else f"{int(value)}")


SHARED = [
    "base.csv",
    "space-after-comma.csv",
    "semicolon-decimal-comma.csv",
    "tabs-utf16.csv",
    "empty-last-rows.csv",
    "thousands.csv",
]

VARIANTS: dict[str, Write] = {
    "byte order mark": text_variant("t.csv", CSV.encode("utf-8-sig")),
    "utf-16 big endian without a mark": text_variant("t.csv", CSV.encode("utf-16-be")),
    "utf-16 little endian without a mark": text_variant("t.csv", CSV.encode("utf-16-le")),
    "utf-32": text_variant("t.csv", CSV.encode("utf-32")),
    "windows line ends": text_variant("t.csv", CSV.replace("\n", "\r\n").encode()),
    "old macintosh line ends": text_variant("t.csv", CSV.replace("\n", "\r").encode()),
    "windows-1252": text_variant(
        "t.csv",
        "\n".join([LINES[0] + ",note", *(f"{x},caf\u00e9" for x in LINES[1:])]).encode("cp1252"),
    ),
    "tsv": text_variant("t.tsv", CSV.replace(",", "\t")),
    "tabs in a csv": text_variant("t.csv", CSV.replace(",", "\t")),
    "bars": text_variant("t.csv", CSV.replace(",", " | ")),
    "blanks": text_variant("t.csv", CSV.replace(",", "   ")),
    "semicolons, decimal points": text_variant("t.csv", CSV.replace(",", ";")),
    "sep line": text_variant("t.csv", "sep=;\n" + CSV.replace(",", ";")),
    "numpy's header": text_variant("t.csv", "# " + CSV),
    "comments above": text_variant("t.csv", "# runs of may\n# v2\n" + CSV),
    "gzip": text_variant("t.csv.gz", gzip.compress(CSV.encode())),
    "bzip2": text_variant("t.csv.bz2", bz2.compress(CSV.encode())),
    "xz": text_variant("t.tsv.xz", lzma.compress(CSV.replace(",", "\t").encode())),
    "gzip in a plain name": text_variant("t.csv", gzip.compress(CSV.encode())),
    "quotes": text_variant(
        "t.csv", "".join('"' + line.replace(",", '","') + '"\n' for line in LINES)
    ),
    "quotes after blanks": text_variant("t.csv", retyped(lambda n, v: f' "{v}" ')),
    "blanks at line ends": text_variant("t.csv", CSV.replace("\n", "  \n")),
    "no-break blanks": text_variant("t.csv", CSV.replace(",", ",\u00a0")),
    "a comma at line ends": text_variant("t.csv", CSV.replace("\n", ",\n")),
    "an index without a name": text_variant(
        "t.csv", "\n".join(["," + LINES[0], *(f"{i},{x}" for i, x in enumerate(LINES[1:]))])
    ),
    "no last line end": text_variant("t.csv", CSV.rstrip("\n")),
    "blank groups": text_variant("t.csv", retyped(grouped(" "))),
    "thin blanks": text_variant("t.csv", retyped(grouped("\u202f"))),
    "apostrophes": text_variant("t.csv", retyped(grouped("'"))),
    "underscores": text_variant("t.csv", retyped(grouped("_"))),
    "points and decimal commas": text_variant("t.csv", retyped(grouped(".", ","), ";")),
    "suffixes": text_variant("t.csv", retyped(suffixed)),
    "lower suffixes": text_variant("t.csv", retyped(lambda n, v: suffixed(n, v).lower())),
    "units": text_variant("t.csv", retyped(with_units)),
    "exponents": text_variant("t.csv", retyped(lambda n, v: f"{v:.9E}")),
    "jsonl": text_variant("t.jsonl", base().write_ndjson()),
    "ndjson": text_variant("t.ndjson", base().write_ndjson()),
    "jsonl.gz": text_variant("t.jsonl.gz", gzip.compress(base().write_ndjson().encode())),
    "jsonl of text": text_variant("t.jsonl", base().cast(pl.String).write_ndjson()),
    "parquet": frame_variant(base(), "t.parquet"),
    "categories": frame_variant(
        base().with_columns(pl.col("params").cast(pl.String).cast(pl.Categorical)), "t.parquet"
    ),
    "enumerations": frame_variant(
        base().with_columns(
            pl.col("tokens").cast(pl.String).cast(pl.Enum(sorted(set(map(str, base()["tokens"])))))
        ),
        "t.parquet",
    ),
    "decimals": frame_variant(
        base().with_columns(pl.col("loss").cast(pl.Decimal(20, 6))), "t.parquet"
    ),
    "upper case name": text_variant("T.CSV", CSV),
}


@pytest.mark.parametrize("name", SHARED)
def test_shared_dialects(
    name: str, right: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert_same(fitted(capsys, TABLES / name), right)


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_right_table_however_written(
    kind: str, right: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_same(fitted(capsys, VARIANTS[kind](tmp_path)), right)


def test_what_the_right_table_gives(right: dict[str, Any]) -> None:
    assert right["certificate"]["status"] == "ok"
    codes = [reason["code"] for reason in right["certificate"]["reasons"]]
    assert codes == ["rows-unlike-a-law"]
    assert right["parameters"] == pytest.approx(
        {
            "E": 1.8137168818,
            "A": 127.745326533,
            "B": 263.66221308,
            "alpha": 0.33502265102,
            "beta": 0.30125895275,
        },
        rel=1e-7,  # so flat is the bottom: processors differ by 7e-9
    )
    jackknife = right["resampling"]["jackknife_intervals"]
    assert jackknife["E"] == pytest.approx([1.7795752539, 1.8485135260], rel=1e-7)
    assert right["derived"]["frontier"][0]["n_star"] == pytest.approx(3.05e7, rel=1e-3)
    assert right["derived"]["frontier"][0]["flops"] == 3e17


def test_reading_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {
        "semicolon-decimal-comma.csv": "loss: decimal commas are read",
        "tabs-utf16.csv": "the file is UTF-16",
        "thousands.csv": "params: thousands separators are dropped",
    }
    for name, words in told.items():
        assert words in fitted(capsys, TABLES / name)["data"]["conventions"]
    found = fitted(capsys, VARIANTS["suffixes"](tmp_path))
    assert "params: '290.474K' is read as 290,474" in found["data"]["conventions"]


def test_empty_rows_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = fitted(capsys, TABLES / "empty-last-rows.csv")
    assert left_out(found) == {"empty row": 2}
    assert found["data"]["table_rows"] == 44
    middle = "\n".join([*LINES[:10], ",,,", "", *LINES[10:]])
    assert left_out(fitted(capsys, text_variant("t.csv", middle)(tmp_path))) == {"empty row": 2}


def test_joined_files_repeat_their_header(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, right: dict[str, Any]
) -> None:
    found = fitted(capsys, text_variant("t.csv", CSV + CSV)(tmp_path))
    assert left_out(found) == {"the header once more": 1, "a copy of an earlier row": 42}
    assert_same(found, right)


REFUSED = {
    "a spreadsheet": (text_variant("t.csv", b"PK\x03\x04rest"), "save its sheet as .csv"),
    "no header": (text_variant("t.csv", "\n".join(LINES[1:])), "names the columns"),
    "more entries": (text_variant("t.csv", CSV.replace("290474", "290,474")), "rows 1 hold more"),
    "no JSON": (text_variant("t.jsonl", '{"loss": 1}\n{"loss": '), "line 2 is no JSON"),
    "a JSON list": (text_variant("t.jsonl", "[1, 2]\n"), "one object a line"),
    "damaged gzip": (text_variant("t.csv.gz", gzip.compress(CSV.encode())[:60]), "damaged"),
    "a table of nothing": (text_variant("t.csv", ""), "cannot be read as a table"),
    "header alone": (text_variant("t.csv", LINES[0]), "no row to fit"),
    "binary": (text_variant("t.csv", b"params,tokens,loss\n1,\x00,3\n"), "zero bytes"),
    "percent": (text_variant("t.csv", with_losses("{}%".format)), "percent"),
    "negative": (text_variant("t.csv", with_losses("-{}".format)), "by its sign"),
    "thousands or decimals": (
        text_variant("t.csv", with_losses(lambda loss: '"4,302"')), "'4,302' is 4302 or 4.302"
    ),
    "both decimal marks": (
        text_variant("t.csv", with_losses(lambda x: f'"{x:.4f}"'.replace(".", ",." [x < 3]))),
        "the table uses both",
    ),
    "lists": (
        frame_variant(base().with_columns(params=pl.concat_list("params", "tokens")), "t.parquet"),
        "'params' of",
    ),
    "structs": (
        frame_variant(base().with_columns(pl.struct("loss").alias("loss")), "t.parquet"),
        "holds struct values",
    ),
    "true and false": (
        frame_variant(base().with_columns(loss=pl.lit(True)), "t.parquet"), "holds true and false"
    ),
    "dates": (
        frame_variant(base().with_columns(tokens=pl.lit("2026-01-01").str.to_date()), "t.parquet"),
        "holds Date values",
    ),
    "JSON lists": (
        text_variant("t.jsonl", base().with_columns(pl.concat_list("loss")).write_ndjson()),
        "loss = '[4.3024]'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_named(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, words = REFUSED[kind]
    assert words in wrong_request(capsys, write(tmp_path))


def test_shared_categories(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = fitted(capsys, TABLES / "categorical-params.parquet")
    frame = pl.read_parquet(TABLES / "categorical-params.parquet")
    numbers = frame.with_columns(pl.col("params").cast(pl.String).cast(pl.Int64))
    assert_same(found, fitted(capsys, frame_variant(numbers)(tmp_path)))


def test_nested_json_gives_columns(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, right: dict[str, Any]
) -> None:
    nested = base().select(
        pl.struct("params", "tokens").alias("config"), pl.struct("loss").alias("summary"), "flops"
    )
    buffer = io.BytesIO()
    nested.write_ndjson(buffer)
    columns = ("params=config.params", "tokens=config.tokens", "loss=summary.loss")
    argv = [f"--column={each}" for each in columns]
    found = fitted(capsys, text_variant("t.jsonl", buffer.getvalue())(tmp_path), *argv)
    assert_same(found, right)
