"""Types of the native engine's table: what its rows take."""

ROW_BYTES: int
METER_BYTES: int

class Table: ...
