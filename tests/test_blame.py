from __future__ import annotations

from unlimitedws.app import App
from unlimitedws.blame import report


def raised_inside() -> BaseException:
    try:
        App.of(3)  # type: ignore[arg-type]
    except Exception as error:
        return error
    raise AssertionError


def test_a_report_leaves_the_frames_of_this_package_out() -> None:
    text = report(raised_inside())
    assert "test_blame.py" in text
    assert "app.py" not in text
    assert text.endswith("3 of type int is not")


def test_the_causes_of_an_error_are_part_of_its_report() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise RuntimeError("outer") from inner
    except RuntimeError as error:
        text = report(error)
    assert text.index("KeyError: 'inner'") < text.index("direct cause") < text.index("RuntimeError: outer")


def test_the_cause_of_an_error_loses_the_same_frames() -> None:
    outer = RuntimeError("outer")
    outer.__cause__ = raised_inside()
    assert "3 of type int is not" in report(outer)
    assert "app.py" not in report(outer)
