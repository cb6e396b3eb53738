"""Connections that move between workers. A whole reload's worth of them: tests/test_handover.py."""
