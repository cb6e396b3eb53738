"""Lets in who shows a cookie that this server signed."""

from __future__ import annotations

from unlimitedws.checks.composing import Check
from unlimitedws.request import Request
from unlimitedws.signed_cookies import SignedCookies
from unlimitedws.verdict import Accept, Reject


def signed_cookie(cookies: SignedCookies, *, expires: bool = True) -> Check:
    """Lets in who has a valid cookie of `cookies`, whose value becomes `conn.state`; 403 for the others.

    expires: whether the connection ends with its cookie, `max_age_s` after that was set (`Accept.expires_at`); False: it
    stays as long as it likes. Browsers send cookies whichever page connects: put `checks.origin()` in front."""
    # Not 401: that would have to name a way to authenticate (RFC 9110, section 11.6.1), and there is none for cookies.
    refused = Reject(403, f"no valid cookie {cookies.name}; sign in first\n")

    def check_cookie(request: Request) -> Accept | Reject:
        value, expires_at = cookies.read(request.cookies.get(cookies.name, ""))
        return refused if value is None else Accept(state=value, expires_at=expires_at if expires else None)

    return check_cookie
