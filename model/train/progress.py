"""What a run tells: a bar on a terminal, plain lines elsewhere, metrics.jsonl and TensorBoard's scalars."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import tensorflow as tf

from model.answers.run import METRICS
from model.train.failures import writing
from model.train.run_folder import TENSORBOARD

_BAR_CELLS = 24
_NUMBERS = (
    "loss", "accuracy", "top5", "learning_rate", "images_per_second", "gradient_norm", "update_norm", "step_ms_median",
    "step_ms_95", "share_of_peak", "device_bytes",
)  # fmt: skip
"""Those that have a curve in TensorBoard."""


class Report:
    """Shows and records the progress of a run of `total_steps`; with `writes` False it does neither."""

    def __init__(
        self, folder: Path, total_steps: int, steps_per_epoch: int, *, writes: bool = True, out: TextIO | None = None
    ) -> None:
        self._total = total_steps
        self._per_epoch = steps_per_epoch
        self.writes = writes
        self._out = out or sys.stdout
        self._terminal = self._out.isatty()
        self._path = folder / METRICS
        self._tensorboard = tf.summary.create_file_writer(str(folder / TENSORBOARD)) if writes else None
        self._begun: tuple[int, float] | None = None
        self._line_shown = False

    def epoch_of(self, step: int) -> int:
        """From 1: the epoch that step number `step` (from 1) belongs to."""
        return (max(step, 1) - 1) // self._per_epoch + 1

    def bar(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Draws the bar anew, on a terminal only."""
        if not (self.writes and self._terminal):
            return
        epoch = self.epoch_of(step)
        in_epoch = step - (epoch - 1) * self._per_epoch
        length = min(self._per_epoch, self._total - (epoch - 1) * self._per_epoch)
        filled = _BAR_CELLS * in_epoch // length
        text = f"{in_epoch}/{length} {'━' * filled}{'─' * (_BAR_CELLS - filled)} {self._left(step)}"
        text += f" - loss: {loss:.4f} - accuracy: {accuracy:.4f} - {images_per_second:,.0f} images/s"
        self._out.write(f"\r\x1b[KEpoch {epoch}/{self.epoch_of(self._total)} {text}")
        self._out.flush()
        self._line_shown = True

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.writes:
            self._out.write(("\n" if self._line_shown else "") + text + "\n")
            self._out.flush()
            self._line_shown = False

    def train(self, step: int, **numbers: float) -> None:
        """A logged step: loss, accuracy, learning_rate, images_per_second, and what else is a curve."""
        self._record({"kind": "train", "step": step, "epoch": self.epoch_of(step), **numbers})
        if not self._terminal:
            self.say(
                f"Epoch {self.epoch_of(step)}/{self.epoch_of(self._total)} step {step:,}/{self._total:,}"
                f" {self._left(step)}"
                f" - loss: {numbers['loss']:.4f} - accuracy: {numbers['accuracy']:.4f}"
                f" - {numbers['images_per_second']:,.0f} images/s"
            )

    def evaluation(self, step: int, split: str, *, best: bool, **numbers: float) -> None:
        """An evaluation: loss, accuracy, top5."""
        self._record(
            {"kind": "eval", "step": step, "epoch": self.epoch_of(step), "split": split, **numbers, "kept": best}
        )
        self.say(
            f"Epoch {self.epoch_of(step)}/{self.epoch_of(self._total)} {split}"
            f" - loss: {numbers['loss']:.4f} - accuracy: {numbers['accuracy']:.4f} - top5: {numbers['top5']:.4f}"
            + (" - best so far, saved" if best else "")
        )

    def close(self) -> None:
        if self._line_shown:
            self.say("")
        if self._tensorboard is not None:
            with contextlib.suppress(tf.errors.OpError):  # a full disk was told of when a line was written
                self._tensorboard.close()

    def _record(self, entry: dict[str, Any]) -> None:
        if not self.writes:
            return
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        assert self._tensorboard is not None
        where = entry.get("split", "train")
        with writing(self._path.parent / TENSORBOARD), self._tensorboard.as_default(step=entry["step"]):
            for name in _NUMBERS:
                if name in entry:
                    tf.summary.scalar(f"{where}/{name}", entry[name])
            self._tensorboard.flush()

    def _left(self, step: int) -> str:
        """The time to the end of the run, at the pace since this process began."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = (step, now)
        first, since = self._begun
        if step == first:
            return "left: ?"
        seconds = int((now - since) / (step - first) * (self._total - step))
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return f"left: {hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"left: {minutes}:{seconds % 60:02d}"
