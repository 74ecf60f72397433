"""What scores mean: means with intervals, paired tests, one outcome for every method."""
