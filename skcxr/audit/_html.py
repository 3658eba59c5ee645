"""A report of an audit as HTML; all that is not ours is escaped."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from skcxr._notice import RESEARCH_ONLY
from skcxr.audit._findings import figures_text, items_text, number_text

if TYPE_CHECKING:
    from skcxr.audit._findings import AuditReport

_ROWS = 40  # of a table on the page

_FRAGMENT = """\
<div class="skcxr-audit">
{% if not findings %}<p class="skcxr-audit-none">Nothing was found.</p>{% endif %}
{% for finding in findings %}
<section class="skcxr-finding skcxr-{{ finding.severity }}">
<p class="skcxr-finding-head"><span class="skcxr-severity">{{ finding.severity }}</span>
<span class="skcxr-check">{{ finding.check }}</span></p>
<p class="skcxr-sentence">{{ finding.sentence }}</p>
{% if finding.figures %}<p class="skcxr-figures">{{ figures_text(finding.figures) }}</p>{% endif %}
{% if finding.items %}<p class="skcxr-items">{{ items_text(finding["items"]) }}</p>{% endif %}
</section>
{% endfor %}
</div>
"""

_STYLE = """\
.skcxr-audit { max-width: 50em; line-height: 1.45; }
.skcxr-finding { border-left: .35em solid #5b7083; padding: .1em 0 .1em .9em; margin: 1em 0;
  break-inside: avoid; }
.skcxr-finding p { margin: .25em 0; }
.skcxr-serious { border-color: #c0392b; }
.skcxr-warning { border-color: #d98c00; }
.skcxr-severity { text-transform: uppercase; font-size: .75em; font-weight: 700; color: #fff;
  background: #5b7083; border-radius: .25em; padding: .15em .5em; margin-right: .5em; }
.skcxr-serious .skcxr-severity { background: #c0392b; }
.skcxr-warning .skcxr-severity { background: #9a6200; }
.skcxr-check { font-weight: 600; }
.skcxr-figures, .skcxr-items { font-size: .85em; opacity: .75; overflow-wrap: anywhere; }
"""

_NOTEBOOK = """\
<style>{{ style|safe }}</style>
<p><strong>{{ title }}</strong>: {{ summary }}</p>
{{ fragment|safe }}
"""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
img { max-width: 100%; background: #fff; border-radius: .4em; }
table { border-collapse: collapse; font-size: .85em; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2em .7em; border-bottom: 1px solid #8884; }
.skcxr-table { overflow-x: auto; }
@media print { details > * { display: block; } }
{{ style|safe }}
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ summary }}</p>
{{ fragment|safe }}
{% if picture %}<p><img alt="What a classifier scores without the lungs"
src="data:image/png;base64,{{ picture }}"></p>{% endif %}
{% for name, columns, rows, n_more in tables %}
<details><summary>{{ name }}</summary>
<div class="skcxr-table"><table>
<thead><tr>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{% if n_more %}<p>and {{ n_more }} more rows</p>{% endif %}
</details>
{% endfor %}
<p>{{ research_only }}</p>
</body>
</html>
"""


def findings_html(report: AuditReport) -> str:
    """The findings as a fragment without style: classes ``skcxr-finding``, ``skcxr-serious`` etc.

    Parameters
    ----------
    report : AuditReport
        The report.

    Returns
    -------
    str
        One ``<div class="skcxr-audit">``.
    """
    return _render(
        _FRAGMENT, findings=report.findings, figures_text=figures_text, items_text=items_text
    )


def notebook_html(report: AuditReport) -> str:
    """Findings with their style, for a notebook."""
    return _render(
        _NOTEBOOK, style=_STYLE, title=report.title, summary=report.summary(),
        fragment=findings_html(report),
    )  # fmt: skip


def page_html(report: AuditReport) -> str:
    """All of a report as a page."""
    tables = [
        (
            name,
            [str(column) for column in table.columns],
            [[_cell(value) for value in row] for row in table.head(_ROWS).values.tolist()],
            max(0, len(table) - _ROWS),
        )
        for name, table in report.tables.items()
        if len(table)
    ]
    return _render(
        _PAGE, title=report.title, summary=report.summary(), style=_STYLE,
        fragment=findings_html(report), picture=_picture(report), tables=tables,
        research_only=RESEARCH_ONLY,
    )  # fmt: skip


def _picture(report: AuditReport) -> str:
    from matplotlib.figure import Figure  # no pyplot: its global state is the caller's

    from skcxr.audit._picture import draw

    figure = Figure(layout="constrained")
    draw(report, None, figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _cell(value: Any) -> str:
    return "" if value is None or value != value else number_text(value)


def _render(template: str, **values: Any) -> str:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(values)
