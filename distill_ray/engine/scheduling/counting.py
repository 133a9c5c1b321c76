"""Counts what calls have done, and how what was computed again differs from what is stored."""

from __future__ import annotations

from collections.abc import Sequence

from distill_ray.cache.rows import DIGEST_SIZE
from distill_ray.engine.messages import Purpose, WorkRecord
from distill_ray.engine.scheduling.batches import Batch
from distill_ray.engine.scheduling.step_state import StepState


def count(state: StepState, record: WorkRecord, batches: Sequence[Batch]) -> None:
    """Take in a call that made rows for the step's output; ``batches`` are those it was given."""
    counters = state.counters
    if not batches or batches[0].purpose is not Purpose.GIVE_UP:  # which takes no time
        state.pace.learn(len(batches) or record.batches, record)
    counters.rows_in += sum(batch.rows for batch in batches[: record.batches])
    counters.rows_failed += sum(failed.rows for failed in record.failed)
    counters.rows_retried += record.rows_retried
    counters.seconds += record.seconds
    counters.input_tokens += record.input_tokens
    counters.output_tokens += record.output_tokens
    if not batches or batches[0].purpose is Purpose.COMPUTE:
        state.given_up = 0 if record.batches else state.given_up
    if batches and batches[0].purpose is Purpose.JOIN:
        counters.rows_reused += sum(record.counts)
    else:
        counters.rows_computed += sum(record.counts)
        counters.batches_computed += record.batches


def compare(state: StepState, record: WorkRecord, batches: Sequence[Batch]) -> None:
    """Take in a call that computed stored units again."""
    counters = state.counters
    counters.seconds += record.seconds
    counters.input_tokens += record.input_tokens
    counters.output_tokens += record.output_tokens
    start = 0
    stored = [each for batch in batches[: record.batches] for each in batch.stored]
    for rows, before in zip(record.counts, stored, strict=True):
        made = record.digests[start * DIGEST_SIZE : (start + rows) * DIGEST_SIZE]
        counters.rows_checked += before.rows
        counters.rows_differing += _differing(bytes(before.digests), made)
        start += rows


def _differing(before: bytes, after: bytes) -> int:
    """Rows that are not what they were; those that are missing or too many among them."""
    rows = max(len(before), len(after)) // DIGEST_SIZE
    cuts = [slice(row * DIGEST_SIZE, (row + 1) * DIGEST_SIZE) for row in range(rows)]
    return sum(before[cut] != after[cut] for cut in cuts)
