"""Types of the native parser of requests. For tests and the fuzzer: the engine calls it below Python."""

def clean_upgrade(head: bytes) -> tuple[int, bytes, bytes] | int | None:
    """(size of the head, target without query, key) of a clean upgrade request; 0: incomplete; None: for the full parser."""
