"""Bytes to meaning and back: HTTP heads, the handshake, frames, closing. No socket, no clock, no loop.

May import `errors` and `config` only.
"""
