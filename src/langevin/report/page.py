"""One HTML file with everything in it: images, numbers, and the library that draws."""

import base64
import functools
import gzip
import hashlib
import html
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

HERE = Path(__file__).parent


def page(content: Mapping[str, Any]) -> bytes:
    """The page that shows some content.

    Its security policy lets it load nothing and run only the two scripts that it names by their hashes, so that a
    value from a config could do nothing even if it became markup.
    """
    script = (HERE / "draw.js").read_text() + (HERE / "page.js").read_text()
    compressed, hash_of_library = library()
    return (
        Template((HERE / "page.html").read_text())
        .substitute(
            title=html.escape(content["title"]),
            style=(HERE / "page.css").read_text(),
            script=script,
            hashes=f"{hashed(script)} {hash_of_library}",
            library=compressed,
            # No character that could end the element, whatever a config contains.
            content=json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        )
        .encode(errors="replace")  # names of files may be no text
    )


@functools.cache
def library() -> tuple[str, str]:
    """The library that draws, compressed and as base64, and its hash."""
    from plotly.offline import get_plotlyjs  # here, for it takes a while

    code = get_plotlyjs()
    return base64.b64encode(gzip.compress(code.encode(), mtime=0)).decode(), hashed(code)


def hashed(script: str) -> str:
    """A script as a security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
