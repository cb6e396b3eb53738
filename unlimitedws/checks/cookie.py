"""Lets in who shows a cookie that this server signed."""

from __future__ import annotations

from unlimitedws.checks.composing import Check
from unlimitedws.request import Request
from unlimitedws.signed_cookies import SignedCookies
from unlimitedws.verdict import Accept, Reject


def signed_cookie(cookies: SignedCookies) -> Check:
    """Lets in who has a valid cookie of `cookies`, whose value becomes `conn.state`; 403 for the others.

    Browsers send cookies whichever page connects: put `checks.origin()` in front."""
    # Not 401: that would have to name a way to authenticate (RFC 9110, section 11.6.1), and there is none for cookies.
    refused = Reject(403, f"no valid cookie {cookies.name}; sign in first\n")

    def check_cookie(request: Request) -> Accept | Reject:
        value = cookies.verify(request)
        return refused if value is None else Accept(state=value)

    return check_cookie
