"""What is shown of a study: tables, CSV, charts, and looks at keys and attention."""
