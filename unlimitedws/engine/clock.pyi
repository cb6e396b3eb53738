"""Types of the clock hand of the native engine."""

class Clock:
    """The part of `contract.Engine` that keeps deadlines; `native.Engine` is the whole."""

    def tick(self) -> None: ...
