"""Which recipe runs on which fold next: grid, race, proposals."""
