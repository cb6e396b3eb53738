"""Ready-made checks for `on_upgrade`: each is called with the `Request` and returns None, `Accept` or `Reject`.

    from unlimitedws import Handlers, checks

    handlers = Handlers()
    handlers.on_upgrade = checks.every(checks.origin(), checks.jwt(jwks_file="keys.json", algorithms=["RS256"]))

A function of the app's own is a check as well. May import: what a request is and what a hook may return.
"""

from __future__ import annotations

from unlimitedws.checks.basic import basic_auth
from unlimitedws.checks.composing import Check, every
from unlimitedws.checks.cookie import signed_cookie
from unlimitedws.checks.origins import origin
from unlimitedws.checks.tokens import JWT

jwt = JWT
"""Made like the others, `checks.jwt(...)`; its type is `checks.JWT`."""

__all__ = ["JWT", "Check", "basic_auth", "every", "jwt", "origin", "signed_cookie"]
