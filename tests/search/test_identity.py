"""Identities outlive releases: fields are added, defaults change, and no older hash moves."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from search.record.ledger import Ledger
from search.record.ledger_errors import RowMissing
from search.record.ledger_schema import SCHEMA_VERSION
from search.record.trial import TrainingRecipe, TrialConfig
from spaces.architecture import Architecture
from spaces.errors import RequestError
from spaces.identity import added, canonical_json, with_fields_of_before
from tests.sweeps import open_ledger, toy_experiment, toy_proposals

CONFIG = TrialConfig(
    architecture=Architecture(
        arm="dual",
        num_layers=2,
        num_loops=2,
        d_model=64,
        head_dim=32,
        deep_ffn=176,
        wide_ffn=256,
        context_length=128,
        vocab_size=256,
    ),
    tokens=128_000,
    training=TrainingRecipe(learning_rate=0.002, batch_sequences=4),
    text_fingerprint="0" * 64,
    eval_sequences=64,
)

HASH_OF_0_1 = "e2eb02bbdebc4115"
"""What commit 41642b8 gives for `CONFIG`."""


@dataclass(frozen=True, kw_only=True)
class LaterArchitecture(Architecture):
    """The architecture of a later release."""

    num_experts: int | None = added(as_before=None)


@dataclass(frozen=True, kw_only=True)
class LaterRecipe(TrainingRecipe):
    """The recipe of a later release: before, the optimizer was AdamW."""

    optimizer: str = added(as_before="adamw", default="muon")


@dataclass(frozen=True, kw_only=True)
class LaterConfig(TrialConfig):
    """The configuration of a later release."""

    architecture: LaterArchitecture
    training: LaterRecipe
    parent_hash: str | None = added(as_before=None)


def later(config: TrialConfig, *, optimizer: str) -> LaterConfig:
    """A configuration as the later release would resolve it."""
    values = {each.name: getattr(config, each.name) for each in fields(config)}
    architecture = LaterArchitecture(**vars(config.architecture))
    training = LaterRecipe(**vars(config.training), optimizer=optimizer)
    return LaterConfig(**(values | {"architecture": architecture, "training": training}))


def test_todays_hash_is_that_of_the_first_release() -> None:
    assert CONFIG.config_hash == HASH_OF_0_1


def test_a_field_at_its_value_of_before_moves_no_hash() -> None:
    assert later(CONFIG, optimizer="adamw").config_hash == CONFIG.config_hash


def test_a_field_off_its_value_of_before_moves_the_hash() -> None:
    before = later(CONFIG, optimizer="adamw")
    hashes = {
        before.config_hash,
        later(CONFIG, optimizer="muon").config_hash,
        replace(before, parent_hash="0123456789abcdef").config_hash,
        replace(before, architecture=replace(before.architecture, num_experts=4)).config_hash,
    }
    assert len(hashes) == 4


def test_a_default_that_is_not_the_value_of_before_is_read_as_before() -> None:
    stored = json.loads(canonical_json(CONFIG))
    read: LaterConfig = TypeAdapter(LaterConfig).validate_python(
        with_fields_of_before(LaterConfig, stored)
    )
    assert read.training.optimizer == "adamw"
    assert read.config_hash == CONFIG.config_hash


def test_a_stored_hash_is_the_identity_and_never_computed_again(tmp_path: Path) -> None:
    experiment = toy_experiment()
    (proposal,) = toy_proposals(tmp_path, 1)
    with_ledger = open_ledger(tmp_path / "home", experiment)
    with_ledger.add_trial(experiment.name, proposal)
    with_ledger.close()
    edit(tmp_path / "home", "UPDATE trials SET config_hash = 'feedfeedfeedfeed'")

    ledger = Ledger(tmp_path / "home")
    (record,) = ledger.trials(experiment.name)
    assert record.config_hash == record.proposal.config.config_hash == "feedfeedfeedfeed"
    ledger.start_attempt(experiment.name, record.config_hash)
    assert ledger.trial(experiment.name, "feedfeedfeedfeed").state == "running"
    ledger.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda ledger: ledger.start_attempt("toy", "0" * 16),
        lambda ledger: ledger.set_aside("toy", {"0" * 16: "why"}),
        lambda ledger: ledger.record_run("toy", "0" * 16, "run"),
        lambda ledger: ledger.record_projection("other", tracking_uri=None, experiment="", run=""),
        lambda ledger: ledger.trial("toy", "0" * 16),
    ],
)
def test_a_change_that_meets_no_row_is_an_error(tmp_path: Path, change: Any) -> None:
    ledger = open_ledger(tmp_path, toy_experiment())
    with pytest.raises(RowMissing, match="nothing was written"):
        change(ledger)
    ledger.close()


def test_a_home_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    open_ledger(tmp_path, toy_experiment()).close()
    edit(tmp_path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for create in (False, True):
        with pytest.raises(RequestError, match="update isoflop"):
            Ledger(tmp_path, create=create)


def test_a_home_of_the_first_release_is_read_as_it_is_and_brought_up_to_date_to_be_written(
    tmp_path: Path,
) -> None:
    experiment = toy_experiment()
    ledger = open_ledger(tmp_path, experiment)
    for proposal in toy_proposals(tmp_path, 2):
        ledger.add_trial(experiment.name, proposal)
    hashes = [record.config_hash for record in ledger.trials(experiment.name)]
    ledger.close()
    for column in ("parent_hash", "cost_flops"):
        edit(tmp_path, f"ALTER TABLE trials DROP COLUMN {column}")
    edit(tmp_path, "PRAGMA user_version = 0")
    old = (tmp_path / "ledger.sqlite").read_bytes()

    reader = Ledger(tmp_path)
    assert [record.config_hash for record in reader.trials(experiment.name)] == hashes
    assert (tmp_path / "ledger.sqlite").read_bytes() == old
    with reader.held():
        reader.start_attempt(experiment.name, hashes[0])
    reader.close()

    copy = sqlite3.connect(tmp_path / "ledger.schema-1.sqlite")
    assert copy.execute("SELECT config_hash, state FROM trials ORDER BY number").fetchall() == [
        (config_hash, "queued") for config_hash in hashes
    ]
    copy.close()
    again = Ledger(tmp_path)
    assert [record.state for record in again.trials(experiment.name)] == ["running", "queued"]
    again.close()


def edit(home: Path, statement: str) -> None:
    """Change the ledger's file behind the ledger's back."""
    connection = sqlite3.connect(home / "ledger.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
