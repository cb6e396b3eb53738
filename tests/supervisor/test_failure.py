"""An error is the same on both sides."""

from __future__ import annotations

import errno
import json

import pytest

from unlimitedws import errors
from unlimitedws.supervisor import failure
from unlimitedws.supervisor.channel import Channel


@pytest.mark.parametrize(
    "error",
    [
        errors.AppNotFound("app:handlers", "there is no module"),
        errors.AppImportFailed("app:handlers", "Traceback ..."),
        errors.AppInvalid("it is 5"),
        errors.StartFailed("the database is away"),
        errors.EngineUnavailable("native", "no compiler"),
        errors.ListenError("127.0.0.1", 80, OSError(errno.EACCES, "no")),
        errors.UnlimitedwsError("anything"),
    ],
)
def test_class_text_exit_code_and_facts_arrive(error: errors.UnlimitedwsError) -> None:
    there = failure.unpack(json.loads(json.dumps(failure.pack(error))))
    assert type(there) is type(error)
    assert str(there) == str(error)
    assert there.exit_code == error.exit_code
    assert vars(there) == {key: value for key, value in vars(error).items() if isinstance(value, str | int)}


@pytest.mark.parametrize("filler", ["x", "é", "\N{ROCKET}", "\0"])
def test_a_huge_report_loses_its_middle_and_fits_into_one_packet(filler: str) -> None:
    error = errors.AppImportFailed("app:handlers", "first line\n" + filler * 1_000_000 + "\nlast line")
    one, other = Channel.pair()
    assert one.send({"failed": failure.pack(error)})
    received = other.receive()
    assert received is not None
    there = failure.unpack(received[0]["failed"])
    one.close()
    other.close()
    assert "first line" in str(there)
    assert str(there).endswith("last line")
