"""Prints untrusted text, such as the name of a run, without control characters that would affect a terminal."""


def visible(text: str) -> str:
    r"""A text on one line: what is not printable stands as `repr` writes it, such as `\x1b`.

    That is control characters (C0, C1 and line ends), those that turn the direction of writing or have no width, and
    the bytes of a file name that are no text. Letters of any language, spaces and backslashes stay as they are.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def visible_lines(text: str) -> str:
    """The same of a text of several lines."""
    return "\n".join(map(visible, text.split("\n")))
