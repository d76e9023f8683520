"""A page of HTML: no script, no network, dark or light as the reader has it; and its tables.

Whatever is not written here or in the module that fills the page is other people's text and goes
through `escape`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape as escape_markup
from typing import Final

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5b6570;--line:#c9d0d8;--back:#fff;
--good:#1a7f4b;--bad:#b3261e;--open:#8a6d00;--dot:#2563b0}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa5b1;--line:#3a424b;--back:#14171a;
--good:#58c48c;--bad:#ff8a80;--open:#e0c060;--dot:#7ab0f5}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);margin:0 auto;
max-width:60rem;padding:1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
th,td{padding:.3rem .7rem .3rem 0;text-align:right;border-bottom:1px solid var(--line);
white-space:nowrap}
th:first-child,td:first-child{text-align:left}
code{overflow-wrap:anywhere}
.PASS{color:var(--good)}.FAIL{color:var(--bad)}.UNVERIFIED{color:var(--open)}
.soft{color:var(--soft)}svg{width:100%;height:auto}
svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg .mark{fill:var(--soft)}
.axis{stroke:var(--line);fill:none}.budget{stroke:var(--bad);stroke-dasharray:4 4;fill:none}
.whisker{stroke:var(--dot);fill:none}.dot{fill:var(--dot);stroke:var(--dot)}
.open{fill:var(--back)}
.bar{display:inline-block;width:6rem;height:.6rem;background:var(--line)}
.bar i{display:block;height:100%;background:var(--dot)}
"""

_NOT_IN_XML: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""No parser takes these, written out or not."""


def escape(text: str) -> str:
    """`text` as text, in an element or an attribute; what no page may hold becomes U+FFFD."""
    return escape_markup(_NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text))


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """The whole page.

    Args:
        title: text.
        body: HTML, part by part.
        style: rules for what only this page has.
    """
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head><body>",
            *body,
            "</body></html>",
            "",
        ]
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: headings are text, cells are HTML already."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
