"""Methods as their papers tell them: one sample, one loop per index, nothing of the library."""
