"""The work of a grid in units, whoever does them: one process, several, or several machines."""
