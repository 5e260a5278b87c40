"""The published results that a report can lay beside its own, by the names that sweep files and commands use.

The numbers themselves stand in `moa_ray.reporting.sections.published`; this module loads nothing, for the commands.
"""

REFERENCES = {"kensert2019": "Kensert et al. 2019"}
