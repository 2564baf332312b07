"""Escape control characters in untrusted text, so that no terminal obeys them. Uses only the standard library.

Names, reasons and messages come from tables, journals and servers of other people. A control character in one of them
could move the cursor, hide a line or set the terminal's title.
"""

import re

# C0 and C1 without tab and line feed, marks that reverse the order of text, and single surrogates
_CARRIED_OUT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return ``text`` with its control characters written as escapes."""
    return _CARRIED_OUT.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
