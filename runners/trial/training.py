"""How is one trial trained, measured and saved?

`run_trial` is a generator: progress, then one `Outcome`, always the last value. It continues from
the trial's newest whole checkpoint where there is one; on the CPU the continued trial equals an
uninterrupted one bit for bit (after the weights' start nothing here draws random numbers).
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor

from runners.engine.batches import (
    TrainingOrder,
    check_text,
    device_streams,
    evaluation_windows,
    gather,
)
from runners.engine.graph import StepTask
from runners.engine.lanes import LANES, Lane
from runners.engine.schedule import learning_rate_at
from runners.engine.step import EagerEngine, OutOfMemoryAtOneSequence, StepEngine
from runners.engine.unread import UnreadLosses
from runners.engine.validation import Measurement, measure
from runners.machine.device import find_device, reset_peak_memory
from runners.machine.files import write_atomically
from runners.text.corpus import Corpus
from runners.trial.branching import trunk_key
from runners.trial.checkpoint import (
    Checkpoint,
    CorruptCheckpoint,
    FoundCheckpoint,
    load_checkpoint,
    save_checkpoint,
)
from runners.trial.outcome import sum_up, with_result
from runners.trial.trial_log import TrialLog
from runners.trial.trunk import Trunk
from search.record.trial import Outcome, OutcomeStatus, Progress, TrialConfig
from spaces.arms.contract import find_arm
from spaces.errors import RequestError
from spaces.identity import canonical_json
from spaces.model import LanguageModel

StopReason = Literal["preempted", "pruned"]
Engine = Literal["auto", "eager"]

STEPS_OF_A_TURN = {"cpu": 1, "cuda": 8}
"""A trial trains so many steps before it is another's turn; a GPU has more of them handed over
than it has done."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to run a trial; nothing here is part of its identity."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    engine: Engine = "auto"
    """auto: fused and replayed on a GPU, eager on a CPU; eager: operator by operator
    but for the softmax of a loss on a GPU."""
    num_threads: int | None = None
    """torch threads; None leaves them as they are."""
    micro_batch_sequences: int | None = None
    """Sequences of a forward pass at first; None tries the whole batch."""
    checkpoint_dir: Path | None = None
    """The trial's own folder for checkpoints; None saves none."""
    checkpoint_seconds: float = 30.0
    """Time between checkpoints."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints, besides."""
    progress_seconds: float = 2.0
    """Longest silence between two values of progress, but for a single step."""
    trunk_dir: Path | None = None
    """Where trials of one recipe find and leave what they have in common; None: nowhere."""
    weights_path: Path | None = None
    """Where to leave the final weights as safetensors; None keeps none."""


def never() -> StopReason | None:
    """Nobody asks to stop."""
    return None


def run_trial(
    config: TrialConfig,
    corpus: Corpus,
    options: TrainingOptions,
    *,
    should_stop: Callable[[], StopReason | None] = never,
) -> Iterator[Progress | Outcome]:
    """Train one trial; yields progress, then its outcome.

    ``should_stop`` is asked before every step: ``preempted`` saves a checkpoint and ends the
    attempt, ``pruned`` ends the trial. Divergence and lack of memory are outcomes; a request that
    cannot be met (another text, too little of it, a missing device) raises `RequestError`.
    """
    for content in run_in_turns(config, corpus, options, should_stop=should_stop):
        if content is not None:
            yield content


def run_in_turns(
    config: TrialConfig,
    corpus: Corpus,
    options: TrainingOptions,
    *,
    should_stop: Callable[[], StopReason | None] = never,
) -> Generator[Progress | Outcome | None]:
    """`run_trial`, with None after every few steps: another trial of the process may have its turn.

    Trials that take turns share nothing: each ends with the numbers that it has alone, on a CPU bit
    for bit. On a GPU each has a lane, in which the device works on while others have theirs.
    """
    check_request(config, corpus)
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    device = find_device(options.device)
    lane = LANES.take(step_task(config, options, device))
    try:
        trial = _Trial(config, corpus, options, should_stop, device, lane)
        turns, content = trial.run(), None
        while not isinstance(content, Outcome):
            with lane.entered(device):
                content = _turn(trial, turns)
            yield content
    finally:
        lane.is_taken = False


def _turn(trial: _Trial, turns: Iterator[Progress | Outcome | None]) -> Progress | Outcome | None:
    """The next turn of a trial; lack of memory, which nothing was found against, ends it."""
    try:
        return next(turns)
    except (OutOfMemoryAtOneSequence, torch.OutOfMemoryError) as error:
        reason = str(error).splitlines()[0]
    trial.lane.warm.let_go()
    where = f"one sequence does not fit into {trial.device}'s memory"
    return trial.end("out_of_memory", reason=f"{where}: {reason}")


def step_task(
    config: TrialConfig, options: TrainingOptions, device: torch.device
) -> StepTask | None:
    """What a captured step of the trial is built for; None where its steps are not captured."""
    arm = find_arm(config.architecture.arm)
    if device.type != "cuda" or options.engine != "auto" or not arm.is_captured:
        return None
    return StepTask(
        architecture=config.architecture,
        recipe=config.training,
        device=device,
        eval_sequences=config.eval_sequences,
        micro_batch_sequences=options.micro_batch_sequences,
    )


def check_request(config: TrialConfig, corpus: Corpus) -> None:
    """Raise `RequestError` where the corpus is not the trial's, or too short for it."""
    architecture = config.architecture
    if config.text_fingerprint != corpus.fingerprint:
        raise RequestError(
            f"a trial trains on its own text, but it names {config.text_fingerprint[:16]} and the "
            f"corpus is {corpus.fingerprint[:16]} ({corpus.source}); prepare the trial's text"
        )
    if architecture.vocab_size < corpus.vocab_size:
        raise RequestError(
            f"vocab_size must hold the text's {corpus.vocab_size} symbols, got "
            f"{architecture.vocab_size}"
        )
    if config.num_sequences < 1 or config.tokens % architecture.context_length:
        raise RequestError(
            f"tokens must be a whole number of sequences of {architecture.context_length}, got "
            f"{config.tokens}"
        )
    check_text(
        corpus,
        context_length=architecture.context_length,
        eval_sequences=config.eval_sequences,
    )


def evaluation_steps(config: TrialConfig) -> frozenset[int]:
    """Steps after which the validation loss is measured: evenly spaced, and the last."""
    parts = config.eval_points + 1
    steps = {round(config.num_steps * part / parts) for part in range(1, parts)}
    return frozenset(steps - {0} | {config.num_steps})


class _Trial:
    """One attempt at a trial: what `run_trial` steps through."""

    def __init__(
        self,
        config: TrialConfig,
        corpus: Corpus,
        options: TrainingOptions,
        should_stop: Callable[[], StopReason | None],
        device: torch.device,
        lane: Lane,
    ) -> None:
        self.device = device
        self.lane = lane
        self._config = config
        self._corpus = corpus
        self._options = options
        self._should_stop = should_stop
        self._log = TrialLog(config=config)
        self._resumed_tokens = 0
        self._notes: list[str] = []
        self._steps_done = 0
        self._unread = UnreadLosses(device)
        has_trunk = options.trunk_dir is not None and trunk_key(config) is not None
        self._trunk = Trunk(config, options.trunk_dir) if has_trunk and options.trunk_dir else None
        self._ahead: deque[tuple[Tensor, Tensor]] = deque()
        self._evaluation_steps = evaluation_steps(config)
        self._last_save = self._last_progress = self._handed_over = time.monotonic()
        self._setup_seconds: float | None = None
        self._measuring_seconds = 0.0
        self._order = TrainingOrder(
            num_tokens=corpus.num_train_tokens,
            context_length=config.architecture.context_length,
            data_seed=config.data_seed,
        )
        self._windows = evaluation_windows(
            corpus.num_val_tokens,
            context_length=config.architecture.context_length,
            eval_sequences=config.eval_sequences,
        )

    def run(self) -> Iterator[Progress | Outcome | None]:
        """Train to an ending; None ends a turn."""
        reset_peak_memory(self.device)
        self._streams = device_streams(self._corpus, str(self.device))
        self._engine = self._start_or_continue()
        self._setup_seconds = time.monotonic() - self._handed_over
        while True:
            yield self._progress()
            stop = yield from self._advance()
            measurement = self._measure_if_due(stop)
            if self._log.problem is not None:
                yield self.end("diverged", reason=self._log.problem)
                return
            if stop is not None:
                yield self._stop(stop)
                return
            if measurement is not None and self._log.step == self._config.num_steps:
                yield self._complete(measurement)
                return
            self._save_if_due()

    def end(self, status: OutcomeStatus, *, reason: str | None = None) -> Outcome:
        """The outcome of an attempt that stands where it stands."""
        outcome = sum_up(
            status,
            self._log,
            corpus=self._corpus,
            device=self.device,
            resumed_tokens=self._resumed_tokens,
            reason=reason,
        )
        prepared = 0 if self._setup_seconds is None else self._engine.peak_memory_bytes
        return replace(
            outcome,
            setup_seconds=self._setup_seconds,
            measuring_seconds=self._measuring_seconds,
            peak_memory_bytes=max(prepared, outcome.peak_memory_bytes or 0),
            warnings=tuple(self._notes),
        )

    def _start(self) -> StepEngine:
        recipe, seed = self._config.training, self._config.init_seed
        task = step_task(self._config, self._options, self.device)
        if task is not None:
            return self.lane.start(task, init_seed=seed)
        model = LanguageModel(
            self._config.architecture, seed=seed, parametrization=recipe.parametrization
        ).to(self.device)
        size = self._options.micro_batch_sequences
        return EagerEngine(model, recipe, micro_batch_sequences=size, seed=seed)

    def _start_or_continue(self) -> StepEngine:
        engine, folder = self._start(), self._options.checkpoint_dir
        found = None
        if folder is not None:
            found = self._usable(load_checkpoint(folder, config_hash=self._config.config_hash))
            if found is not None:
                self._log = TrialLog.from_json(self._config, found.state)
        if found is None and self._trunk is not None:
            found = self._usable(self._trunk.newest())
            if found is not None:
                self._log = self._trunk.log(found)
        if found is not None:
            engine.model.load_state_dict(found.weights)
            engine.load_optimizer_tensors(found.optimizer)
            self._steps_done = found.step
            self._resumed_tokens = self._log.tokens
        return engine

    def _usable(self, search: FoundCheckpoint) -> Checkpoint | None:
        """What was found, with a note of what was passed over."""
        self._notes += [f"a checkpoint was not whole and not used: {x}" for x in search.rejected]
        return search.checkpoint

    def _advance(self) -> Generator[None, None, StopReason | None]:
        """Train, turn by turn, until something is due or somebody asks to stop."""
        while True:
            stop, is_due = self._train_a_turn()
            if stop is not None or is_due:
                return stop
            yield

    def _train_a_turn(self) -> tuple[StopReason | None, bool]:
        """A few steps; why they stop, and whether something is due. Only this is training time."""
        started = time.monotonic()
        stop, is_due = None, self._steps_done == self._config.num_steps
        last = min(self._config.num_steps, self._steps_done + STEPS_OF_A_TURN[self.device.type])
        with garbage_collection_paused():
            while stop is None and not is_due and self._steps_done < last:
                stop = self._should_stop()
                if stop is None:
                    self._step()
                    self._log.add_losses(self._unread.arrived())
                    is_due = self._log.problem is not None or self._is_something_due()
            if stop is not None or is_due:
                self._log.add_losses(self._unread.all())
        self._log.wall_seconds += time.monotonic() - started
        return stop, is_due

    def _step(self) -> None:
        """Hand one optimizer step to the device."""
        recipe = self._config.training
        if not self._ahead:
            self._fetch()
        inputs_BT, targets_BT = self._ahead.popleft()
        loss = self._engine.step(
            inputs_BT,
            targets_BT,
            learning_rate=learning_rate_at(
                self._steps_done, recipe, num_steps=self._config.num_steps
            ),
            index=self._steps_done,
        )
        self._unread.add(loss)
        self._steps_done += 1

    def _fetch(self) -> None:
        """Bring the batches of the next steps to the device, all at once."""
        batch = self._config.training.batch_sequences
        first = self._steps_done * batch
        last = min(self._config.num_sequences, first + STEPS_OF_A_TURN[self.device.type] * batch)
        inputs_NT, targets_NT = gather(
            self._streams.train,
            self._order.windows(first, last - first),
            context_length=self._order.context_length,
        )
        batches = zip(torch.split(inputs_NT, batch), torch.split(targets_NT, batch), strict=True)
        self._ahead.extend(batches)

    def _is_something_due(self) -> bool:
        return (
            self._steps_done in self._evaluation_steps
            or self._is_at_branch()
            or self._is_save_due()
            or time.monotonic() - self._last_progress >= self._options.progress_seconds
        )

    def _is_at_branch(self) -> bool:
        return self._trunk is not None and self._steps_done == self._trunk.step

    def _is_save_due(self) -> bool:
        if self._options.checkpoint_dir is None or not self._steps_done:
            return False
        every = self._options.checkpoint_steps
        by_steps = every is not None and self._steps_done % every == 0
        seconds = time.monotonic() - self._last_save
        return by_steps or seconds >= self._options.checkpoint_seconds

    def _measure_if_due(self, stop: StopReason | None) -> Measurement | None:
        """Measure the validation loss and put it on the curve, where a point is due."""
        healthy = self._log.problem is None and stop is None
        if not healthy or self._log.step not in self._evaluation_steps:
            return None
        started = time.monotonic()
        measurement = measure(
            self._engine.validation_sums,
            self._streams,
            self._windows,
            context_length=self._config.architecture.context_length,
            names=list_of_readouts(self._config),
            sequences_at_once=self._engine.validation_sequences,
        )
        self._measuring_seconds += time.monotonic() - started
        self._log.add_point(measurement.loss_nats, measurement.readouts)
        return measurement

    def _progress(self) -> Progress:
        self._last_progress = time.monotonic()
        return Progress(
            step=self._log.step,
            steps=self._config.num_steps,
            tokens=self._log.tokens,
            resumed_tokens=self._resumed_tokens,
            curve=tuple(self._log.curve),
        )

    def _stop(self, reason: StopReason) -> Outcome:
        said = f"asked to stop at step {self._log.step}"
        if reason == "preempted" and not self._save_if_possible(self._save):
            said += f"; {self._notes[-1]}"
        return self.end(reason, reason=said)

    def _complete(self, measurement: Measurement) -> Outcome:
        path = self._options.weights_path
        if path is not None:
            save_weights(self._engine.model, path, config=self._config)
        return with_result(self.end("complete"), self._log, measurement, weights_path=path)

    def _save_if_due(self) -> None:
        if self._trunk is not None and self._is_at_branch():
            self._save_if_possible(self._trunk.leave)
        if self._is_save_due():
            self._save_if_possible(self._save)

    def _save_if_possible(self, save: Callable[[Checkpoint], None]) -> bool:
        """Save; where the disk does not take it the trial goes on, and the checkpoint before holds.

        The next try comes after the usual time.
        """
        try:
            save(self._checkpoint())
        except (OSError, CorruptCheckpoint) as error:
            self._notes.append(f"no checkpoint of step {self._log.step}: {error}")
            self._last_save = time.monotonic()
            return False
        return True

    def _save(self, checkpoint: Checkpoint) -> None:
        if self._options.checkpoint_dir is not None:
            save_checkpoint(self._options.checkpoint_dir, checkpoint)
            self._last_save = time.monotonic()

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            config_hash=self._config.config_hash,
            step=self._log.step,
            weights=self._engine.model.state_dict(),
            optimizer=self._engine.optimizer_tensors(),
            state=self._log.to_json(),
        )


def list_of_readouts(config: TrialConfig) -> list[str]:
    """Names of what the trial's arm reads off its layers."""
    architecture = config.architecture
    return [each.name for each in find_arm(architecture.arm).readouts_of(architecture)]


def save_weights(model: LanguageModel, path: Path, *, config: TrialConfig) -> None:
    """Leave the weights as safetensors; the file's metadata holds the trial's configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = safetensors.torch.save(tensors, metadata={"config": canonical_json(config)})
    write_atomically(path, content)


@contextlib.contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """No cyclic garbage collection inside: it would stall the steps."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
