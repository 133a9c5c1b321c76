"""Trying a batch again after errors that may pass: how often, and after what time."""

from __future__ import annotations

import time
from dataclasses import dataclass

from distill_ray.models.retry import delay_before_retry, headers_of
from distill_ray.steps.base import Step


@dataclass
class Retries:
    """What is left of a batch's retries; its rows share them where they are tried one by one.

    Attributes:
        step: the step, which says which errors may pass.
        made: how often something was tried again.
        rows: how many rows that were, those tried several times counted as often.
    """

    step: Step
    made: int = 0
    rows: int = 0

    def again(self, error: BaseException, rows: int) -> bool:
        """Wait before rows are tried again; False at once: the error does not pass, or it was enough."""
        if self.made >= self.step.batch_retries or not self.step.may_pass(error):
            return False
        time.sleep(delay_before_retry(self.made, headers_of(error)))
        self.made += 1
        self.rows += rows
        return True
