"""Types of the native engine's table: what its rows take."""

ROW_BYTES: int
METER_BYTES: int

class Table:
    """The part of `contract.Engine` that holds rows; `native.Engine` is the whole."""

    departing: dict[int, int]
