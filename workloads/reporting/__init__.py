"""The HTML report: its figures, its tables and its page."""
