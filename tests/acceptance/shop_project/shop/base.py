"""What the steps of this shop have in common."""

from distill_ray.steps import Step
from distill_ray.types import Unsigned


def note(log: str, work: str, count: int) -> None:
    """Write down what was really done."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{work} {count}\n")


class TextStep(Step):
    """``log`` is the file that says what was done."""

    log: Unsigned[str]

    def tidy(self, text: str) -> str:
        return text.lower()
