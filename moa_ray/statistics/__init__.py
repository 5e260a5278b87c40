"""Numbers over tables of predictions: scores, intervals, comparisons, conformal sets, uncertainty."""
