"""A drawing as a file of its own, light or dark as its reader's page."""

import re

from jaxrec_diff.reporting import drawing
from jaxrec_diff.reporting.drawing import Drawing

_LIGHT_OR_DARK = (
    "<style>@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa4ae; "
    f"{drawing.DARK_STYLE} }} }}</style>"
)


def alone(drawn: Drawing) -> str:
    """SVG."""
    text = re.sub(r"<metadata>.*?</metadata>", "", drawing.svg(drawn), flags=re.DOTALL)
    text = re.sub(r"(\d\.\d)\d+", r"\1", text)  # a tenth of a point is enough
    return text.replace("<defs>", f"{_LIGHT_OR_DARK}<defs>", 1) + "\n"
