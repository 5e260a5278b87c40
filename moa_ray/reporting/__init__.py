"""The report of a sweep, or of predictions made elsewhere: tables, figures, summary.json and one page.

`moa_ray.reporting.evidence` holds the tables that a report stands on, made by `from_ledger` or by `external`. Each
module of `moa_ray.reporting.sections` says one thing of them, and `write` writes what the sections say.
"""
