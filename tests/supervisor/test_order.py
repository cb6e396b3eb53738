"""What a template is asked for arrives as it was written."""

from __future__ import annotations

import json

from unlimitedws.supervisor.order import Order


def test_an_order_is_the_same_on_the_other_side() -> None:
    order = Order(serial=2**22, slot=3, row=7)
    assert Order.unpack(json.loads(json.dumps(order.pack()))) == order
