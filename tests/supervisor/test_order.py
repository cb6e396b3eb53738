"""What a template is asked for arrives as it was written."""

from __future__ import annotations

import json

import pytest

from unlimitedws.listener import Listening
from unlimitedws.supervisor.order import Order

ORDER = Order(serial=2**22, slot=3, row=7, listeners=((False, True), (True, False)), workers=5)


def test_an_order_is_the_same_on_the_other_side() -> None:
    assert Order.unpack(json.loads(json.dumps(ORDER.pack()))) == ORDER


def test_descriptors_are_matched_with_what_is_spoken_there() -> None:
    assert ORDER.listening([5, 9]) == [Listening(5, proxied=False, tls=True), Listening(9, proxied=True, tls=False)]
    with pytest.raises(ValueError, match="zip"):
        ORDER.listening([5])
