"""Draw the report from the ledger.

    python -m moa_ray.report OUT
    python -m moa_ray.report OUT --predictions FILE [--reference kensert2019]

Makes predictions.parquet, treatments.parquet, leaderboard.csv, summary.json, report.html and figures/ anew, and
treatment_samples.parquet where the sweep draws samples or has seeds. They are views of the ledger and can be thrown
away; of an ensemble they hold the averages of its members. With --predictions the report is of a table made elsewhere
(see `moa_ray.reporting.external`), and OUT a folder of its own: empty, not there yet, or with an earlier report of this
kind.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from moa_ray import cli
from moa_ray.common.errors import InputError
from moa_ray.reporting.references import REFERENCES


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    words : sequence of str or None
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit status.
    """
    arguments = cli.parser("report", "Draw the report again from the ledger, or of predictions made elsewhere.")
    arguments.add_argument("out", metavar="OUT", help="the folder or URI that a sweep left, or of a new report")
    arguments.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="CSV or parquet, one row a treatment: compound, concentration, moa (or label), backbone, prob_<label>...",
    )
    arguments.add_argument(
        "--reference", choices=list(REFERENCES), help="lay the treatments beside these published ones"
    )
    return cli.run(_report, arguments, words)


def _report(arguments: argparse.Namespace) -> int:
    from moa_ray.common import uri  # matplotlib and pandas are for those who have a report to draw
    from moa_ray.common.uri import Uri
    from moa_ray.reporting import write
    from moa_ray.tracking.bucket_sync import BucketSync

    out = uri.place(arguments.out)
    complete = True
    if arguments.predictions is None:
        with BucketSync(out, lambda sentence: print(f"warning: {sentence}", file=sys.stderr)) as mirror:
            written = write.write(out, arguments.reference)
        complete = mirror.complete
    else:
        if isinstance(out, Uri):
            raise InputError(f"{out}: a report of --predictions goes to a folder; give one, and copy it to the bucket")
        words = ["python -m moa_ray.report", str(out), "--predictions", str(arguments.predictions)]
        words += ["--reference", arguments.reference] if arguments.reference else []
        written = write.write_external(out, arguments.predictions, arguments.reference, " ".join(words))
    print(written.headline)
    print(f"report: {out / 'report.html'}")
    return cli.DONE if complete else cli.FAILED


if __name__ == "__main__":
    sys.exit(main())
